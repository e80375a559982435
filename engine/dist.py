"""The ranks of a run: who this process is, and the few words ranks exchange."""

import atexit
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as torch_dist

from loaders.cpus import available_cpus
from loaders.errors import FeedrateError, first_line
from loaders.lost_output import UNSAID
from loaders.plan import Shard

from .meeting import meet

_TIMEOUT_S = 600.0
LEAST_START_S = 120.0  # that a start is waited for: importing and compiling are one long move
_WATCHED_TIMEOUT = timedelta(days=20)  # milliseconds still fit into 32 bits, as poll(2) takes them
_STORE_TIMEOUT = timedelta(seconds=5)
# how torch and gloo word it when another rank went away in the middle of something
_LOST_WORDS = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "Timed out waiting",
    "connectFullMesh failed",
)


@dataclass(frozen=True)
class Ranks:
    """This process among all of the run's. `device` is where it computes."""

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this rank prints and writes."""
        return self.rank == 0

    @property
    def shard(self) -> Shard:
        return Shard(self.rank, self.world_size)

    @property
    def cpus(self) -> int:
        """Processors for each rank of this machine, at least 1."""
        return max(1, available_cpus() // self.local_world_size)

    def finish(self) -> None:
        """Wait for work given to a GPU, so that a clock reads when it was done and not when it was asked for."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """`values` summed over all ranks, in place."""
        if self.world_size > 1:
            torch_dist.all_reduce(values)
        return values

    def largest(self, values: list[float]) -> list[float]:
        """The largest of all ranks' values, one by one: the same answer on all of them. The host waits for it."""
        if self.world_size == 1:
            return values
        largest = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch_dist.all_reduce(largest, op=torch_dist.ReduceOp.MAX)
        answer: list[float] = largest.tolist()
        return answer

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in order of rank, on every rank. Small plain data only."""
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        torch_dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until every rank has come here. Every rank must call it."""
        self.gather(None)

    def together(self, act: Callable[[], object]) -> None:
        """Let each rank act, and wait for all: where any raises FeedrateError, all raise the first rank's sentence.

        Every rank must call it. Where one alone raised, the others would wait for it until the launcher ends them.
        """
        fault = None
        try:
            act()
        except FeedrateError as error:
            if self.world_size == 1:
                raise
            fault = str(error)
        if self.largest([float(fault is not None)])[0]:  # one short reduction where all went well
            raise FeedrateError(next(told for told in self.gather(fault) if told is not None))

    def on_main(self, act: Callable[[], object]) -> None:
        """The same for what only the main rank does."""
        self.together(act if self.is_main else lambda: None)

    def gather_tensor(self, own: torch.Tensor) -> list[torch.Tensor]:
        """Every rank's tensor, all of one shape, in order of rank, on the main rank; [] on the others."""
        if self.world_size == 1:
            return [own]
        own = own.contiguous()
        parts = [torch.empty_like(own) for _ in range(self.world_size)] if self.is_main else None
        torch_dist.gather(own, parts)
        return parts or []

    def same_buffers(self, model: torch.nn.Module) -> None:
        """Give every rank the main rank's buffers: after a step each rank's batch statistics are its own."""
        if self.world_size > 1:
            for buffer in model.buffers():
                torch_dist.broadcast(buffer, src=0)


class Board:
    """What each rank last wrote of itself, in the store that the ranks met by: read without any other rank's help."""

    def __init__(self, ranks: Ranks) -> None:
        self._ranks = ranks
        # a connection of its own: one that waits in another thread keeps all others waiting
        self._store = torch_dist.distributed_c10d._get_default_store().clone()
        self._store.set_timeout(_STORE_TIMEOUT)

    def write(self, text: str) -> None:
        """Put `text` in this rank's place. Raises RuntimeError where the store cannot be reached."""
        self._store.set(self._key(self._ranks.rank), text)

    def read(self) -> list[str | None]:
        """Every rank's text, in order of rank; None for one that wrote nothing. Raises RuntimeError as `write`."""
        keys = [self._key(rank) for rank in range(self._ranks.world_size)]
        return [self._store.get(key).decode() if self._store.check([key]) else None for key in keys]

    def _key(self, rank: int) -> str:
        return f"feedrate/board/{rank}"


