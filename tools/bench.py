"""Measure how fast this is, beside others, and write it down.

python tools/bench.py convert [--source DIR] [--repeat K] [--rounds N] [--workers W] [--cases NAME,…]
python tools/bench.py convert-scale [--samples N,…] [--rounds N] [--workers W]
python tools/bench.py load [--cases NAME,…] [--sides NAME,…] [--rounds N] [--workers W] [--quick]
python tools/bench.py parity [--source DIR] [--workers W]
python tools/bench.py accuracy --config PRESET [--data PATH] [--loaders NAME,…] [--seeds N,…]
python tools/bench.py train [--cases NAME,…] [--sides NAME,…] [--rounds N] [--threads T] [--workers W] [--quick]
python tools/bench.py profiler-overhead [--cases NAME,…] [--rounds N] [--pairs P] [--quick]
python tools/bench.py what-if [--bases NAME,…] [--rounds N] [--minutes M] [--quick]
python tools/bench.py ceilings [--models NAME,…] [--variants NAME,…] [--rounds N]
python tools/bench.py end-to-end [--model NAME] [--forms NAME,…] [--loaders NAME,…] [--rounds N]
python tools/bench.py cifar-speed [--data PATH] [--runs N] [--minutes M]
python tools/bench.py cold-memory [--cases NAME,…] [--loaders NAME,…] [--rounds N] [--minutes M]
python tools/bench.py profilers [--cases NAME,…] [--watchers NAME,…] [--traceml-python PATH]

`convert` packs the same photos with tools/convert.py and with FFCV's writer, in turns. `convert-scale` packs ever
larger sets of tiny images. `load` runs our loaders and other people's over the same images. All write a page and a
.json into docs/benchmarks/, and go on where they were interrupted. Let nothing else run beside them. `parity` compares
pixels, not times. `accuracy` trains a preset with each loader and seed and compares what they reach. `train`
trains the same model by our loop, torchvision's and timm's, in turns. `profiler-overhead` trains with the clocks that
every run has and without them, in turns. `what-if` profiles, predicts changes, and then measures them. `cold-memory`
profiles a set within limits of memory and of the disk. `profilers` has ours, TraceML and torch.profiler watch one
script with planted bottlenecks. `ceilings`, `end-to-end` and `cifar-speed` are made for GPUs: the training step alone,
the share of it that each loader reaches, and CIFAR-10 against the clock.
"""

import signal
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    if sys.flags.safe_path:
        sys.path.append(str(REPOSITORY))  # tools/benchmarks is not installed
    else:
        # Python put tools/ first, where `profile.py` hides the standard library's
        sys.path[0] = str(REPOSITORY)

from engine.safeguards.early_end import end_early, end_early_no_more

if __name__ == "__main__":
    end_early()  # the imports below take seconds

import argparse
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

from engine.safeguards.exit_status import exit_status
from loaders.cpus import available_cpus
from loaders.errors import FeedrateError, did_you_mean
from tools.benchmarks import convert, convert_scale, report
from tools.benchmarks.accuracy import command as accuracy
from tools.benchmarks.arguments import Parser, names, positive, seconds, sizes
from tools.benchmarks.cold_memory import compare as cold_memory
from tools.benchmarks.device import command as device
from tools.benchmarks.loading import cases, compare, sides
from tools.benchmarks.machine import describe
from tools.benchmarks.overhead import compare as overhead
from tools.benchmarks.overhead.page import page as overhead_page
from tools.benchmarks.profilers import compare as profilers
from tools.benchmarks.rounds import remove, working_folder
from tools.benchmarks.training import command as training
from tools.benchmarks.what_if import compare as what_if

