"""The training loop."""

import itertools
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from loaders.api import LoadProgress, prepare
from loaders.errors import FeedrateError

from .checkpointing.saving import Saver
from .config import Config
from .data import Data
from .dist import Ranks
from .evaluate import Evaluation, answer_of, evaluate, watched_by
from .optimisation.average import Averages
from .optimisation.plateau import RateWatch
from .profiler import remedies
from .profiler.data_bound import DataBoundWatch, warning
from .profiler.meter import Meter, Reading
from .profiler.resources import ResourceMeter
from .profiler.time_book import TimeBook
from .progress import Progress
from .reporting.display import Display
from .reporting.lines import batch_lines, decoding_lines
from .reporting.prediction_sample import PredictionSample
from .reporting.run_folder import RunFolder
from .safeguards.interrupt import Lookout, Stopped, StopRequest
from .safeguards.loss_watch import LossWatch
from .step import TrainStep


@dataclass(frozen=True)
class Run:
    """Everything a run is made of. What a checkpoint keeps is in `saver.states`."""

    config: Config
    ranks: Ranks
    data: Data
    step: TrainStep
    averages: Averages
    watch: LossWatch
    folder: RunFolder
    display: Display
    stop: StopRequest
    lookout: Lookout
    progress: Progress
    saver: Saver
    plateau: RateWatch
    time: TimeBook
    data_bound: DataBoundWatch = field(default_factory=DataBoundWatch)


def train(run: Run) -> bool:
    """Train from where `run.progress` stands to the last epoch. False if a signal stopped it before the end.

    The engine owns the position: the loader is asked for epoch e from batch b on, so that a run that is killed and
    started again sees exactly the batches it had not seen.
    """
    _prepare(run)
    run.stop.end_start()
    run.time.begin()
    is_done = _train_epochs(run)
    run.display.show_time_spent(run.time, run.ranks.world_size)
    return is_done


def _prepare(run: Run) -> None:
    """What loaders do once for all epochs, before any clock runs: a signal still ends it at once."""
    if run.progress.epoch == run.config.epochs:
        return
    for loader, split in ((run.data.train, "training"), (run.data.evaluation, "evaluation")):
        lines = decoding_lines(run.display.say, f"{split} images")

        def tell(num_done: int, num_samples: int, lines: LoadProgress = lines, split: str = split) -> None:
            run.saver.tell(f"decoding {split} images into memory: {num_done:,} of {num_samples:,}")
            lines(num_done, num_samples)

        prepare(loader, tell)


def _train_epochs(run: Run) -> bool:
    while run.progress.epoch < run.config.epochs:
        with run.time.around("warm-up"):
            warm_up_s = _warm_up(run)
        resources = ResourceMeter(run.ranks.device)  # looks at all processes, before the epoch's clock runs
        meter = Meter(run.step.clock.total_s)
        with run.time.training(meter):
            is_whole = _train_epoch(run, meter, resources)
            run.ranks.finish()  # before, the epoch is not over
        if not is_whole:
            return False
        reading = meter.read()
        used = asdict(resources.read())
        if not reading.num_images:  # a moment's, in which no step was done
            used |= {"cpu_share": None, "gpu_share": None}
        try:
            with run.time.around("evaluation"):
                evaluations = _evaluate(run)
        except Stopped:
            with run.time.around("checkpoint"):
                run.saver.save()  # after the epoch's last batch: going on evaluates anew
            return False
        record = _finish_epoch(run, reading, {"warm_up_s": warm_up_s, "resources": used}, evaluations)
        with run.time.around("checkpoint"):
            run.saver.end_epoch(record, is_last=run.progress.epoch == run.config.epochs)
    with run.time.around("checkpoint"):
        run.saver.save_weights()
    return True


