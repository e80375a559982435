"""The data of a run: from its configuration to two open loaders."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

from loaders.api import Loader, LoaderOptions
from loaders.choose import choose_loader, open_loader, slower_because
from loaders.errors import FeedrateError
from loaders.page_cache import WholeSet
from loaders.plan import BlockShuffled, Plan, Sequential
from loaders.records import ChannelStatistics, Records, open_records
from loaders.stage_times import StageTimes
from loaders.stored_form import StoredAs, stored_form

from .channels import channels_of, told_of
from .config import Config, DataConfig
from .data_path import data_path_to_open, path_to_read
from .dist import Ranks
from .reporting.lines import scan_lines
from .sampling import evaluation_sampling, told_of_weights, training_order, training_sampling

Say = Callable[[str], None]

T = TypeVar("T")

_SYNTHETIC_SAMPLES = {"train": 51_200, "val": 5_120}
_SYNTHETIC_CLASSES = 1000


@dataclass(frozen=True)
class Data:
    """Both loaders, and what the model must know of the set. `stage_times` are what the training loader notes,
    `stored_form` how its samples are stored (`loaders.stored_form`), `resize_modes` what it can resize by.
    """

    train: Loader
    evaluation: Loader
    classes: tuple[str, ...]
    channels: ChannelStatistics
    stage_times: StageTimes | None = None
    stored_form: tuple[StoredAs | None, bool | None] = (None, None)
    resize_modes: tuple[str, ...] | None = None

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    def close(self) -> None:
        self.train.close()
        self.evaluation.close()


def open_data(config: Config, ranks: Ranks, say: Say) -> Data:
    """Open what `config` names, for this rank. `say` hears what was chosen and why, and how far it is."""
    choose_loader(config.loader)  # refuses what is not known or not installed before anything is read
    train_records, eval_records = _open_both(config, ranks, say)
    refuse_classes(train_records, eval_records, config.data)
    channels = channels_of(train_records, config.data.normalize, data_path_to_open(config.data))
    train_plan, eval_plan = plan_of(train_records, config), _eval_plan_of(eval_records, config)
    train_plan.num_batches(ranks.world_size)  # refuses what cannot be shared before anything is started
    splits = [(train_records, train_plan), (eval_records, eval_plan)]
    options = loader_options(config.data, ranks)
    name = agreed_loader(config.loader, splits, options, ranks, say)
    num_classes = len(train_records.classes)
    say(f"data: {_chosen(train_plan)} to train on, {_chosen(eval_plan)} to evaluate, {num_classes} classes")
    if config.data.eval_split == config.data.train_split:
        say(
            f"warning: --data.eval-split is {config.data.eval_split}, which is trained on: the run is evaluated on"
            " images that it learns, and its figures tell nothing of others"
        )
    _say_of_order_and_classes(config.data, train_plan, ranks, say)
    for line in told_of_weights(train_records, config.data):
        say(line)
    keep_in_memory([train_records, eval_records], config.data, ranks, say)
    stage_times = StageTimes(1 + (options.num_workers or ranks.cpus))
    train = open_loader(name, train_records, train_plan, replace(options, stage_times=stage_times))
    try:
        # an evaluation counts every sample, whatever training does about bad ones
        evaluation = open_loader(name, eval_records, eval_plan, replace(options, on_bad="error"))
    except BaseException:
        train.close()
        raise
    for line in told_of(channels, train_records):
        say(line)
    form = stored_form(train_records, data_path_to_open(config.data))
    return Data(train, evaluation, train_records.classes, channels, stage_times, form, resize_modes_of(train))


@dataclass(frozen=True)
class EvaluationData:
    """What finished weights are evaluated on: a loader, and the records that it reads."""

    loader: Loader
    records: Records

    def close(self) -> None:
        self.loader.close()


def open_evaluation(
    config: Config, ranks: Ranks, say: Say, fit: Callable[[Records], None], unlabelled: Records | None = None
) -> EvaluationData:
    """Open the split that `config` evaluates on, and no other.

    Before anything else is done with it, `fit` refuses its classes or sets them, and the labels, as the model has them.
    `unlabelled` are taken in its place, if given; their labels choose none.
    """
    choose_loader(config.loader)
    if unlabelled is not None:
        config = replace(config, data=replace(config.data, classes=()))
    records = unlabelled or _open_one(config, ranks, say)
    fit(records)
    split = config.data.eval_split
    refuse_classes(records, records, replace(config.data, train_split=split))
    plan = _eval_plan_of(records, config)
    options = replace(loader_options(config.data, ranks), on_bad="error")  # every sample counts
    name = agreed_loader(config.loader, [(records, plan)], options, ranks, say)
    shown = f"images without labels: predictions only, of {len(records.classes)} classes"
    if unlabelled is None:
        shown = f"of '{split}' to evaluate, {len(records.classes)} classes"
    say(f"data: {_chosen(plan)} {shown}")
    keep_in_memory([records], config.data, ranks, say)
    return EvaluationData(open_loader(name, records, plan, options), records)


def agreed_loader(
    wanted: str, splits: Sequence[tuple[Records, Plan]], options: LoaderOptions, ranks: Ranks, say: Say
) -> str:
    """The loader that all ranks use. `say` hears why it was chosen, and why it is slower than it could be."""
    choices = ranks.gather(choose_loader(wanted, splits, options))
    # how much memory is free each rank sees for itself: where one must do without the pixels in it, all do
    name, reason = next((choice for choice in choices if choice[0] == "turbo"), choices[0])
    say(f"loader: {name} ({reason})")
    if slower := slower_because(name, options, splits):
        say(slower)
    return str(name)


def refuse_classes(train: Records, evaluation: Records, data: DataConfig) -> None:
    """Raise FeedrateError where labels would not mean what the model and the preset take them for."""
    num_classes = len(train.classes)
    if train.classes != evaluation.classes:
        pairs = enumerate(zip_longest(train.classes, evaluation.classes))
        label, (one, other) = next((label, names) for label, names in pairs if names[0] != names[1])
        raise FeedrateError(
            f"{data.path}: '{data.train_split}' has {num_classes} classes and '{data.eval_split}' has"
            f" {len(evaluation.classes)}, and label {label} is {_class(one)} in the former and {_class(other)} in the"
            " latter: it must mean the same in both, so give both the same classes, or evaluate on another split by"
            " --data.eval-split"
        )
    if data.expected_classes and data.expected_classes != num_classes:
        raise FeedrateError(
            f"{data.path} has {num_classes} classes and {data.expected_classes} are expected: give the data set"
            f" that the preset is for by --data.path, or accept this one by --data.expected-classes {num_classes}"
        )
    for split, records in ((data.train_split, train), (data.eval_split, evaluation)):
        least, most = int(records.labels.min(initial=0)), int(records.labels.max(initial=0))
        if least < 0 or most >= num_classes:
            raise FeedrateError(
                f"{data.path}: labels of '{split}' run from {least} to {most} and there are {num_classes} classes,"
                f" 0 to {num_classes - 1}: pack the set anew with tools/convert.py"
            )


def _class(name: str | None) -> str:
    return "no class" if name is None else repr(name)


def plan_of(records: Records, config: Config) -> Plan:
    """The plan of training over `records`."""
    data = config.data
    order, sampling = training_order(records, data, data.batch_size), training_sampling(records, data)
    return Plan(records.widths, records.heights, order, data.train_view(), config.seed, sampling)


def keep_in_memory(records: list[Records], data: DataConfig, ranks: Ranks, say: Say) -> None:
    """Bring `records` into memory if so configured, each rank of a machine its part; refuses what does not fit."""
    if data.page_cache == "system":
        return
    whole = WholeSet(records)
    refusals = [refusal for refusal in ranks.gather(whole.refusal()) if refusal]
    if refusals:
        raise FeedrateError(refusals[0])
    whole.bring_in(ranks.local_rank, ranks.local_world_size, say)
    ranks.barrier()  # nobody starts before all of it is there


def resize_modes_of(loader: Loader) -> tuple[str, ...] | None:
    """The modes of resizing that a loader knows, its own fastest first; None where it does not say."""
    modes = getattr(loader, "resize_modes", None)
    return None if modes is None else tuple(modes)


def loader_options(data: DataConfig, ranks: Ranks) -> LoaderOptions:
    """What the training loader of this rank is told."""
    return LoaderOptions(
        shard=ranks.shard,
        device=ranks.device,
        resize=None if data.resize == "auto" else data.resize,
        num_workers=data.workers or ranks.cpus,
        num_ahead=data.batches_ahead,
        on_bad=data.on_bad,
        max_bad=data.max_bad,
    )


def _eval_plan_of(records: Records, config: Config) -> Plan:
    data = config.data
    order, sampling = Sequential(data.eval_batch_size_per_rank), evaluation_sampling(records, data)
    return Plan(records.widths, records.heights, order, data.eval_view(), config.seed, sampling)


def _chosen(plan: Plan) -> str:
    of_all = f" of {plan.num_samples:,}" if plan.num_chosen < plan.num_samples else ""
    return f"{plan.num_chosen:,}{of_all}"


def _say_of_order_and_classes(data: DataConfig, train: Plan, ranks: Ranks, say: Say) -> None:
    if data.classes:
        say(f"{len(data.classes)} classes are chosen; labels and the model's head stay those of the whole set")
    if isinstance(train.order, BlockShuffled):
        order = train.order
        num_bytes = 2 * data.block_mib * 2**20 * order.blocks_mixed * order.lanes  # the window in use and the next
        say(
            f"order by blocks of {order.block_samples} samples, {order.blocks_mixed} mixed at a time"
            f" in each of {order.lanes} lanes, {num_bytes / 1e9:.1f} GB in memory over all ranks"
        )
        if order.lanes % ranks.world_size:
            say(f"{ranks.world_size} ranks do not divide {order.lanes} lanes: some read the same blocks")


def preferred_format(config: Config) -> str | None:
    """The format that must be read of a packed set that holds several; None: any."""
    resizes_there = config.data.resize == "device" and config.loader in ("auto", "turbo")
    return "raw" if resizes_there else None  # such a loader only copies, so what is encoded is of no use to it


def opened_split(path: str, split: str, config: Config, ranks: Ranks, say: Say) -> Records:
    """The records of `split` of the set at `path`, opened on every rank, or on none and all raise FeedrateError. `say`
    hears how far it is."""
    prefers = preferred_format(config)
    return one_rank_first(ranks, lambda: open_records(path, split, scan_lines(say), prefers))


def one_rank_first(ranks: Ranks, open_: Callable[[], T]) -> T:
    """What `open_` opens: one rank of a machine scans and caches an image folder's sizes, the others then find the
    cache. What it refuses all of them refuse, and none finds the others gone."""
    opened: list[T] = []
    is_first = ranks.local_rank == 0
    for is_my_turn in (is_first, not is_first):
        ranks.together((lambda: opened.append(open_())) if is_my_turn else lambda: None)
    return opened[0]


def _open_both(config: Config, ranks: Ranks, say: Say) -> tuple[Records, Records]:
    path = _where_stored(config, say)
    if path is None:
        return _synthetic(config, "train"), _synthetic(config, "val")
    train = opened_split(path, config.data.train_split, config, ranks, say)
    try:
        return train, _open_eval_split(path, config, ranks, say)
    except FeedrateError:
        with contextlib.suppress(OSError):
            train.close()
        raise


def _open_one(config: Config, ranks: Ranks, say: Say) -> Records:
    path = _where_stored(config, say)
    return _synthetic(config, "val") if path is None else _open_eval_split(path, config, ranks, say)


def _open_eval_split(path: str, config: Config, ranks: Ranks, say: Say) -> Records:
    try:
        return opened_split(path, config.data.eval_split, config, ranks, say)
    except FeedrateError as error:
        raise FeedrateError(f"{error}; --data.eval-split names the split to evaluate on") from error


def _where_stored(config: Config, say: Say) -> str | None:
    """`path_to_read`; None where synthetic samples stand in for the set."""
    path = data_path_to_open(config.data)
    if config.loader == "synthetic" and not Path(path).exists():
        say(f"{path} does not exist: synthetic samples stand in for it")
        return None
    return path_to_read(config.data, say)


def _synthetic(config: Config, split: str) -> Records:
    from loaders.synthetic_records import SyntheticRecords

    side = config.data.size_px
    return SyntheticRecords(_SYNTHETIC_SAMPLES[split], _SYNTHETIC_CLASSES, side, side)
