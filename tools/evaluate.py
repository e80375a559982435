"""Evaluate weights that a run has finished, on its own evaluation split or on another set.

python tools/evaluate.py RUN [--which last|best|ema|ema-best|swa|swa-best] [--option value …]
python tools/evaluate.py FILE.safetensors [--config NAME] [--option value …]
torchrun --nproc-per-node=4 tools/evaluate.py …

RUN is a run's folder, such as runs/NAME; its config.toml says the model, the data and the sizes, also for a FILE that
lies in it. A FILE from elsewhere tells its model and its sizes itself, where a run wrote it; --config and options say
the rest. All options of engine/train.py are understood: --data.path names another set of the same classes, or of some
of them, --data.eval-split another split of it. Every image counts once, on any number of ranks; nothing is trained, and
the run's folder is left as it is. With --predictions, --data.path may also name a folder of images alone: they get
predictions, and no accuracy is told.
"""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    if sys.flags.safe_path:
        sys.path.append(str(REPOSITORY))  # tools/ is not installed
    else:
        # Python put tools/ first, where `profile.py` hides the standard library's
        sys.path[0] = str(REPOSITORY)

from engine.safeguards.early_end import end_early, end_early_no_more

if __name__ == "__main__":
    end_early()  # the imports below take seconds

import csv
import io
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from engine.checkpointing.finished import WEIGHTS_OF_RUN, config_beside, find_weights, read_finished
from engine.command_line import OwnOptions
from engine.data_path import found_from
from engine.dist import run_and_end, start_ranks, stop_ranks
from engine.reporting.display import Display
from engine.reporting.writing import writing
from engine.safeguards.exit_status import exit_status
from engine.scoring import Answered, Score, score
from loaders.atomic import atomic_file
from loaders.errors import FeedrateError
from loaders.home_folder import expand_home
from tools.benchmarks.arguments import positive

_ANOTHER_FILE = "or name another file"


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status: 0 done, 2 bad input, and what else `exit_status` says."""
    # what it writes is whole or not there
    return exit_status(lambda: _evaluate(arguments), rank=int(os.environ.get("RANK", "0")))


def _evaluate(arguments: Sequence[str]) -> int:
    target, options = _take_target(arguments)
    preset = _preset_of(target, options)
    chosen, read_config = _options().split([*preset, *options])
    config = read_config()  # help ends here
    finished = read_finished(find_weights(Path(target), chosen.which))
    _refuse_no_place(chosen.per_class, chosen.predictions)
    if chosen.topk is not None and chosen.predictions is None:
        raise FeedrateError("--topk is of what --predictions FILE.csv writes: give both, or leave it")
    top_k = 0 if chosen.predictions is None else chosen.topk or 1
    ranks = start_ranks(config.execution.device)
    display = Display(ranks.is_main)
    of_epoch = "" if finished.epoch is None else f", of epoch {finished.epoch + 1}"
    display.say(f"weights: {finished.path}{of_epoch}")
    if (settings := config_beside(Path(target))) is not None:
        config, told = found_from(config, settings.parent)
        if told:
            display.say(told)
    scored = score(config, ranks, finished, top_k, display.say)
    per_class = chosen.per_class if scored.is_labelled else None
    if per_class != chosen.per_class:
        display.say(f"{chosen.per_class} is not written: there are no labels to count by")
    try:
        if ranks.is_main:
            _write(per_class, iter(scored.evaluation.classes.rows(scored.classes)), display)
            _write(chosen.predictions, _rows(scored), display)
    finally:
        _tell(display, scored)  # whatever becomes of the files
    stop_ranks()
    return 0


def _options() -> OwnOptions:
    own = OwnOptions(__doc__)
    own.add_argument("--which", choices=list(WEIGHTS_OF_RUN), help="of a run's weights (last)")
    add, to_write = own.add_argument, {"type": expand_home, "metavar": "FILE.csv"}
    add("--per-class", help="write counts, accuracy and F1 of each class", **to_write)
    add("--predictions", help="write what each image is taken for", **to_write)
    add("--topk", type=positive, metavar="K", help="of --predictions: the K likeliest classes of each image (1)")
    return own


def _take_target(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Split the run or file, which comes first, from the options; empty where help is asked for without one."""
    if arguments and not arguments[0].startswith("-"):
        return expand_home(arguments[0]), list(arguments[1:])
    if {"-h", "--help"} & set(arguments):
        return "", list(arguments)
    raise FeedrateError("a run's folder or a file of weights comes first: python tools/evaluate.py runs/NAME")


def _preset_of(target: str, options: list[str]) -> list[str]:
    """The words that say what is known of the model and its data, unless the options name a preset."""
    if not target or any(word.split("=")[0] == "--config" for word in options):
        return []
    path = Path(target)
    if (config := config_beside(path)) is not None:
        return ["--config", str(config)]
    if path.is_dir():
        raise FeedrateError(f"{path} has no config.toml: it is no run's folder, name one such as runs/NAME")
    return read_finished(find_weights(path, None)).options()


def _refuse_no_place(*files: str | None) -> None:
    """Before anything is evaluated. A device or a pipe would not be written to, but replaced."""
    for path in (Path(file) for file in files if file is not None):
        with writing(path, _ANOTHER_FILE):
            if not path.parent.is_dir() or (path.exists() and not path.is_file()):
                raise FeedrateError(f"{path} cannot be written: it must name a file in a folder that exists")


def _tell(display: Display, scored: Score) -> None:
    found = scored.evaluation
    if scored.is_labelled:
        counts = [
            f"{name} {share:.2%} ({right:,})"
            for name, share, right in (("top-1", found.top1, found.num_top1), ("top-5", found.top5, found.num_top5))
        ]
        display.say(f"loss {found.loss:.6f}  {'  '.join(counts)}  macro F1 {found.classes.macro_f1:.4f}")
    speed = found.num_samples / scored.seconds
    display.say(f"{found.num_samples:,} images in {scored.seconds:.1f} s, {speed:,.0f} img/s")


def _rows(scored: Score) -> Iterator[dict[str, Any]]:
    classes = scored.classes
    return (
        {
            "id": answer.prediction.id,
            "where": answer.where,
            "name": answer.name,
            "label": classes[answer.prediction.label] if scored.is_labelled else "",
            "predicted": classes[answer.prediction.predicted],
            "probability": f"{answer.prediction.probability:.6g}",
            **_runners_up(answer, classes),
        }
        for answer in scored.answers
    )


def _runners_up(answer: Answered, classes: tuple[str, ...]) -> dict[str, str]:
    columns: dict[str, str] = {}
    for place, (label, probability) in enumerate(answer.prediction.runners_up, 2):
        columns |= {f"predicted_{place}": classes[label], f"probability_{place}": f"{probability:.6g}"}
    return columns


def _write(file: str | None, rows: Iterator[dict[str, Any]], display: Display) -> None:
    """Whole or not at all, if it is asked for, and say so; row by row, since there may be millions."""
    if file is None:
        return
    first = next(rows)
    with writing(Path(file), _ANOTHER_FILE), atomic_file(file) as stream:
        text = io.TextIOWrapper(stream, "utf-8", "surrogateescape", newline="")
        writer = csv.DictWriter(text, fieldnames=list(first))
        writer.writeheader()
        writer.writerows(chain([first], rows))
        text.detach()  # with all of it written; else it would close the file
    display.say(f"written to {file}")


if __name__ == "__main__":
    end_early_no_more()
    run_and_end(lambda: main(sys.argv[1:]))
