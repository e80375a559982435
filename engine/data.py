"""The data of a run: from its configuration to two open loaders."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loaders.api import FeedrateError, Loader, LoaderOptions
from loaders.choose import choose_loader, open_loader
from loaders.plan import Plan, Sequential, Shuffled
from loaders.records import ChannelStatistics, Records, ScanProgress, open_records

from .augment import IMAGENET_CHANNELS
from .config import Config, DataConfig
from .dist import Ranks

Say = Callable[[str], None]

_SYNTHETIC_SAMPLES = {"train": 51_200, "val": 5_120}
_SYNTHETIC_CLASSES = 1000


@dataclass(frozen=True)
class Data:
    """Both loaders, and what the model must know of the set."""

    train: Loader
    evaluation: Loader
    num_classes: int
    channels: ChannelStatistics

    def close(self) -> None:
        self.train.close()
        self.evaluation.close()


def open_data(config: Config, ranks: Ranks, say: Say, progress: ScanProgress | None = None) -> Data:
    """Open what `config` names, for this rank. `say` hears what was chosen and why."""
    name, reason = choose_loader(config.loader)
    say(f"loader: {name} ({reason})")
    train_records, eval_records = _open_both(config, name, ranks, say, progress)
    if train_records.classes != eval_records.classes:
        raise FeedrateError(
            f"{config.data.path}: '{config.data.train_split}' has {len(train_records.classes)} classes and"
            f" '{config.data.eval_split}' has {len(eval_records.classes)} or others: labels would not mean the same"
        )
    data = config.data
    train_plan = plan_of(train_records, config)
    order = Sequential(data.eval_batch_size_per_rank)
    eval_plan = Plan(eval_records.widths, eval_records.heights, order, data.eval_view(), config.seed)
    train_plan.num_batches(ranks.world_size)  # refuses what cannot be shared before anything is started
    options = loader_options(data, ranks)
    train = open_loader(name, train_records, train_plan, options)
    try:
        evaluation = open_loader(name, eval_records, eval_plan, options)
    except BaseException:
        train.close()
        raise
    channels = channels_of(train_records)
    say(
        f"data: {len(train_records):,} to train on, {len(eval_records):,} to evaluate,"
        f" {len(train_records.classes)} classes"
    )
    say(f"normalised by the mean and deviation of {channels.source}")
    return Data(train, evaluation, len(train_records.classes), channels)


def plan_of(records: Records, config: Config) -> Plan:
    """The plan of training over `records`."""
    order = Shuffled(config.data.batch_size)
    return Plan(records.widths, records.heights, order, config.data.train_view(), config.seed)


def channels_of(records: Records) -> ChannelStatistics:
    """What to normalise by: the set's own statistics where its format carries them, else ImageNet's."""
    return records.channels or IMAGENET_CHANNELS


def loader_options(data: DataConfig, ranks: Ranks) -> LoaderOptions:
    """What the loaders of this rank are told."""
    return LoaderOptions(
        shard=ranks.shard,
        device=ranks.device,
        resize=None if data.resize == "auto" else data.resize,
        num_workers=data.workers or ranks.cpus,
        num_ahead=data.batches_ahead,
    )


def packed_beside(path: str) -> str:
    """`path`, or `path`-packed where the converters left a packed set beside it."""
    packed = Path(f"{path.rstrip('/')}-packed")
    return str(packed) if (packed / "manifest.json").is_file() else path


def _open_both(
    config: Config, loader: str, ranks: Ranks, say: Say, progress: ScanProgress | None
) -> tuple[Records, Records]:
    path = packed_beside(config.data.path)
    if loader == "synthetic" and not Path(path).exists():
        say(f"{path} does not exist: synthetic samples stand in for it")
        return _synthetic(config, "train"), _synthetic(config, "val")
    if path != config.data.path:
        say(f"reading {path}, packed from {config.data.path}")
    # one rank of a machine scans and caches an image folder's sizes, the others then find the cache
    if ranks.local_rank == 0:
        both = _open_splits(path, config, progress)
    ranks.gather(None)
    if ranks.local_rank != 0:
        both = _open_splits(path, config, None)
    return both


def _open_splits(path: str, config: Config, progress: ScanProgress | None) -> tuple[Records, Records]:
    train = open_records(path, config.data.train_split, progress)
    try:
        return train, open_records(path, config.data.eval_split, progress)
    except FeedrateError as error:
        with contextlib.suppress(OSError):
            train.close()
        raise FeedrateError(f"{error}; --data.eval-split names the split to evaluate on") from error


def _synthetic(config: Config, split: str) -> Records:
    from loaders.synthetic_records import SyntheticRecords

    side = config.data.size_px
    return SyntheticRecords(_SYNTHETIC_SAMPLES[split], _SYNTHETIC_CLASSES, side, side)
