"""Settings that a run takes and that do nothing in it, such as an epoch beyond its last: told, for people."""

from collections.abc import Iterable, Iterator, Sequence

from .config import Config

_USED_BY = {"milestones": "step", "points": "piecewise"}


def idle_settings(config: Config) -> Iterator[str]:
    """A warning for each.

    Refusals would be in the way of whoever shortens a preset's run, or gives it another schedule.
    """
    optim, average, size_px = config.optim, config.average, config.data.train_view().size_px
    for name, schedule in _USED_BY.items():
        if getattr(optim, name) and optim.schedule != schedule:
            yield (
                f"warning: {name} are given and the schedule is {optim.schedule}, which does not go by them;"
                f" {schedule} does (--optim.schedule)"
            )
    if optim.schedule == "step":
        yield from _beyond(config, "the learning rate does not fall", optim.milestones, "--optim.milestones")
    if optim.schedule == "piecewise" and average.swa_start_epoch < 0:
        yield from _other_end(config, optim.points)
    rests = [first for _, first, end in optim.frozen_epochs if end != first]
    yield from _beyond(config, "nothing begins to rest", rests, "--optim.frozen-epochs")
    sizes = () if isinstance(size_px, int) else [first for first, _ in size_px]
    option = "--data.size-ramp" if config.data.size_ramp else "--data.size-schedule"
    yield from _beyond(config, "images do not change their size", sizes, option)
    if average.swa_start_epoch >= 0 and average.swa_learning_rate > optim.learning_rate:
        yield (
            f"warning: from epoch {average.swa_start_epoch}, counted from 0, the learning rate is SWA's,"
            f" {average.swa_learning_rate:g}, which is above the peak before, {optim.learning_rate:g}"
            " (--average.swa-learning-rate)"
        )


def _beyond(config: Config, what: str, epochs: Iterable[float], option: str) -> Iterator[str]:
    late = [f"{epoch:g}" for epoch in epochs if epoch >= config.epochs]
    if late:
        yield f"warning: {what} at epoch {', '.join(late)}: the run ends at epoch {config.epochs} ({option})"


def _other_end(config: Config, points: Sequence[tuple[float, float]]) -> Iterator[str]:
    """Of a piecewise schedule that is not of this many epochs."""
    end, share = points[-1]
    if end > config.epochs:
        yield (
            f"warning: the points of the learning rate go to epoch {end:g} and the run ends at epoch {config.epochs},"
            f" before the rate comes to {share:g} of the peak (--optim.points)"
        )
    if end < config.epochs and share == 0:
        yield (
            f"warning: the points of the learning rate end with 0 at epoch {end:g}: in the"
            f" {config.epochs - end:g} epochs after it nothing is learnt (--optim.points)"
        )
