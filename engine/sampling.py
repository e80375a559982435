"""Which samples make an epoch, how often and in what order: the settings, and what the plan makes of them."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from loaders.errors import FeedrateError, first_line
from loaders.home_folder import expand_home
from loaders.plan import BlockShuffled, Order, Sampling, Shuffled
from loaders.records import Records
from loaders.sample_table import InSource
from loaders.subsets import balanced_weights, choose_samples, labels_of, refuse_bad_subset

from .bounds import at_least, between


@dataclass(frozen=True)
class SamplingConfig:
    """Which samples, how often, in what order. The loaders and the model need not know."""

    order: Literal["shuffled", "block"] = "shuffled"
    """shuffled: uniform. block: for a packed set larger than memory, in long reads, mixed a few blocks at a time."""
    block_mib: float = 2.0
    """Size of a block, for order block."""
    blocks_mixed: int = 64
    """Blocks whose samples are mixed at a time in each lane; twice that many are in memory."""
    block_lanes: int = 8
    """Parts of a batch that are read apart. It must divide the batch; the ranks should divide it."""
    subset: float = 1.0
    """Share of the training samples up to 1, or a number of them above; the same in every epoch."""
    eval_subset: float = 1.0
    """The same of the evaluation samples."""
    subset_seed: int = 0
    """Which subset: it does not follow --seed."""
    classes: tuple[str, ...] = ()
    """Train and evaluate on these classes alone, by name; labels, and so the model's head, stay as they are."""
    sampling: Literal["uniform", "balanced", "weighted"] = "uniform"
    """uniform: each training sample once. balanced and weighted: draws with replacement, as many as there are samples,
    each class as likely as any other, or as --data.weights say."""
    weights: str = ""
    """A .npy file, or text with one number a line: a weight for each class, or for each training sample in the order of
    the folder of images, also where a set packed from it is read."""
    repeats: int = 1
    """Repeated augmentation: each sample this often in an epoch of unchanged length, cut differently each time."""
    views: int = 1
    """Batch augmentation: each sample this often in a row, cut differently; the batch size counts all of them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", expand_home(self.weights))
        at_least(1, blocks_mixed=self.blocks_mixed, block_lanes=self.block_lanes)
        at_least(1, repeats=self.repeats, views=self.views)
        at_least(0, subset_seed=self.subset_seed)
        between(1e-6, 1e6, block_mib=self.block_mib)
        for subset in (self.subset, self.eval_subset):
            refuse_bad_subset(subset)
        if self.sampling == "weighted" and not self.weights:
            raise FeedrateError("sampling is weighted: --data.weights must name a file of weights")
        if self.weights and self.sampling != "weighted":
            raise FeedrateError(f"weights are given and sampling is {self.sampling}: set --data.sampling weighted")
        draws = self.sampling != "uniform"
        if draws and self.repeats > 1:
            raise FeedrateError(
                f"repeats is {self.repeats} and sampling {self.sampling}, which repeats: use one of them"
            )
        if self.order == "block" and (draws or self.repeats > 1):
            raise FeedrateError("order is block: repeats, balanced and weighted sampling need --data.order shuffled")
        if len(set(self.classes)) < len(self.classes):
            raise FeedrateError(f"classes {', '.join(self.classes)}: each may be named once")


def training_order(records: Records, settings: SamplingConfig, batch_size: int) -> Order:
    """The order of training as set. Blocks have the size of so many mean samples."""
    if settings.order == "shuffled":
        return Shuffled(batch_size)
    sizes: NDArray[np.int64] | None = getattr(records, "sizes", None)
    if sizes is None:
        raise FeedrateError(
            f"order is block and {records.where(0)} is no part of a packed file: pack the set with tools/convert.py,"
            " or use --data.order shuffled"
        )
    block_samples = max(1, round(settings.block_mib * 2**20 / float(sizes.mean())))
    return BlockShuffled(batch_size, block_samples, settings.blocks_mixed, settings.block_lanes)


def training_sampling(records: Records, settings: SamplingConfig) -> Sampling:
    """What an epoch of training draws from `records`."""
    labels_wanted = labels_of(settings.classes, records.classes)
    pool = choose_samples(records.labels, labels_wanted, settings.subset, settings.subset_seed)
    weights = None
    if settings.sampling == "balanced":
        weights = balanced_weights(records.labels, pool)
    elif settings.sampling == "weighted":
        weights = _read_weights(Path(settings.weights), records)
    return Sampling(pool, weights, settings.repeats, settings.views)


def evaluation_sampling(records: Records, settings: SamplingConfig) -> Sampling:
    """What an evaluation counts of `records`."""
    labels_wanted = labels_of(settings.classes, records.classes)
    return Sampling(choose_samples(records.labels, labels_wanted, settings.eval_subset, settings.subset_seed))


def told_of_weights(records: Records, settings: SamplingConfig) -> list[str]:
    """In which order weights are taken, a line, where there is one a sample."""
    if settings.sampling != "weighted":
        return []
    num_weights, in_source = len(_numbers_in(Path(settings.weights))), _in_source(records)
    if not _is_one_a_sample(num_weights, records, in_source):
        return []
    order = "in which they are stored"
    if in_source is not None:
        order = f"of the source that they were packed from{f', {in_source.place}' if in_source.place else ''}"
    return [f"weights: {num_weights:,} of {settings.weights}, one a training sample in the order {order}"]


def _in_source(records: Records) -> InSource | None:
    return getattr(records, "in_source", None)


def _is_one_a_sample(num_weights: int, records: Records, in_source: InSource | None) -> bool:
    """Whether so many are one for each sample of the source; as many samples as classes: they are."""
    if in_source is None:
        return num_weights == len(records)
    if in_source.is_exact:
        return num_weights == in_source.most
    # how many of the bad ones, which packing left out, had a number in the source is not known
    return int(in_source.numbers().max()) < num_weights <= in_source.most


def _read_weights(path: Path, records: Records) -> NDArray[np.float64]:
    """float64 [N], from a file with one weight a class, or one a sample in the order of the source of what is packed.

    So a file means the same images for a folder and for the set packed from it.
    """
    weights, in_source = _numbers_in(path), _in_source(records)
    if weights.ndim == 1 and _is_one_a_sample(len(weights), records, in_source):
        return weights if in_source is None else weights[in_source.numbers()]
    if weights.shape == (len(records.classes),):
        per_sample: NDArray[np.float64] = weights[records.labels]
        return per_sample
    needed = f"{len(records):,}, one a training sample"
    if in_source is not None and in_source.most > len(records):
        needed = f"{in_source.most:,}, one a training sample of the source, with those that packing left out"
    raise FeedrateError(
        f"{path} holds weights of shape {list(weights.shape)}: {len(records.classes)} are needed, one a class,"
        f" or {needed}"
    )


def _numbers_in(path: Path) -> NDArray[np.float64]:
    """float64, what the file holds: finite, 0 and above. Raises FeedrateError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a text without numbers: told below
            stored = np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path, ndmin=1)
    except OSError as error:
        raise FeedrateError(f"{path} cannot be read ({error.strerror or error}): --data.weights names it") from error
    except (ValueError, TypeError, EOFError) as error:
        raise FeedrateError(f"{path} does not hold weights ({first_line(error)})") from error
    if stored.dtype.kind not in "biuf":
        raise FeedrateError(f"{path} does not hold weights (its values are {stored.dtype}): numbers are needed")
    weights = stored.astype(np.float64)
    if not np.isfinite(weights).all() or bool((weights < 0).any()):
        raise FeedrateError(f"{path} holds weights that are negative, infinite or no numbers: 0 and above are needed")
    return weights