def _warm_up(run: Run) -> float:
    """Let rest what is not trained in the epoch that begins, and do what only first steps do before any clock runs.
    Seconds the latter took."""
    if run.step.begin_epoch(run.progress.epoch):
        run.display.say(run.step.frozen.described())
    size = run.config.data.train_view().size_at(run.progress.epoch)
    images_per_rank = run.config.data.batch_size // run.ranks.world_size
    run.saver.tell(f"warming up, or compiling, for images of {size} px")
    return run.step.warm_up(torch.Size((images_per_rank, 3, size, size)), run.data.num_classes)


def _evaluate(run: Run) -> dict[str, Evaluation]:
    """The model after an epoch, and each average of it, under the prefix of its metrics. Raises Stopped by a signal."""
    run.watch.refuse(run.step.module, run.ranks)
    run.averages.after_epoch(run.progress.epoch, _statistics_inputs(run), run.step.precision.autocast, run.ranks)
    step, config, epoch = run.step, run.config, run.progress.epoch
    models = {"eval_": step.module} | {f"eval_{name}_": model for name, model in run.averages.models().items()}
    sample = PredictionSample(config.run.tensorboard_images)
    answer = answer_of(config.data.eval_flip, config.data.eval_shift_px)
    evaluations = {}
    for prefix, model in models.items():
        name = " ".join(["evaluating", *prefix.split("_")[1:-1]])
        lines = batch_lines(run.display.say, name, len(run.data.evaluation))
        watch = watched_by(lines, sample) if model is step.module else lines
        evaluations[prefix] = evaluate(
            model, run.data.evaluation, step.normalize, step.precision, run.ranks, answer, watch
        )

    def tell() -> None:
        """What is too much for a line of the log."""
        for prefix, evaluation in evaluations.items():
            name = "-".join(["evaluation", *prefix.split("_")[1:-1]])  # evaluation, evaluation-ema, evaluation-swa
            run.folder.log_evaluation(epoch, evaluation, run.data.classes, name)
        run.folder.observe(epoch, step.module, sample, run.data.classes)

    run.ranks.together(tell)
    return evaluations


def _statistics_inputs(run: Run) -> Iterator[torch.Tensor]:
    """What the epoch that ends was trained on, from its start, as the model was given it: for SWA's batch statistics.

    Augmented as it was then, as torch's `update_bn` has it, so a run that is gone on with estimates the same bits.
    """
    first_step = run.progress.epoch * len(run.data.train)
    with closing(run.data.train.epoch(run.progress.epoch)) as batches:
        chosen = itertools.islice(batches, run.config.average.swa_statistics_batches or None)
        for step, batch in enumerate(chosen, start=first_step):
            yield run.step.inputs_of(batch.images, batch.labels, batch.ids, step)[0]
            if run.lookout.ask(run.stop.is_up)[0]:
                raise Stopped


def _train_epoch(run: Run, meter: Meter, resources: ResourceMeter) -> bool:
    """The rest of the current epoch. False if a signal stopped it; a checkpoint is then written."""
    progress, config = run.progress, run.config
    steps_per_epoch = len(run.data.train)
    run.display.start_epoch(progress.epoch, config.epochs, progress.batch, steps_per_epoch)
    last, is_whole = meter.read(), True
    try:
        with closing(run.data.train.epoch(progress.epoch, progress.batch)) as batches:
            for batch in meter.timed(batches):
                step = run.saver.num_steps
                loss, num_correct = run.step(batch.images, batch.labels, batch.ids, step)
                run.watch.note(step, batch.ids, loss)
                run.averages.after_step(step)
                progress.record(batch.ids, loss, num_correct, batch.substitutions)
                progress.refuse_too_many_substitutes(config.data.max_bad)
                if config.run.log_ids:
                    run.folder.log_ids(run.ranks.rank, batch.ids)
                is_logged = (step + 1) % config.run.log_every_steps == 0
                if is_logged or run.ranks.device.type == "cpu":  # looking makes the host wait for a GPU
                    run.watch.refuse_alarm(run.ranks)
                if is_logged:
                    now = meter.read()
                    recent, last = now.since(last), now
                    run.display.step(_log_step(run, loss, step, recent))
                    resources.sample()
                    _warn_if_data_bound(run, recent, resources)
                else:
                    run.display.step(None)
                if not _obey(run):
                    is_whole = False
                    break
    except BaseException:
        with suppress(FeedrateError):  # whoever runs out of his budget of bad samples will want this rank's list
            run.folder.log_bad_samples(list(progress.substitutions.values()))
        raise
    finally:
        run.display.end_epoch()
    run.ranks.together(lambda: run.folder.log_bad_samples(list(progress.substitutions.values())))
    return is_whole


