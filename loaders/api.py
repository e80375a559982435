"""The wall between loading and training: `Batch`, `Loader`, and nothing else crosses it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

import torch

from .errors import FeedrateError
from .plan import Shard
from .stage_times import StageTimes
from .substitutes import OnBad, Substitution

__all__ = [
    "Batch",
    "BatchIterator",
    "LoadProgress",
    "Loader",
    "LoaderOptions",
    "OnBad",
    "ResizeMode",
    "Substitution",
    "num_ready",
    "prepare",
]

ResizeMode = Literal["area", "exact", "bicubic", "device"]
LoadProgress = Callable[[int, int], None]  # (samples done, samples there are)


@dataclass(frozen=True)
class Batch:
    """One rank's part of one global batch.

    images     uint8 [B, 3, H, W], values 0-255, channels-last strides, on the loader's device
    labels     int64 [B], on the loader's device; -1 in padding
    ids        int64 [B], on the host: each sample's number in its split; -1 in padding
    num_valid  rows [num_valid:] are padding, which occurs in evaluation only
    substitutions  samples of this batch that could not be delivered, each with the one in its place, in no order
    """

    images: torch.Tensor
    labels: torch.Tensor
    ids: torch.Tensor
    num_valid: int
    substitutions: tuple[Substitution, ...] = ()


@dataclass(frozen=True)
class LoaderOptions:
    """What a loader is told about where it runs; it never looks for itself.

    shard        which share of every global batch to deliver
    device       where images and labels must end up; what torch.device takes will do
    resize       "area" (OpenCV's INTER_AREA), "exact" (antialiased bilinear, as torchvision's), "bicubic" (antialiased,
                 as torchvision's), "device" (the bits of "exact", computed where the batch is used), or None: the
                 loader's own fastest
    num_workers  threads or processes that make pixels; None: the processors this rank may use
    num_ahead    batches being made or ready beside the one handed out
    on_bad       a sample that cannot be delivered is an "error", or the plan names a "substitute" (in training only)
    max_bad      more substitutions than this, of one rank in one epoch, are an error all the same
    stage_times  where the loader notes what its stages take, one loader's own, with a row for each worker and one for
                 whoever asks for batches; changes no pixel
    """

    shard: Shard = Shard()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    resize: ResizeMode | None = None
    num_workers: int | None = None
    num_ahead: int = 3
    on_bad: OnBad = "error"
    max_bad: int = 100
    stage_times: StageTimes | None = None

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "device", torch.device(self.device))
        except (RuntimeError, TypeError) as error:
            raise FeedrateError(f"device is {self.device!r}: it must be one of torch's, such as 'cpu'") from error
        _refuse_unknown("resize", self.resize, (None, *get_args(ResizeMode)))
        _refuse_unknown("on_bad", self.on_bad, get_args(OnBad))
        if self.num_workers is not None and self.num_workers < 1:
            raise FeedrateError(f"{self.num_workers} workers: at least 1 is needed")
        if self.num_ahead < 1:
            raise FeedrateError(f"{self.num_ahead} batches ahead: at least 1 is needed")
        if self.max_bad < 0:
            raise FeedrateError(f"a budget of {self.max_bad} bad samples must be 0 or more")


def _refuse_unknown(name: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known:
        raise FeedrateError(f"{name} is {value!r}: known are {', '.join(map(str, known))}")


class BatchIterator(Iterator[Batch], Protocol):
    """The batches of one epoch. Closing it, or dropping it, ends the work on it; one that failed stays failed."""

    def close(self) -> None:
        """Give up what the epoch holds. Idempotent."""
        ...


class Loader(Protocol):
    """A stream of batches made as the plan says. What every implementation owes:

    * The same `len()` on all ranks, and order, rectangles and flips exactly the plan's.
    * In training every sample at most once an epoch over all ranks, all but a remainder of less than one global batch,
      unless the plan's sampling draws or repeats them; in evaluation every sample exactly once, for any number of
      ranks and any batch size.
    * Bit-identical batches for the same (seed, epoch, start), whatever the number of threads or workers.
    * A batch's tensors are ready on the current stream and valid until the next `next()`, not longer.
    * A sample that cannot be delivered raises LoaderError with its id and where it is stored; or, where `on_bad` says
      so, the plan's substitute takes its place, and the batch lists it.
    * Leaving an epoch early, and `close()`, leave no thread, process, shared memory or open file behind.
    * Several loaders may be open, and iterating, at once. One loader runs one epoch at a time: asking for another
      ends the one before. An epoch's batches are for one thread at a time, of the process that began it; any thread
      may end it.

    A loader keeps no position: the engine owns (epoch, batch), so there is no cursor that could be wrong.

    What it may do beside: note what its stages take in the `stage_times` of its options, and have a method
    `num_ready()`, which `num_ready` below asks. Where it does neither, the profiler says that it cannot be seen. Work
    for all epochs, which else the first batch waits for, may have a method `prepare(progress)`, as below.
    """

    name: str

    def __len__(self) -> int:
        """Batches an epoch."""
        ...

    def epoch(self, index: int, start: int = 0) -> BatchIterator:
        """The batches of epoch `index` from batch number `start` on, none if `start` is `len()`."""
        ...

    def identity(self) -> dict[str, Any]:
        """What a checkpoint stores, as JSON data: {"stream": …, "pixels": …}.

        Two loaders with equal stream parts deliver the same samples with the same crops; with equal pixel parts too,
        the same bits.
        """
        ...

    def close(self) -> None:
        """Release everything. Idempotent; the loader cannot be used afterwards."""
        ...


def num_ready(loader: Loader) -> int | None:
    """Batches that `next()` would hand out one after the other without waiting; None where nobody can tell.

    None, too, where a batch is only made when it is asked for. Any thread may ask.
    """
    count = getattr(loader, "num_ready", None)
    return count() if count is not None else None


def prepare(loader: Loader, progress: LoadProgress) -> None:
    """Do now what a loader does once, for all epochs, rather than when its first batch is asked for.

    `progress` hears how far it is. An exception that comes meanwhile, from a signal's handler for instance, ends it.
    """
    method = getattr(loader, "prepare", None)
    if method is not None:
        method(progress)
