"""Where the figures of a run go beside metrics.jsonl.

A logger either only appends to its files, and then they are cut back to their sizes at the checkpoint when a run goes
on from one; or it makes them anew from the records of metrics.jsonl, which were cut back so.
"""

import csv
import io
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from loaders.atomic import atomic_file

from ..config import RunConfig
from ..nesting import flat
from .prediction_sample import PredictionSample
from .writing import writing

Record = dict[str, Any]


class MetricsLogger(Protocol):
    """What a run tells of itself. Only the main rank has loggers."""

    def begin(self, records: Sequence[Record]) -> None:
        """The run starts, or goes on; `records` are those of metrics.jsonl so far."""
        ...

    def log(self, record: Record) -> None:
        """A step or an epoch: what metrics.jsonl got as a line."""
        ...

    def observe(self, epoch: int, model: nn.Module, sample: PredictionSample, classes: tuple[str, ...]) -> None:
        """The model after an epoch, and some images with its answers."""
        ...

    def flush(self) -> None:
        """Have everything that was logged so far in the files."""
        ...

    def close(self) -> None:
        """Write what is left. Idempotent."""
        ...


class EpochTable:
    """metrics.csv: a row an epoch, a column a figure, nested ones with a dot. Written anew at every epoch."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._epochs: list[Record] = []

    def begin(self, records: Sequence[Record]) -> None:
        self._epochs = [record for record in records if record["kind"] == "epoch"]
        if self._epochs:
            self._write()
        else:
            self._path.unlink(missing_ok=True)

    def log(self, record: Record) -> None:
        if record["kind"] == "epoch":
            self._epochs.append(record)
            self._write()

    def observe(self, epoch: int, model: nn.Module, sample: PredictionSample, classes: tuple[str, ...]) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _write(self) -> None:
        rows = [flat(record) for record in self._epochs]
        columns = list(dict.fromkeys(name for row in rows for name in row))  # a figure may begin in a later epoch
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        with writing(self._path), atomic_file(self._path) as file:
            file.write(text.getvalue().encode())


class TensorBoard:
    """tensorboard/: figures of steps over steps, those of epochs over epochs (counted from 1), and on request images
    with the model's answers and histograms of its parameters."""

    def __init__(self, folder: Path, with_histograms: bool) -> None:
        self._folder = folder
        self._with_histograms = with_histograms
        self._open: Any = None
        self._excepthook: Any = None  # the one before

    def begin(self, records: Sequence[Record]) -> None:
        pass

    def log(self, record: Record) -> None:
        kind = record["kind"]
        position = record["step"] if kind == "step" else record["epoch"] + 1
        with writing(self._folder):
            for name, value in flat(record).items():
                if name not in ("kind", "epoch", "step") and isinstance(value, int | float):
                    self._writer.add_scalar(f"{kind}/{name}", value, position)

    def observe(self, epoch: int, model: nn.Module, sample: PredictionSample, classes: tuple[str, ...]) -> None:
        with writing(self._folder):
            for number, (image, label, predicted) in enumerate(sample.read()):
                self._writer.add_image(f"evaluated/{number}", image, epoch + 1)
                right = "right" if label == predicted else "wrong"
                text = f"{right}: taken for {classes[predicted]}, is {classes[label]}"
                self._writer.add_text(f"evaluated/{number}", text, epoch + 1)
            if self._with_histograms:
                for name, parameter in model.named_parameters():
                    values = parameter.detach().to("cpu", torch.float32).numpy()
                    self._writer.add_histogram(f"parameters/{name}", values, epoch + 1)

    def flush(self) -> None:
        if self._open is not None:
            with writing(self._folder):
                self._open.flush()

    def close(self) -> None:
        try:
            if self._open is not None:
                with writing(self._folder):
                    self._open.close()
        finally:
            self._open = None
            if self._excepthook is not None:
                threading.excepthook, self._excepthook = self._excepthook, None

    @property
    def _writer(self) -> Any:
        if self._open is None:
            # imported here: it takes a second, and few runs want it
            from torch.utils.tensorboard.writer import SummaryWriter

            # a thread of its own writes, and what stops that is raised again by whatever is asked of it next
            self._excepthook, threading.excepthook = threading.excepthook, self._pass_on
            self._open = SummaryWriter(str(self._folder))
        return self._open

    def _pass_on(self, raised: threading.ExceptHookArgs) -> None:
        if not (isinstance(raised.exc_value, OSError) and type(raised.thread).__name__ == "_AsyncWriterThread"):
            self._excepthook(raised)


def build_loggers(config: RunConfig, folder: Path) -> list[MetricsLogger]:
    """The loggers that `config` asks for, for the run in `folder`. Nothing is written before they are used."""
    loggers: list[MetricsLogger] = [EpochTable(folder / "metrics.csv")]
    if config.tensorboard or config.tensorboard_images or config.tensorboard_histograms:
        loggers.append(TensorBoard(folder / "tensorboard", config.tensorboard_histograms))
    return loggers
