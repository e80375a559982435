"""One split's way through the crew: tasks out, rows in, a checkpoint every few seconds, files that are complete."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loaders.counter_random import Draws
from loaders.errors import FeedrateError
from loaders.held_signals import held_signals

from .crew import run_in_order
from .encode import Encoding
from .formats.outputs import ROW, Output, Place, Rows, pixel_bytes, sync
from .journal import Journal, Tally
from .pack_work import PackWork, Report, Task
from .progress import Advance
from .samples import BadSample, Samples

_TASK_BYTES = 4 << 20  # of source a task reads, about: bounds the memory of the whole pass
_TASK_SAMPLES = 256
CHECKPOINT_INTERVAL_S = 2.0
_COUNTED_FROM = 10_000  # samples from which on it is enough to count the pixels of some
_COUNTED_EVERY = 8
_COUNTED_AT_LEAST = 2_500


@dataclass(frozen=True)
class Rules:
    """What a pass may do; nothing of it changes a byte of a good sample.

    skip_bad   samples that cannot be used are left out, up to `most_bad`, where otherwise the first ends the pass
    overwrite  what the folder holds may be replaced
    """

    skip_bad: bool = False
    most_bad: int = 0
    overwrite: bool = False


def packing_order(num_samples: int, seed: int | None) -> NDArray[np.int64]:
    """int64 [N]: which sample of the source comes first, second, …; the source's own order where `seed` is None."""
    ids = np.arange(num_samples)
    return ids if seed is None else np.argsort(Draws(seed, 0)("packing order", ids), kind="stable")


