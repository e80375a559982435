"""Evaluating weights that a run has finished, on its own evaluation split or on another set of their classes."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from loaders.api import prepare
from loaders.errors import FeedrateError, some_of
from loaders.packed_names import TextNames
from loaders.records import ChannelStatistics, Records, open_unlabelled
from loaders.sample_table import InSource

from .augment import Normalize
from .build import choose_kernels
from .channels import channels_of
from .checkpointing.finished import Finished
from .config import Config, DataConfig
from .data import Say, one_rank_first, open_evaluation
from .data_path import data_path_to_open
from .dist import Ranks
from .evaluate import Answer, Evaluation, answer_of, evaluate, watched_by
from .model import finished_model, place_model
from .models.weight_files import read_weights
from .reporting.lines import batch_lines, decoding_lines, scan_lines
from .reporting.predictions import Prediction, Predictions
from .step import Precision


@dataclass(frozen=True)
class Answered:
    """What one sample was taken for, where it is stored, and what the source of a packed set calls it (else "")."""

    prediction: Prediction
    where: str
    name: str


@dataclass(frozen=True)
class Answers(Sequence[Answered]):
    """Of very many samples: 1.28 million `Answered` would take 1 GB. `names` is empty where no source has any."""

    predictions: Sequence[Prediction]
    places: Sequence[str]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.predictions)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        one = self.predictions[index]
        return Answered(one, self.places[index], self.names[one.id] if self.names else "")


@dataclass(frozen=True)
class Score:
    """An evaluation with the classes' names in the set's order, and the seconds it took, the first batch included.

    `answers` are in order of id, on the main rank alone, and there only where they were asked for. Where the images are
    not `is_labelled`, there is nothing beside them: no figure and no label means anything.
    """

    evaluation: Evaluation
    classes: tuple[str, ...]
    seconds: float
    answers: Sequence[Answered]
    is_labelled: bool


def score(config: Config, ranks: Ranks, finished: Finished, top_k: int, say: Say) -> Score:
    """Evaluate the weights of `finished` as a run of `config` would, to the bit. Every rank must call it.

    The `top_k` likeliest classes of each image are kept; 0: no answers. Where they are, a folder of images alone may
    stand for a set: they are answered, and nothing is evaluated.

    Raises FeedrateError where the set has classes that the weights do not know, and where the weights do not fit the
    model.
    """
    _refuse_other_model(config, finished, say)
    choose_kernels(config, ranks)
    weights = read_weights(str(finished.path), say)
    path = data_path_to_open(config.data)
    unlabelled = one_rank_first(ranks, lambda: _open_unlabelled(path, finished, top_k, say))
    data = open_evaluation(config, ranks, say, partial(_fit_classes, finished, config, say), unlabelled)
    try:
        _refuse_top_k(top_k, data.records)
        torch.set_num_threads(config.execution.threads or ranks.cpus)  # after the loader, as in training
        records = data.records
        model = finished_model(config, len(records.classes), ranks, weights, str(finished.path), say)
        model = place_model(model, config, ranks)
        normalize = Normalize(
            _channels(records, finished, config.data, say), ranks.device, config.execution.channels_last
        )
        answer = _in_order_of(
            records, finished, answer_of(config.data.eval_flip, config.data.eval_shift_px), ranks, say
        )
        predictions = Predictions(top_k) if top_k else None
        precision = Precision(config.execution.precision, ranks.device)
        prepare(data.loader, decoding_lines(say, "images"))
        started = time.perf_counter()
        lines = batch_lines(say, "evaluating", len(data.loader))
        watch = watched_by(lines, predictions) if predictions else lines
        evaluation = evaluate(model, data.loader, normalize, precision, ranks, answer, watch)
        (seconds,) = ranks.largest([time.perf_counter() - started])
        kept = predictions.read(ranks) if predictions else ()
        return Score(evaluation, records.classes, seconds, _answered(records, kept), unlabelled is None)
    finally:
        data.close()


def _answered(records: Records, predictions: Sequence[Prediction]) -> Answers:
    """Where samples are stored is asked now: of records that are closed nobody may ask."""
    in_source: InSource | None = getattr(records, "in_source", None)
    names = in_source.names() if in_source is not None and predictions else ()
    return Answers(predictions, TextNames.of(records.where(one.id) for one in predictions), names)


def _refuse_other_model(config: Config, finished: Finished, say: Say) -> None:
    name = config.model.name
    if finished.model not in (None, name):
        raise FeedrateError(
            f"{finished.path} holds weights of {finished.model} and --model.name is {name}: it must be the same"
        )
    if finished.blur_pool and not config.model.blur_pool:  # which fit as well, and give other figures
        raise FeedrateError(f"{finished.path} holds weights of a model that blurs: give --model.blur-pool")
    if finished.config_sha256 not in (None, config.numerics_sha256()):
        say("note: the settings are not all those of the training; a model made in another way gives other figures")


def _open_unlabelled(path: str, finished: Finished, top_k: int, say: Say) -> Records | None:
    """The images of a folder that holds them alone; None where `path` is something else."""
    records = open_unlabelled(path, finished.classes or ("",), scan_lines(say))
    if records is None:
        return None
    if not top_k:
        raise FeedrateError(
            f"{path} holds images and no class folders, so there is nothing to compare answers with: --predictions"
            f" FILE.csv writes what each is taken for, and with {path}/<class>/, a folder for each class, accuracy is"
            " told"
        )
    if finished.classes is None:
        raise FeedrateError(
            f"{finished.path} does not tell its classes, nor does {path}, which holds images and no class folders:"
            " give weights that a run has written as .safetensors"
        )
    return records


def _refuse_top_k(top_k: int, records: Records) -> None:
    if top_k > len(records.classes):
        raise FeedrateError(f"--topk is {top_k} and there are {len(records.classes)} classes: it may not be more")


def _fit_classes(finished: Finished, config: Config, say: Say, records: Records) -> None:
    """Names alone tell whether a label means what the weights take it for.

    Where the set has some of the weights' classes, its labels become theirs: so tables and predictions range over all
    that the model may answer.
    """
    trained, given = finished.classes, records.classes
    if trained is None or trained == given:
        return
    if _are_matched_by_number(trained, given):
        return
    if len(given) < len(trained) and set(given) < set(trained) and _are_distinct(given) and _are_distinct(trained):
        say(
            f"the set has {len(given):,} of the weights' {len(trained):,} classes, matched by name; predictions range"
            f" over all {len(trained):,}"
        )
        try:
            records.labels = np.array([trained.index(name) for name in given], np.int64)[records.labels]
            records.classes = trained
        except AttributeError as error:  # of people's own
            raise FeedrateError(
                f"{config.data.path} has some of the weights' classes alone, and its records let nobody set labels and"
                f" classes ({error}): make both plain attributes"
            ) from error
        return
    counts = f"{config.data.path} has {len(given)} classes and {finished.path} was trained on {len(trained)}"
    if len(trained) == len(given):
        counts += " of other names"
    if sorted(trained) != sorted(given):
        differing = [
            f"{whose} {some_of(names)}"
            for whose, names in (
                ("the set alone has", set(given) - set(trained)),
                ("the weights alone have", set(trained) - set(given)),
            )
            if names
        ]
        raise FeedrateError(
            f"{counts}: {', '.join(differing) or 'a name stands for several'}; --data.path must name a set of"
            " these classes, or of some of them"
        )
    if not _are_distinct(given):
        raise FeedrateError(
            f"{config.data.path} has the classes of {finished.path} in another order, and a name stands for several:"
            " labels would mean nothing"
        )


def _are_matched_by_number(trained: tuple[str, ...], given: tuple[str, ...]) -> bool:
    """Whether one side has numbers for want of names, as a .beton without a manifest, and the other as many names.

    Not where both have numbers, but others: those are names.
    """
    numbers = tuple(map(str, range(len(trained))))
    are_numbers = [all(name.isdecimal() for name in names) for names in (trained, given)]
    return len(given) == len(trained) and numbers in (trained, given) and not all(are_numbers)


def _are_distinct(names: tuple[str, ...]) -> bool:
    return len(set(names)) == len(names)


def _in_order_of(records: Records, finished: Finished, answer: Answer, ranks: Ranks, say: Say) -> Answer:
    """`answer` with its scores in the order of the set's classes."""
    trained, given = finished.classes, records.classes
    if trained is None:
        say(f"{finished.path} does not tell its classes: they are taken for the set's {len(given)}, in its order")
        return answer
    if trained == given:
        return answer
    if _are_matched_by_number(trained, given):
        whose = "the weights have" if trained[0] == "0" else "the set has"
        say(f"warning: {whose} no names of classes, only numbers: they are matched by number, which need not be right")
        return answer
    say("the set has the classes of the weights in another order: they are matched by name")
    places = torch.tensor([trained.index(name) for name in given], device=ranks.device)
    return lambda model, inputs: answer(model, inputs)[:, places]


def _channels(records: Records, finished: Finished, data: DataConfig, say: Say) -> ChannelStatistics:
    """As the weights were trained, where their file tells; else as `data` say."""
    trained = finished.channels
    if trained is None:
        asked = channels_of(records, data.normalize, data_path_to_open(data))
        say(f"{finished.path} does not tell what images were normalised by: the mean and deviation of {asked.source}")
        return asked
    say(f"normalised by the mean and deviation that {finished.path} was trained with")
    others = {"those of the set": channels_of(records)} if records.channels is not None else {}
    if data.normalize not in ("auto", "set"):
        others["those of --data.normalize"] = channels_of(records, data.normalize)
    for name, other in others.items():
        if (other.mean, other.std) != (trained.mean, trained.std):
            say(f"{name} are others, and are not used ({other.source})")
    return trained
