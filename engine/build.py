"""From a configuration to a run that stands where it should go on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from loaders.errors import FeedrateError
from loaders.named import is_named
from loaders.records import ChannelStatistics

from .augment import Normalize
from .augment.batch_transform import build_augmentation
from .checkpointing.best import Best
from .checkpointing.checkpoint import clean_leftovers, newest_checkpoint, refuse_mismatch
from .checkpointing.saving import Saver
from .checkpointing.state import restore
from .config import Config
from .data import Data, Say, open_data
from .data_path import data_then_and_now
from .dist import Ranks
from .identity import about_weights, identity_of
from .idle_settings import idle_settings
from .loop import Run
from .meeting import lost_machines_need
from .model import describe_model, place_model, prepare_model, start_model
from .optimisation.average import Averages
from .optimisation.changed_optimizer import ChangedOptimizer, settings_before
from .optimisation.optim import build_optimizer
from .optimisation.plateau import RateWatch, Unwatched, build_plateau
from .optimisation.schedule import schedule_of_run, short_of_peak
from .optimisation.windows import Windows
from .profiler.time_book import TimeBook
from .progress import Progress
from .recompute import recompute_activations
from .reporting.display import Display
from .reporting.loggers import build_loggers
from .reporting.run_folder import RunFolder
from .safeguards.determinism import use_deterministic_kernels
from .safeguards.interrupt import Lookout, Stopped, StopRequest
from .safeguards.loss_watch import LossWatch, advice
from .safeguards.run_lock import RunLock
from .safeguards.watchdog import Watchdog, WatchedLoader
from .step import TrainStep


@contextmanager
def build_run(
    config: Config,
    ranks: Ranks,
    display: Display,
    stop: StopRequest,
) -> Iterator[Run]:
    """A run, fresh or taken up from its newest checkpoint; its loaders are closed when the block ends.

    While the block lasts a watchdog ends the process if nothing moves.
    """
    path = Path(config.run.folder) / config.name
    lock = RunLock(path, ranks)
    folder = RunFolder(path, ranks.is_main, build_loggers(config.run, path), lock.refuse_lost)
    with Watchdog(config.run.hang_timeout_s, ranks, folder.newest_name) as watchdog, lock:
        lock.hold()
        checkpoint = _find_checkpoint(config, folder, ranks, display)
        threads = _threads(config, ranks, checkpoint)
        choose_kernels(config, ranks)  # here too: the model's first weights may be computed
        say = _say_and_move(display, watchdog)
        data = open_data(config, ranks, say)
        try:
            torch.set_num_threads(threads)  # after the loaders: some libraries they open set it
            model = start_model(config, data, ranks, display.say, fresh=checkpoint is None)
            run = _assemble(config, ranks, data, model, folder, display, stop, watchdog)
            lock.make_and_hold()
            if checkpoint is not None:
                _take_up(run, checkpoint)
            else:
                _cut_logs(run, {})  # of a run that ended before its first checkpoint
            _announce(run, resumed=checkpoint is not None)
            ranks.together(lambda: folder.open(config))
            run.saver.write_best()
            watchdog.end_start()
            yield run
            assert torch.get_num_threads() == threads, "a loader changed torch's number of threads, which changes bits"
        except BaseException:
            with suppress(FeedrateError):  # what went wrong already is said
                folder.close()
            raise
        else:
            folder.close()
        finally:
            data.close()


def _assemble(
    config: Config,
    ranks: Ranks,
    data: Data,
    model: nn.Module,
    folder: RunFolder,
    display: Display,
    stop: StopRequest,
    watchdog: Watchdog,
) -> Run:
    """The run as it stands before its first step."""
    plateau = build_plateau(config.optim)
    step = build_step(config, ranks, data.num_classes, data.channels, len(data.train), model, plateau)
    config.average.refuse_idle_ema(config.epochs * step.windows.updates_per_epoch)
    progress, lookout = Progress(ranks.device), Lookout(ranks, config.run.log_every_steps)
    averages = Averages(step.module, config.average, step.windows)
    watch = LossWatch(ranks.device, folder.path, lambda: advice(config.execution.precision, folder.newest_sound()))
    identity = identity_of(config, ranks, data)
    best = Best(config.run.best_metric)
    saver = Saver(
        config.run,
        ranks,
        folder,
        progress,
        len(data.train),
        identity,
        about=about_weights(config, data, identity),
        states={**step.states(), "averages": averages, "plateau": plateau, "best": best},
        exported=lambda: {"weights": step.module, **averages.models()},
        best=best,
        check=lambda: watch.refuse(step.module, ranks),
        tell=watchdog.at,
    )

    def obey() -> None:
        if lookout.ask(stop.is_up)[0]:
            raise Stopped

    watched = replace(
        data,
        train=WatchedLoader(data.train, "of an epoch", watchdog),
        evaluation=WatchedLoader(data.evaluation, "of an evaluation", watchdog, obey),
    )
    time = TimeBook(lambda: step.clock, data.stage_times)
    return Run(
        config, ranks, watched, step, averages, watch, folder, display, stop, lookout, progress, saver, plateau, time
    )


def build_step(
    config: Config,
    ranks: Ranks,
    num_classes: int,
    channels: ChannelStatistics,
    steps_per_epoch: int,
    model: nn.Module | None = None,
    plateau: RateWatch = Unwatched(),
) -> TrainStep:
    """`model` with its optimizer, schedule and normalisation, on this rank's device.

    Without a model, one with random weights: those who measure need no others. `plateau` may lower what is scheduled.
    """
    choose_kernels(config, ranks)
    if model is None:
        model = prepare_model(config, num_classes, ranks, say=lambda text: None, fresh=False)
    model = place_model(model, config, ranks)
    if config.execution.checkpoint_activations:
        recompute_activations(model, config.model.name)
    windows = Windows(steps_per_epoch, config.optim.accumulate)
    updates = windows.updates_per_epoch
    return TrainStep(
        model,
        build_optimizer(config.optim, model),
        schedule_of_run(config.optim, config.average, config.epochs, updates, plateau.lowering),
        Normalize(channels, ranks.device, config.execution.channels_last),
        config,
        ranks,
        windows,
        batch_transform=build_augmentation(config.augment, config.seed, num_classes),
    )


def _find_checkpoint(config: Config, folder: RunFolder, ranks: Ranks, display: Display) -> dict[str, Any] | None:
    """The newest valid checkpoint, the same on every rank."""
    checkpoint = newest_checkpoint(folder.checkpoints, display.say)
    position = None if checkpoint is None else (checkpoint["progress"]["epoch"], checkpoint["progress"]["batch"])
    if len(set(ranks.gather(position))) > 1:
        raise FeedrateError(f"ranks see different checkpoints in {folder.checkpoints}: it must be a shared folder")
    if checkpoint is not None and config.run.resume == "never":
        raise FeedrateError(
            f"{folder.path} already holds a run and --run.resume is never: use another --name, or delete that folder"
        )
    if ranks.is_main:
        clean_leftovers(folder.checkpoints)
    return checkpoint


def _take_up(run: Run, checkpoint: dict[str, Any]) -> None:
    """Restore weights, optimizer, position and logs, unless the checkpoint is of something else."""
    saved, say = checkpoint["identity"], run.display.say
    about_data = data_then_and_now(run.folder.path / "config.toml", run.config.data)
    allowed = run.config.run.allow_change
    accepted = refuse_mismatch(saved, run.saver.identity, allowed, about_data, checkpoint["path"])
    states, optim = run.saver.states, run.config.optim
    by_figures: dict[str, Best | RateWatch] = {"the best epoch": run.saver.best, "the plateau": run.plateau}
    for name, difference in accepted.items():
        anew = ", ".join(told for told, holder in by_figures.items() if holder.goes_by(name))
        sought = f"; sought anew, since figures from before cannot be compared: {anew}" if anew else ""
        say(f"accepted: {difference}; the result will not be the same to the bit{sought}")
    before = settings_before(optim, saved["config"], accepted)
    if before != optim:
        optimizer = ChangedOptimizer(run.step.optimizer, run.step.module, optim, before, say)
        states = {**states, "optimizer": optimizer}
    own_code = [f"{run.config.model.name} itself"] if is_named(run.config.model.name) else []
    restore(states, checkpoint, say, [*accepted, *own_code])
    for holder in by_figures.values():
        if any(holder.goes_by(name) for name in accepted):
            holder.begin_anew()
    run.progress.restore(checkpoint["progress"], run.ranks)
    _cut_logs(run, checkpoint["metrics_bytes"])


def _cut_logs(run: Run, metrics_bytes: dict[str, int]) -> None:
    """Forget what was logged after the position that the run goes on from."""
    ranks, folder = run.ranks, run.folder
    num_ids = run.saver.num_steps * run.config.data.batch_size // ranks.world_size
    if num_ids == 0:
        ranks.on_main(folder.remove_ids)
    elif run.config.run.log_ids:
        ranks.together(lambda: folder.refuse_short_ids(ranks.rank, num_ids))  # before any rank cuts its own
        ranks.together(lambda: folder.cut_ids(ranks.rank, num_ids))
    ranks.together(lambda: folder.cut_metrics(metrics_bytes))


def _threads(config: Config, ranks: Ranks, checkpoint: dict[str, Any] | None) -> int:
    """Torch's threads: as asked, else as the checkpoint had them, else an equal share of the processors."""
    if config.execution.threads:
        return config.execution.threads
    if checkpoint is not None:
        return int(checkpoint["identity"]["execution"]["threads"])
    return ranks.cpus


