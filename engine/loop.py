"""The training loop."""

import math
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import torch

from loaders.api import Batch, FeedrateError

from .config import Config
from .data import Data
from .display import Display
from .dist import Ranks
from .evaluate import Evaluation, answer_of, evaluate
from .interrupt import Lookout, Stopped, StopRequest
from .prediction_sample import PredictionSample
from .profiler.meter import Meter, Reading
from .profiler.resources import ResourceMeter
from .progress import Progress
from .run_folder import RunFolder
from .saving import Saver
from .step import TrainStep


@dataclass(frozen=True)
class Run:
    """Everything a run is made of. What a checkpoint keeps is in `saver.states`."""

    config: Config
    ranks: Ranks
    data: Data
    step: TrainStep
    folder: RunFolder
    display: Display
    stop: StopRequest
    lookout: Lookout
    progress: Progress
    saver: Saver


def train(run: Run) -> bool:
    """Train from where `run.progress` stands to the last epoch. False if a signal stopped it before the end.

    The engine owns the position: the loader is asked for epoch e from batch b on, so that a run that is killed and
    started again sees exactly the batches it had not seen.
    """
    run.stop.end_start()
    while run.progress.epoch < run.config.epochs:
        meter, resources = Meter(), ResourceMeter(run.ranks.device)
        if not _train_epoch(run, meter, resources):
            return False
        reading = meter.read()
        used = asdict(resources.read())
        try:
            evaluation = _evaluate(run)
        except Stopped:
            run.saver.save()  # after the epoch's last batch: going on evaluates anew
            return False
        record = _finish_epoch(run, reading, used, evaluation)
        run.saver.end_epoch(record, is_last=run.progress.epoch == run.config.epochs)
    run.saver.save_weights()
    return True


def _train_epoch(run: Run, meter: Meter, resources: ResourceMeter) -> bool:
    """The rest of the current epoch. False if a signal stopped it; a checkpoint is then written."""
    progress, config = run.progress, run.config
    steps_per_epoch = len(run.data.train)
    run.display.start_epoch(progress.epoch, config.epochs, progress.batch, steps_per_epoch)
    run.step.module.train()
    last = meter.read()
    try:
        with closing(run.data.train.epoch(progress.epoch, progress.batch)) as batches:
            for batch in meter.timed(batches):
                step = progress.epoch * steps_per_epoch + progress.batch
                loss, num_correct = run.step(batch.images, batch.labels, batch.ids, step)
                progress.record(batch.ids, loss, num_correct, batch.substitutions)
                progress.refuse_too_many_substitutes(config.data.max_bad)
                if config.run.log_ids:
                    run.folder.log_ids(run.ranks.rank, batch.ids)
                if (step + 1) % config.run.log_every_steps == 0:
                    now = meter.read()
                    _log_step(run, batch, loss, step, now.since(last))
                    run.display.step(now.since(last))
                    resources.sample()
                    last = now
                else:
                    run.display.step(None)
                if not _obey(run):
                    return False
    finally:
        run.display.end_epoch()
        # this rank's; whoever runs out of his budget of bad samples will want the list
        run.folder.log_bad_samples(list(progress.substitutions.values()))
    return True


def _obey(run: Run) -> bool:
    """Write a checkpoint if one is due or a signal asks for it. False if the run must stop. All ranks agree."""
    stop, due_by_time = run.lookout.ask(run.stop.is_up, run.saver.is_due_by_time)
    if stop or due_by_time or run.saver.is_due_by_steps:
        run.saver.save()
    return not stop


def _log_step(run: Run, batch: Batch, loss: torch.Tensor, step: int, recent: Reading) -> None:
    value = loss.item()
    _refuse_non_finite(value, f"at step {step} (epoch {run.progress.epoch + 1}, samples {batch.ids[:8].tolist()} …)")
    run.folder.log(
        {
            "kind": "step",
            "epoch": run.progress.epoch,
            "step": step,
            "loss": value,
            "learning_rate": run.step.schedule(step),
            "images_per_s": recent.images_per_s * run.ranks.world_size,
            "data_wait_share": recent.data_wait_share,
        }
    )


def _refuse_non_finite(loss: float, where: str) -> None:
    if not math.isfinite(loss):
        raise FeedrateError(
            f"the loss is {loss} {where}: lower --optim.learning-rate, clip gradients with --optim.clip-norm,"
            " or use --execution.precision bf16"
        )


def _evaluate(run: Run) -> Evaluation:
    """Evaluate the weights as they are, and write down what is too much for a line of the log."""
    step, config, epoch = run.step, run.config, run.progress.epoch
    sample = PredictionSample(config.run.tensorboard_images)
    answer = answer_of(config.data.eval_flip)
    evaluation = evaluate(
        step.module, run.data.evaluation, step.normalize, step.precision, run.ranks, answer, watch=sample
    )
    run.folder.log_evaluation(epoch, evaluation, run.data.classes)
    run.folder.observe(epoch, step.module, sample, run.data.classes)
    return evaluation


def _finish_epoch(run: Run, reading: Reading, used: dict[str, Any], evaluation: Evaluation) -> dict[str, Any]:
    """Log and show the epoch, and move to the next. Returns its record."""
    totals = run.progress.totals(run.ranks)
    _refuse_non_finite(totals["train_loss"], f"in epoch {run.progress.epoch + 1}")
    record = {
        "kind": "epoch",
        "epoch": run.progress.epoch,
        **totals,
        **evaluation.scores("eval_"),
        "num_evaluated": evaluation.num_samples,
        "num_steps": run.progress.epoch * len(run.data.train) + run.progress.batch,
        "learning_rate": run.step.optimizer.param_groups[0]["lr"],
        **reading.figures(run.ranks.world_size),
        "inference_s_per_image": evaluation.inference_s_per_image,
        "first_inference_s": evaluation.first_inference_s,
        "resources": used,
    }
    run.folder.log(record)
    run.display.summarize(record, run.config.epochs)
    if totals["num_substituted"]:
        bad = run.progress.all_substitutions(run.ranks)
        run.folder.log_bad_samples(bad)
        run.display.name_bad_samples(totals["num_substituted"], bad, run.folder.bad_samples)
    run.progress.next_epoch()
    return record
