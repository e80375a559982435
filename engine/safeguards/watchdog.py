"""Finds a run that hangs, says where every rank stands, and ends it."""

import contextlib
import faulthandler
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, NoReturn

import psutil

from loaders.api import Batch, BatchIterator, Loader, LoadProgress, prepare

from ..dist import LEAST_START_S, Board, Ranks

HANG_STATUS = 124  # as timeout(1) ends


class Watchdog:
    """A thread that ends this process when no rank has moved for `timeout_s`; 0: never. Until `end_start` it is at
    least two minutes: importing and compiling are one long move.

    A rank moves when its main thread comes to another stage. One that stands still while others move waits for them,
    as for the main rank that writes a checkpoint. What the others are at stands on a board in the ranks' store. Time is
    counted in the thread's own short naps, so that a process that was suspended was not hanging.

    `newest` names the checkpoint to go on from; `end` is called once all is told.
    """

    def __init__(
        self, timeout_s: float, ranks: Ranks, newest: Callable[[], str], end: Callable[[], object] | None = None
    ) -> None:
        self._timeout_s = timeout_s
        self._patience_s = max(timeout_s, LEAST_START_S)
        self._nap_s = min(5.0, max(0.05, timeout_s / 10))
        self._ranks = ranks
        self._newest = newest
        self._end = end or end_with_children
        self._stage = "starting"
        self._moves = 0
        self._naps = 0
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._board = Board(ranks) if ranks.world_size > 1 and timeout_s > 0 else None

    def __enter__(self) -> "Watchdog":
        if self._timeout_s > 0:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._leaving.set()
        if self._timeout_s > 0:
            self._thread.join()

    def at(self, stage: str) -> None:
        """Note that the main thread has come to `stage`."""
        self._stage = stage
        self._moves += 1

    def end_start(self) -> None:
        """The run is built: from here on it moves with every batch."""
        self._patience_s = self._timeout_s
        self.at("starting its first epoch")

    def _watch(self) -> None:
        still_s, seen, woken = 0.0, (-1, ""), time.monotonic()
        while not self._leaving.wait(self._nap_s):
            now = time.monotonic()
            still_s += min(now - woken, 2 * self._nap_s)
            woken = now
            self._naps += 1
            self._write()
            # the others are asked only when this rank stands still for long
            others = self._moves_of_others() if still_s > self._patience_s / 2 else seen[1]
            if (self._moves, others) != seen:
                # the first look at the others tells nothing of whether they move
                moved = self._moves != seen[0] or seen[1] != ""
                seen = (self._moves, others)
                still_s = 0.0 if moved else still_s
            if still_s >= self._patience_s:
                lines = self._findings(still_s)
                if not self._leaving.is_set():  # the main thread may have come free meanwhile, by an error for instance
                    self._report(lines)
                    self._end()
                return

    def _write(self) -> None:
        if self._board is not None:
            with contextlib.suppress(RuntimeError):
                self._board.write(json.dumps({"moves": self._moves, "naps": self._naps, "stage": self._stage}))

    def _read(self) -> list[dict[str, Any]] | None:
        """What stands on the board, empty for a rank that never wrote; None where there is no board to be read."""
        try:
            return None if self._board is None else [json.loads(text or "{}") for text in self._board.read()]
        except RuntimeError:
            return None

    def _moves_of_others(self) -> str:
        notes = self._read()
        own = self._ranks.rank
        return "" if notes is None else str([note.get("moves") for rank, note in enumerate(notes) if rank != own])

    def _findings(self, still_s: float) -> list[str]:
        rank = self._ranks.rank
        return [
            f"error (rank {rank}): nothing has moved for {still_s:.0f} s. Rank {rank} is {self._stage}.",
            *self._of_others(),
            f"The newest checkpoint is {self._newest()}: the same command goes on from there.",
            f"Stacks of rank {rank}:",
        ]

    def _report(self, lines: list[str]) -> None:
        """One write for all lines, so that ranks do not talk across each other."""
        print("\n".join(lines), file=sys.stderr, flush=True)
        faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)

    def _of_others(self) -> list[str]:
        """A line for each other rank; one that does not nap any more is stopped, dead or out of reach."""
        if self._board is None:
            return []
        earlier = self._read()
        self._leaving.wait(3 * self._nap_s)
        later = self._read()
        if earlier is None or later is None:
            return ["The other ranks cannot be asked: the store by which they met does not answer."]
        lines = []
        for rank, (before, now) in enumerate(zip(earlier, later, strict=True)):
            if rank == self._ranks.rank:
                continue
            silent = before.get("naps") == now.get("naps")
            stage = now.get("stage", "nowhere yet")
            lines.append(f"Rank {rank} is {'SILENT (stopped, dead or out of reach), last ' if silent else ''}{stage}.")
        return lines


def end_with_children() -> NoReturn:
    """End this process at once, and with it those it started: a worker that hangs would outlive it."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(HANG_STATUS)


class WatchedLoader:
    """A loader that tells the watchdog about each batch; after each, `obey` may raise to end the epoch."""

    def __init__(self, loader: Loader, what: str, watchdog: Watchdog, obey: Callable[[], None] = lambda: None) -> None:
        self.name = loader.name
        self._loader = loader
        self._what = what
        self._watchdog = watchdog
        self._obey = obey

    def __len__(self) -> int:
        return len(self._loader)

    def epoch(self, index: int, start: int = 0) -> BatchIterator:
        """As the loader's own."""
        return self._watched(self._loader.epoch(index, start), start)

    def prepare(self, progress: LoadProgress) -> None:
        """As the loader's own, if it has one."""
        prepare(self._loader, progress)

    def identity(self) -> dict[str, Any]:
        """As the loader's own."""
        return self._loader.identity()

    def close(self) -> None:
        """As the loader's own."""
        self._loader.close()

    def _watched(self, batches: BatchIterator, start: int) -> Generator[Batch]:
        with contextlib.closing(batches):
            for number in range(start + 1, len(self._loader) + 2):
                where = f"batch {number} of {len(self._loader)} {self._what}"
                self._watchdog.at(f"waiting for {where}" if number <= len(self._loader) else f"at the end {self._what}")
                batch = next(batches, None)
                if batch is None:
                    return
                self._watchdog.at(f"working on {where}")
                yield batch
                self._obey()