def _obey(run: Run) -> bool:
    """Write a checkpoint if one is due or a signal asks for it. False if the run must stop. All ranks agree."""
    stop, due_by_time = run.lookout.ask(run.stop.is_up, run.saver.is_due_by_time)
    if stop or due_by_time or run.saver.is_due_by_steps:
        with run.time.around("checkpoint"):
            run.saver.save()
    return not stop


def _warn_if_data_bound(run: Run, recent: Reading, resources: ResourceMeter) -> None:
    """Once a run, as soon as it waits for images much of its time, by this rank's clock."""
    found = run.data_bound.note(recent, run.time.loader_s())
    if found is not None:
        num_workers = run.config.data.workers or run.ranks.cpus
        run.display.say(warning(found, _abilities(run), num_workers, resources.read().cpu_share))


def _abilities(run: Run) -> remedies.Run:
    """What decides which remedies this run could take."""
    data, (stored_as, is_raw) = run.data, run.data.stored_form
    return remedies.Run(data.train.name, asdict(run.config), stored_as, is_raw, data.resize_modes)


def _log_step(run: Run, loss: torch.Tensor, step: int, recent: Reading) -> dict[str, Any]:
    """What was logged."""
    record = {
        "kind": "step",
        "epoch": run.progress.epoch,
        "step": step,
        "loss": loss.item(),
        "learning_rate": run.step.learning_rate(step),
        "images_per_s": recent.images_per_s * run.ranks.world_size,
        "data_wait_share": recent.data_wait_share,
    }
    run.ranks.together(lambda: run.folder.log(record))
    return record


def _finish_epoch(
    run: Run, reading: Reading, used: dict[str, Any], evaluations: dict[str, Evaluation]
) -> dict[str, Any]:
    """Log and show the epoch, and move to the next. Returns its record."""
    spent = run.time.lap()
    has_trained = reading.num_images > 0  # not where the epoch was taken up after its last batch, on any rank
    totals = run.progress.totals(run.ranks, {"time_of_ranks_s": spent.own_s if has_trained else None})
    if has_trained:
        run.time.note_ranks(totals["time_of_ranks_s"])
    metrics: dict[str, Any] = {}
    for prefix, evaluation in evaluations.items():
        metrics |= evaluation.scores(prefix)
    record = {
        "kind": "epoch",
        "epoch": run.progress.epoch,
        **totals,
        **metrics,
        "num_evaluated": evaluations["eval_"].num_samples,
        "num_steps": run.saver.num_steps,
        "learning_rate": run.step.optimizer.param_groups[0]["lr"],
        **reading.figures(run.ranks.world_size),
        "inference_s_per_image": evaluations["eval_"].inference_s_per_image,
        "first_inference_s": evaluations["eval_"].first_inference_s,
        "time_wall_s": spent.wall_s,
        "time_shares": spent.shares(),
        **used,
    }
    run.ranks.together(lambda: run.folder.log(record))
    run.display.summarize(record, run.config.epochs)
    if run.plateau.observe(record):
        run.display.say(f"no better for too long: the learning rate is now {run.plateau.scale:.3g} of the schedule's")
    if totals["num_substituted"]:
        bad = run.progress.all_substitutions(run.ranks)
        run.ranks.together(lambda: run.folder.log_bad_samples(bad))
        run.display.name_bad_samples(totals["num_substituted"], bad, run.folder.bad_samples)
    run.progress.next_epoch()
    return record