def counted_every(num_samples: int, encoding: Encoding) -> int:
    """Every how many-th stored sample's pixels are counted: all of a small set, an eighth of a large one.

    Where kept bytes are not even decoded, still fewer: 2,500 samples tell a mean to 0.7 of 255. Samples that come as
    raw pixels are counted in any case, since that costs little.
    """
    if num_samples < _COUNTED_FROM:
        return 1
    return _COUNTED_EVERY if encoding.check == "full" else max(_COUNTED_EVERY, num_samples // _COUNTED_AT_LEAST)


class SplitPass:
    """Packs one split; may be stopped anywhere and made anew, and goes on from its last checkpoint.

    outputs    by format. Complete after `run`: rows (ROW [N], N falling with bad samples), tally, paths by format.
    found_bad  what could not be used so far, that too which was more than the rules bear
    """

    def __init__(self, samples: Samples, outputs: Mapping[str, Output], journal: Path, seed: int | None) -> None:
        self._samples = samples
        self.outputs = outputs
        self.paths: dict[str, list[Path]] = {}
        self._order = packing_order(len(samples), seed)
        sizes = samples.num_bytes[self._order]
        self._borders = _task_borders(sizes)
        self._journal = Journal(journal)
        rows, tally = self._journal.read()
        self._rows = np.zeros(len(samples), ROW)
        self._rows[: len(rows)] = rows
        self._saved = self._done = len(rows), tally  # rows and tally; one name, so that no thread sees half a step
        self.found_bad = tally.bad
        self._saver = _Saver(self._save)
        for output in outputs.values():
            output.restore(rows)

    @property
    def rows(self) -> Rows:
        """The samples that are written, in their order."""
        return self._rows[: self._done[0]]

    @property
    def tally(self) -> Tally:
        """Where the pass stands."""
        return self._done[1]

    @property
    def num_done(self) -> int:
        """Samples of the source that have been dealt with."""
        return int(self._borders[self.tally.num_tasks])

    def run(self, work: PackWork, num_workers: int, rules: Rules, advance: Advance) -> None:
        """Pack what is not packed yet. On any exception a checkpoint is made first, as far as the disk allows.

        The files are complete then, and on the disk after `settle`, which is to be called in any case.
        """
        check_bad(0, [*self._samples.bad, *self.tally.bad], rules)  # an earlier run's rules may have been milder
        every = counted_every(len(self._samples), work.encoding)
        tasks = _Tasks(self._samples, self._order, self._borders, self.tally.num_tasks, every)
        pending: deque[tuple[int, Tally]] = deque()  # of each task placed and not yet written: rows and tally after it
        placed_rows, placed = self._done

        def place(task: Task, report: Report) -> list[Place]:
            nonlocal placed_rows, placed
            bad = [BadSample(task.stored[i].name, task.stored[i].where(), reason) for i, reason in report.bad]
            if bad and rules.skip_bad:
                self.found_bad = [*placed.bad, *bad]
            check_bad(len(self._samples.bad) + len(placed.bad), bad, rules)
            placed = _added(placed, report, bad)
            rows = self._rows[placed_rows : placed_rows + len(report.rows)]
            rows[:] = report.rows
            places = [output.place(rows, placed_rows) for output in self.outputs.values()]
            placed_rows += len(rows)
            pending.append((placed_rows, placed))
            return places

        def describe(number: int, item: int) -> str:
            task = tasks[number]
            return task.stored[max(0, item)].where()

        try:
            with closing(run_in_order(work, tasks, num_workers, place, describe)) as written:
                for number in written:
                    before = len(self.rows)
                    self._done = pending.popleft()
                    advance(tasks.num_samples(number), _num_bytes(self.rows[before:]))
                    self._saver.look()
        finally:
            self._saver.save()
        self.paths = {name: output.finish(self.rows) for name, output in self.outputs.items()}

    def settle(self) -> None:
        """Wait for the last checkpoint, which is made in the background. Raises OSError where it failed."""
        self._saver.end()

    def _save(self) -> None:
        """Make a checkpoint: first the samples reach the disk, then the journal that says so."""
        done = self._done
        if done[1] is self._saved[1]:
            return
        new = self._rows[self._saved[0] : done[0]]
        for output in self.outputs.values():
            for path in output.paths_of(new):
                sync(path)
        self._journal.append(new, done[1])
        self._saved = done


def _added(tally: Tally, report: Report, bad: Sequence[BadSample]) -> Tally:
    """The tally after a task, of which `bad` could not be used."""
    histogram = tally.histogram
    if report.histogram is not None:
        histogram = (np.array(histogram) + report.histogram).tolist()
    return replace(
        tally,
        num_tasks=tally.num_tasks + 1,
        num_counted=tally.num_counted + report.num_counted,
        histogram=histogram,
        bad=[*tally.bad, *bad] if bad else tally.bad,
    )


def check_bad(num_before: int, bad: Sequence[BadSample], rules: Rules) -> None:
    """Raise FeedrateError at a bad sample that the rules do not bear."""
    if bad and not rules.skip_bad:
        others = f", and {len(bad) - 1:,} more," if len(bad) > 1 else ""
        raise FeedrateError(
            f"{bad[0].where}{others} cannot be used ({bad[0].reason}): replace or remove it, or leave such out with"
            " --on-bad skip"
        )
    if bad and num_before + len(bad) > rules.most_bad:
        raise FeedrateError(
            f"more than {rules.most_bad} bad samples, the last {bad[-1].where} ({bad[-1].reason}):"
            " look at the source, or allow more with --max-bad"
        )


def _task_borders(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64 [tasks + 1]: where each task begins, in the order of packing; about as many bytes in each."""
    ends = np.cumsum(np.maximum(sizes, 1))
    borders, start = [0], 0
    while start < len(sizes):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + _TASK_BYTES, side="right"))
        start = min(max(stop, start + 1), start + _TASK_SAMPLES)
        borders.append(start)
    return np.array(borders, np.int64)


class _Tasks(Sequence[Task]):
    """The tasks from `first` on, each made when asked for."""

    def __init__(
        self,
        samples: Samples,
        order: NDArray[np.int64],
        borders: NDArray[np.int64],
        first: int,
        counted_every: int,
    ) -> None:
        self._samples = samples
        self._order = order
        self._borders = borders
        self._first = first
        self._counted_every = counted_every

    def __len__(self) -> int:
        return len(self._borders) - 1 - self._first

    def num_samples(self, number: int) -> int:
        return int(self._borders[self._first + number + 1] - self._borders[self._first + number])

    def __getitem__(self, number):  # type: ignore[no-untyped-def, override]
        if not 0 <= number < len(self):
            raise IndexError(number)
        start, stop = self._borders[self._first + number : self._first + number + 2].tolist()
        indices = self._order[start:stop]
        stored = [self._samples.stored(index) for index in indices.tolist()]
        counted = np.arange(start, stop) % self._counted_every == 0
        counted |= np.array([one.raw_size is not None for one in stored])
        return Task(stored, indices, self._samples.labels[indices], counted)


class _Saver:
    """Calls `save` in the background every few seconds."""

    def __init__(self, save: Callable[[], None]) -> None:
        self._save = save
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._last_s = time.monotonic()

    def look(self) -> None:
        """Save if it is time and no saving is under way. Raises what the last saving raised."""
        if time.monotonic() - self._last_s >= CHECKPOINT_INTERVAL_S and not (self._thread and self._thread.is_alive()):
            self.save()

    def save(self) -> None:
        """Save, after a saving under way. Raises what that one raised."""
        self.end()
        self._last_s = time.monotonic()
        with held_signals():  # a thread that was not started cannot be joined
            self._thread = threading.Thread(target=self._run, name="feedrate-checkpoint")
            self._thread.start()

    def end(self) -> None:
        """Wait for a saving under way. Raises what it raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            self._save()
        except BaseException as error:
            self._error = error


def _num_bytes(rows: Rows) -> int:
    return int(rows["jpeg_bytes"].sum()) + int(pixel_bytes(rows)[rows["beton_is_raw"] == 1].sum())
