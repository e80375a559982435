"""Who looks on while the script trains, each as its documentation says."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from engine.dist import Ranks
from engine.profiler.meter import Meter
from engine.profiler.time_book import TimeBook
from engine.reporting.time_table import far_slower_rank
from engine.step import TrainStep
from loaders.api import Batch
from loaders.stage_times import StageTimes

_SKIPPED_STEPS = 5
_NUM_ROWS = 3


class Watcher(Protocol):
    """Is told of the script's loop; `told` is what it says of it, the same on all ranks."""

    def loop(self) -> AbstractContextManager[None]:
        """What the loop runs in."""
        ...

    def batches(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches."""
        ...

    def step(self) -> AbstractContextManager[Any]:
        """What the body of the loop runs in."""
        ...

    def told(self) -> dict[str, Any]:
        """After the loop."""
        ...


class Ours:
    """What every training run of ours has: where the time went."""

    def __init__(self, step: TrainStep, times: StageTimes, ranks: Ranks) -> None:
        self._book = TimeBook(lambda: step.clock, times)
        self._meter = Meter(step.clock.total_s)
        self._ranks = ranks

    def loop(self) -> AbstractContextManager[None]:
        self._book.begin()
        return self._book.training(self._meter)

    def batches(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        return self._meter.timed(batches)

    def step(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def told(self) -> dict[str, Any]:
        spent = self._book.read()
        slow = far_slower_rank(self._ranks.gather(spent.own_s), spent.train_s)
        return {"shares": {part: share for part, share in spent.shares().items() if share}, "slow_rank": slow}


class TorchProfiler:
    """`torch.profiler.profile` of the processor, and the top of its `key_averages`."""

    def __init__(self, step: TrainStep, times: StageTimes, ranks: Ranks) -> None:
        from torch.profiler import ProfilerActivity, profile, schedule

        steps = schedule(skip_first=_SKIPPED_STEPS, wait=0, warmup=1, active=1000)
        self._profile = profile(activities=[ProfilerActivity.CPU], schedule=steps)

    @contextmanager
    def loop(self) -> Iterator[None]:
        with self._profile:
            yield

    def batches(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        return batches

    @contextmanager
    def step(self) -> Iterator[None]:
        yield
        self._profile.step()

    def told(self) -> dict[str, Any]:
        rows = sorted(self._profile.key_averages(), key=lambda row: -row.self_cpu_time_total)
        total = sum(row.self_cpu_time_total for row in rows)
        return {"rows": [[row.key, row.self_cpu_time_total / total] for row in rows[:_NUM_ROWS]]}


class TraceML:
    """`traceml run` with the wrappers that its documentation has for loops of one's own.

    Not its automatic patch of DataLoader, which puts a generator in place of the iterator whose workers our loader
    ends early. What it says lies in its own files.
    """

    def __init__(self, step: TrainStep, times: StageTimes, ranks: Ranks) -> None:
        import traceml_ai

        self._traceml = traceml_ai
        self._model = step.module
        traceml_ai.init(mode="selective", patch_forward=True, patch_backward=True, patch_h2d=True)
        traceml_ai.wrap_optimizer(step.optimizer)

    def loop(self) -> AbstractContextManager[None]:
        return nullcontext()

    def batches(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        wrapped: Iterator[Batch] = self._traceml.wrap_dataloader_fetch(batches)
        return wrapped

    def step(self) -> AbstractContextManager[Any]:
        watched: AbstractContextManager[Any] = self._traceml.trace_step(self._model)
        return watched

    def told(self) -> dict[str, Any]:
        return {}


WATCHERS: Mapping[str, Callable[[TrainStep, StageTimes, Ranks], Watcher]] = {
    "ours": Ours,
    "torch": TorchProfiler,
    "traceml": TraceML,
}