def is_lost_rank(error: BaseException) -> bool:
    """Whether torch raised this because another rank is gone, and nothing is wrong here."""
    if isinstance(error, torch_dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST_WORDS)


def start_ranks(device_choice: str, hang_timeout_s: float | None = None) -> Ranks:
    """Join the run that torchrun started, or be the only rank of one. Called once, by an entry point.

    With `hang_timeout_s` a watchdog, or where it is 0 a person, is to judge whether a rank hangs or works for long
    while the others wait for it, and no collective gives up before. None: nobody does, and they wait ten minutes.
    """
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    ranks = Ranks(
        rank=int(os.environ.get("RANK", "0")),
        world_size=world_size,
        local_rank=local_rank,
        local_world_size=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
        device=_device(device_choice, local_rank),
    )
    if ranks.device.type == "cuda":
        torch.cuda.set_device(ranks.device)
    if world_size > 1:
        backend = "nccl" if ranks.device.type == "cuda" else "gloo"
        timeout = timedelta(seconds=_TIMEOUT_S) if hang_timeout_s is None else _WATCHED_TIMEOUT
        store = meet(max(LEAST_START_S, hang_timeout_s or _TIMEOUT_S))
        torch_dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=world_size, timeout=timeout)
    return ranks


def stop_ranks() -> None:
    """Leave the run: where all ranks do, after nothing went wrong. Idempotent.

    NCCL first waits for what is under way on the device, such as a reduction that the other ranks wait in and that
    this one will not join. After an error `end_process` is the way out, and the launcher's to end the others.
    """
    if torch_dist.is_initialized():
        torch_dist.destroy_process_group()


def run_and_end(main: Callable[[], int]) -> NoReturn:
    """End this process with the status that `main` returns, or 1 and what was wrong where it raises.

    Neither as a rank nor alone does it go through the interpreter's teardown (see `end_process`), but for one that is
    run by another program, such as `python -m cProfile`, which has something to do afterwards.
    """
    try:
        status = main()
    except Exception as error:
        if is_lost_rank(error):
            print(f"error: another rank is gone ({first_line(error)})", file=sys.stderr)
        else:
            traceback.print_exc()
        status = 1
    is_run_by_another = sys._getframe(1).f_back is not None
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        if is_run_by_another:
            sys.exit(status)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is done is done
        atexit._run_exitfuncs()
    end_process(status)


def end_process(status: int) -> NoReturn:
    """End this process with `status`, without the interpreter's own teardown.

    DistributedDataParallel keeps its process group, and with it gloo's threads, beyond `stop_ranks` and even its own
    deletion (torch 2.15). One of them that wants the interpreter while it shuts down ends the process by SIGABRT
    ("terminate called without an active exception"), after all work is done: seen once in some dozens of runs. And a
    rank that fails must not wait there for the others. Of a process alone the teardown takes a second, in which a
    signal would still spoil the status of what is done.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # closed by who started it
                stream.flush()
        except BrokenPipeError:  # nobody reads any more
            pass
        except OSError:  # a full disk, for instance: what was said is not all there
            status = status or UNSAID
    os._exit(status)


def _device(choice: str, local_rank: int) -> torch.device:
    has_cuda = torch.cuda.is_available()
    if choice == "cpu" or (choice == "auto" and not has_cuda):
        return torch.device("cpu")
    if not has_cuda:
        raise FeedrateError("--execution.device is cuda and torch sees no CUDA device: use cpu or auto")
    if local_rank >= torch.cuda.device_count():
        raise FeedrateError(
            f"rank {local_rank} of this machine has no GPU of its own, there are {torch.cuda.device_count()}:"
            " start fewer processes or use --execution.device cpu"
        )
    return torch.device("cuda", local_rank)