def choose_kernels(config: Config, ranks: Ranks) -> None:
    """On CUDA cuDNN times its algorithms at each shape's first batch, unless the bits must be the same each time."""
    if config.execution.deterministic:
        use_deterministic_kernels()
    torch.backends.cudnn.benchmark = ranks.device.type == "cuda" and not config.execution.deterministic


def _say_and_move(display: Display, watchdog: Watchdog) -> Say:
    """For what opens the data: a rank that reads much into memory moves with each line it has to say of it."""

    def say(text: str) -> None:
        watchdog.at(f"opening the data ({text})")
        display.say(text)

    return say


def _announce(run: Run, resumed: bool) -> None:
    config, ranks = run.config, run.ranks
    run.display.say(
        f"model: {describe_model(run.step.module, config)}, {config.execution.precision}"
        f" on {ranks.world_size} × {ranks.device.type}, {torch.get_num_threads()} threads,"
        f" batch {config.data.batch_size}, {len(run.data.train)} steps an epoch"
    )
    if short := short_of_peak(config.optim, config.epochs):
        run.display.say(short)
    for idle in idle_settings(config):
        run.display.say(idle)
    if missing := lost_machines_need(os.environ):
        run.display.say(missing)
    if run.progress.epoch >= config.epochs:
        run.display.say(f"all {config.epochs} epochs are done already; another --name starts anew")
    elif resumed:
        run.display.say(
            f"going on in epoch {run.progress.epoch + 1} of {config.epochs}"
            f" after batch {run.progress.batch} of {len(run.data.train)}"
        )
