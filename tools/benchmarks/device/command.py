"""The options of `bench.py ceilings`, `end-to-end` and `cifar-speed`, and what these do."""

import argparse
from pathlib import Path

from loaders.cpus import available_cpus

from ..arguments import add_finished_only, duration, names, positive, seconds
from ..process import REPOSITORY
from ..report import measured_and_written
from ..side_by_side import Say
from ..training.command import device_of
from .ceilings import VARIANTS, CeilingSettings
from .cifar_sides import SIDES
from .cifar_speed import CifarSettings
from .end_to_end import FORMS, LOADERS, EndToEndSettings
from .turns import Timing

_MODELS = ("resnet18", "resnet50")
_CIFAR = REPOSITORY / "data" / "long" / "cifar10-packed"


def add_ceiling_options(command: argparse.ArgumentParser) -> None:
    """What is trained, in which ways."""
    add = command.add_argument
    add("--models", type=names(_MODELS), default=_MODELS, metavar="NAME,…", help=f"{', '.join(_MODELS)} (all)")
    add(
        "--variants",
        type=names(VARIANTS),
        default=tuple(VARIANTS),
        metavar="NAME,…",
        help=f"{', '.join(VARIANTS)} (all)",
    )
    _add_training_options(command)


def add_end_to_end_options(command: argparse.ArgumentParser) -> None:
    """What is trained, from what."""
    add = command.add_argument
    add("--model", choices=_MODELS, default="resnet50", help="(resnet50)")
    add("--forms", type=names(FORMS), default=tuple(FORMS), metavar="NAME,…", help=f"{', '.join(FORMS)} (all)")
    add("--loaders", type=names(LOADERS), default=LOADERS, metavar="NAME,…", help=f"{', '.join(LOADERS)} (all)")
    add("--source", type=Path, help="photos in class folders (500 of ImageNet, or generated)")
    add("--repeat", type=positive, default=60, metavar="K", help="use each photo K times (60)")
    add("--precision", choices=("bf16", "fp16", "fp32"), default="bf16", help="(bf16)")
    add("--compile", action="store_true", help="by torch.compile")
    add("--no-alone", action="store_true", help="do not measure the loaders without the step")
    add("--keep-work", action="store_true", help="leave images and rounds in the working folder, for the next time")
    _add_training_options(command)


def add_cifar_options(command: argparse.ArgumentParser) -> None:
    """How often, and how ours is set."""
    add = command.add_argument
    add("--sides", type=names(SIDES), default=tuple(SIDES), metavar="NAME,…", help=f"{', '.join(SIDES)} (all)")
    add("--data", type=Path, default=_CIFAR, metavar="PATH", help="CIFAR-10, packed (data/long/cifar10-packed)")
    add("--runs", type=positive, default=50, metavar="N", help="at most, of each side (50)")
    shown = "begin no run after so long, of each side (10)"
    add("--minutes", type=duration("minutes", 1440), default=10.0, metavar="M", help=shown)
    add(
        "--options",
        default="--execution.precision bf16",
        metavar="'--NAME VALUE …'",
        help="of engine/train.py, for ours",
    )
    add("--keep-work", action="store_true", help="leave the runs in the working folder: the next time adds to them")
    add_finished_only(command)
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(a GPU where there is one)")


def _add_training_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--batch-size", type=positive, default=256, metavar="B", help="(256)")
    add("--size-px", type=positive, default=224, metavar="S", help="(224)")
    add("--threads", type=positive, default=available_cpus(), metavar="T", help="of torch (as many as processors)")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(a GPU where there is one)")
    add("--windows", type=positive, default=3, metavar="N", help="timed in each run, one after the other (3)")
    add("--seconds", type=seconds, default=1.0, metavar="S", help="a window lasts at least so long (1)")
    add_finished_only(command)


def execute_ceilings(chosen: argparse.Namespace, say: Say) -> dict[str, Path]:
    """Measure, and write the report. Returns its files."""
    from . import ceilings, page

    settings = CeilingSettings(
        chosen.models,
        chosen.variants,
        chosen.batch_size,
        chosen.size_px,
        device_of(chosen.device),
        chosen.threads,
        _timing(chosen),
    )
    return measured_and_written(
        chosen, "ceilings", lambda: ceilings.measure(settings, chosen.work, say), page.ceilings_page
    )


def execute_end_to_end(chosen: argparse.Namespace, say: Say) -> dict[str, Path]:
    """Measure, and write the report. Returns its files."""
    from . import end_to_end, page

    settings = EndToEndSettings(
        chosen.model,
        chosen.forms,
        chosen.loaders,
        chosen.source,
        chosen.repeat,
        chosen.batch_size,
        chosen.size_px,
        chosen.precision,
        chosen.compile,
        device_of(chosen.device),
        chosen.threads,
        chosen.workers,
        not chosen.no_alone,
        _timing(chosen),
    )
    name = f"end_to_end_{chosen.model}"
    return measured_and_written(
        chosen, name, lambda: end_to_end.measure(settings, chosen.work, say), page.end_to_end_page
    )


def execute_cifar(chosen: argparse.Namespace, say: Say) -> dict[str, Path]:
    """Measure, and write the report. Returns its files."""
    from . import cifar_speed

    settings = CifarSettings(
        chosen.data,
        chosen.sides,
        chosen.runs,
        chosen.minutes,
        device_of(chosen.device),
        tuple(chosen.options.split()),
        chosen.timeout_s,
        chosen.finished_only,
    )
    measure = lambda: cifar_speed.measure(settings, chosen.work, say)  # noqa: E731
    return measured_and_written(chosen, "cifar_speed", measure, cifar_speed.page)


def _timing(chosen: argparse.Namespace) -> Timing:
    return Timing(chosen.rounds, chosen.windows, chosen.seconds, chosen.timeout_s, chosen.finished_only)