_SIZES = (100_000, 325_000, 650_000, 1_300_000)


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status: 0 done, 2 bad input, 130 interrupted."""

    def measure() -> int:
        chosen = parse(arguments)
        _COMMANDS[chosen.command](chosen)
        return 0

    return exit_status(measure, "the same command goes on after the last whole round or run")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line, with defaults filled in. Raises FeedrateError naming what was probably meant."""
    parser = Parser(prog="bench.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="|".join(_COMMANDS), required=True)
    side_by_side = _add(commands, "convert", "pack beside FFCV's writer", rounds=5)
    side_by_side.add_argument("--source", type=Path, help="photos in class folders (500 of ImageNet, or generated)")
    side_by_side.add_argument("--repeat", type=positive, default=10, metavar="K", help="use each photo K times (10)")
    side_by_side.add_argument(
        "--cases", type=names(convert.CASES), default=tuple(convert.CASES), metavar="NAME,…", help="(all)"
    )
    scale = _add(commands, "convert-scale", "pack ever larger sets of tiny images", rounds=3)
    shown = ",".join(map(str, _SIZES))
    scale.add_argument("--samples", type=sizes, default=_SIZES, metavar="N,…", help=f"how many ({shown})")
    _load_options(_add(commands, "load", "load beside other people's loaders", rounds=5))
    parity = _add(commands, "parity", "compare the pixels of all loaders with plain code")
    parity.add_argument("--source", type=Path, help="photos in class folders (500 of ImageNet, or generated)")
    overhead.add_options(_add(commands, "profiler-overhead", "train with the profiler's clocks and without", rounds=6))
    what_if.add_options(_add(commands, "what-if", "predict changes of training, and measure them", rounds=7))
    cold_memory.add_options(_add(commands, "cold-memory", "profile within limits of memory and disk", rounds=5))
    profilers.add_options(_working(commands, "profilers", "profilers on planted bottlenecks", rounds=3))
    accuracy.add_options(_reporting(commands, "accuracy", "train a preset with each loader and seed"))
    training.add_options(_add(commands, "train", "train beside torchvision's and timm's loops", rounds=3))
    device.add_ceiling_options(_add(commands, "ceilings", "train on one batch that stays", rounds=2))
    device.add_end_to_end_options(_add(commands, "end-to-end", "load and train with each loader", rounds=1))
    device.add_cifar_options(_add(commands, "cifar-speed", "train CIFAR-10 beside airbench", rounds=1))
    chosen, others = parser.parse_known_args(arguments)
    if others:
        known = [word for action in commands.choices[chosen.command]._actions for word in action.option_strings]
        name = others[0].split("=")[0]
        raise FeedrateError(f"{chosen.command} has no option '{name}': {did_you_mean(name, known)}see --help")
    return chosen


def _load_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    shown = f"{', '.join(cases.CASES)} ({','.join(cases.DEFAULT_CASES)})"
    add("--cases", type=names(cases.CASES), default=cases.DEFAULT_CASES, metavar="NAME,…", help=shown)
    add("--sides", type=names(sides.SIDES), metavar="NAME,…", help=f"{', '.join(sides.SIDES)} (those of each case)")
    add("--source", type=Path, help="photos in class folders (500 of ImageNet, or generated)")
    add("--repeat", type=positive, default=10, metavar="K", help="use each photo K times (10)")
    add("--batch-size", type=positive, default=64, metavar="B", help="of photos (64)")
    add("--seconds", type=seconds, default=2.0, metavar="S", help="a timed window lasts at least so long (2)")
    add("--quick", action="store_true", help="one short round, to see whether everything runs; its figures mean little")


def _add(commands: Any, name: str, text: str, rounds: int = 0) -> argparse.ArgumentParser:
    """The same with a number of workers that is a setting."""
    command = _working(commands, name, text, rounds)
    shown = "of each side (as many as processors)"
    command.add_argument("--workers", type=positive, default=available_cpus(), metavar="W", help=shown)
    return command


def _working(commands: Any, name: str, text: str, rounds: int = 0) -> argparse.ArgumentParser:
    """A command that measures in a working folder, with the options that all such have."""
    command = _reporting(commands, name, text)
    work, shown = REPOSITORY / "data" / f"bench-{name}", f"data/bench-{name}"
    add = command.add_argument
    if rounds:
        add("--rounds", type=positive, default=rounds, metavar="N", help=f"timed ({rounds})")
        add("--timeout-s", type=positive, default=3600, metavar="S", help="end a run that takes longer (3600)")
    add("--work", type=Path, default=work, help=f"folder for images and packed files, removed at the end ({shown})")
    return command


def _reporting(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    """A command that writes a report."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    add = command.add_argument
    add("--report", type=Path, default=REPOSITORY / "docs" / "benchmarks", help="where to write (docs/benchmarks)")
    add("--overwrite", action="store_true", help="replace today's report")
    return command


def _convert(chosen: argparse.Namespace) -> None:
    paths = report.free_paths(chosen.report, "convert", ["json", "md"], chosen.overwrite)
    settings = convert.ConvertSettings(
        chosen.source, chosen.repeat, chosen.rounds, chosen.workers, chosen.cases, chosen.timeout_s
    )
    with working_folder(chosen.work):
        measured = {**_head(), **convert.measure(settings, chosen.work, _say)}
        report.write_json(paths["json"], measured)
        report.write_text(paths["md"], report.convert_page(measured))
        remove(chosen.work)
    _told(paths)


def _convert_scale(chosen: argparse.Namespace) -> None:
    from tools.benchmarks.curve import draw  # brings in matplotlib

    paths = report.free_paths(chosen.report, "convert_scale", ["json", "md", "png"], chosen.overwrite)
    settings = convert_scale.ScaleSettings(chosen.samples, chosen.rounds, chosen.workers, chosen.timeout_s)
    with working_folder(chosen.work):
        measured = {**_head(), **convert_scale.measure(settings, chosen.work, _say)}
        report.write_json(paths["json"], measured)
        draw(paths["png"], measured)
        report.write_text(paths["md"], report.scale_page(measured, paths["png"].name))
        remove(chosen.work)
    _told(paths)


def _load(chosen: argparse.Namespace) -> None:
    from rich.console import Console

    from tools.benchmarks.loading import bars, page  # bring in matplotlib

    paths = report.free_paths(chosen.report, "load", ["json", "md", "png"], chosen.overwrite)
    settings = compare.LoadSettings(
        chosen.cases,
        chosen.sides,
        chosen.source,
        1 if chosen.quick else chosen.repeat,
        1 if chosen.quick else chosen.rounds,
        chosen.workers,
        chosen.batch_size,
        0.2 if chosen.quick else chosen.seconds,
        chosen.timeout_s,
    )
    with working_folder(chosen.work):
        measured = {**_head(), **compare.measure(settings, chosen.work, _say)}
        report.write_json(paths["json"], measured)
        bars.draw(paths["png"], measured)
        report.write_text(paths["md"], page.page(measured, paths["png"].name))
        remove(chosen.work)
    page.tables(measured, Console(width=200))
    _say(f"written to {', '.join(str(path) for path in paths.values())}")


def _parity(chosen: argparse.Namespace) -> None:
    from tools.benchmarks import parity  # brings in torch

    paths = report.free_paths(chosen.report, "parity", ["json", "md"], chosen.overwrite)
    with working_folder(chosen.work):
        measured = {**_head(), **parity.measure(chosen.source, chosen.workers, chosen.work, _say)}
        report.write_json(paths["json"], measured)
        report.write_text(paths["md"], parity.page(measured))
        remove(chosen.work)
    _told(paths)


def _overhead(chosen: argparse.Namespace) -> None:
    paths = report.free_paths(chosen.report, "profiler_overhead", ["json", "md"], chosen.overwrite)
    with working_folder(chosen.work):
        measured = {**_head(), **overhead.measure(overhead.settings_of(chosen), chosen.work, _say)}
        report.write_json(paths["json"], measured)
        report.write_text(paths["md"], overhead_page(measured))
        remove(chosen.work)
    _told(paths)


def _what_if(chosen: argparse.Namespace) -> None:
    from tools.benchmarks.what_if.page import draw, page  # brings in matplotlib

    paths = report.free_paths(chosen.report, "what_if", ["json", "md", "png"], chosen.overwrite)
    settings = what_if.settings_of(chosen)
    with working_folder(chosen.work):
        measured = {**_head(), **what_if.measure(settings, chosen.work, _say)}
        report.write_json(paths["json"], measured)
        draw(paths["png"], measured)
        report.write_text(paths["md"], page(measured, paths["png"].name))
        remove(chosen.work)
    _told(paths)


def _accuracy(chosen: argparse.Namespace) -> None:
    _told(accuracy.execute(chosen, _head(), _say))


def _cold_memory(chosen: argparse.Namespace) -> None:
    _told(cold_memory.execute(chosen, _head(), _say))


def _profilers(chosen: argparse.Namespace) -> None:
    _told(profilers.execute(chosen, _head(), _say))


def _train(chosen: argparse.Namespace) -> None:
    _told(training.execute(chosen, _head(), _say))


def _on_device(execute: Callable[..., dict[str, Path]]) -> Callable[[argparse.Namespace], None]:
    return lambda chosen: _told(execute(chosen, _head(), _say))


def _head() -> dict[str, Any]:
    return {"date": date.today().isoformat(), "machine": describe()}


def _say(text: str) -> None:
    print(text, flush=True)


def _told(paths: dict[str, Path]) -> None:
    print(paths["md"].read_text())
    print(f"written to {', '.join(str(path) for path in paths.values())}")


_COMMANDS = {
    "convert": _convert,
    "convert-scale": _convert_scale,
    "load": _load,
    "parity": _parity,
    "profiler-overhead": _overhead,
    "what-if": _what_if,
    "cold-memory": _cold_memory,
    "profilers": _profilers,
    "accuracy": _accuracy,
    "train": _train,
    "ceilings": _on_device(device.execute_ceilings),
    "end-to-end": _on_device(device.execute_end_to_end),
    "cifar-speed": _on_device(device.execute_cifar),
}

if __name__ == "__main__":
    end_early_no_more()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is running is ended then, too
    sys.exit(main(sys.argv[1:]))
