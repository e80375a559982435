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
        sys.path.append(str(REPOSITORY))  # tools/ is not installed
    else:
        # Python put tools/ first, where `profile.py` hides the standard library's
        sys.path[0] = str(REPOSITORY)

from engine.safeguards.early_end import end_early, end_early_no_more

if __name__ == "__main__":
    end_early()  # the imports below take seconds

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from engine.safeguards.exit_status import exit_status
from loaders.cpus import available_cpus
from loaders.errors import FeedrateError, did_you_mean
from tools.benchmarks import convert, convert_scale
from tools.benchmarks.accuracy import command as accuracy
from tools.benchmarks.arguments import Parser, positive
from tools.benchmarks.cold_memory import compare as cold_memory
from tools.benchmarks.device import command as device
from tools.benchmarks.loading import command as loading
from tools.benchmarks.overhead import compare as overhead
from tools.benchmarks.profilers import compare as profilers
from tools.benchmarks.report import measured_and_written
from tools.benchmarks.side_by_side import Say
from tools.benchmarks.training import command as training
from tools.benchmarks.what_if import compare as what_if


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status: 0 done, 2 bad input, and what else `exit_status` says."""

    def measure() -> int:
        chosen = parse(arguments)
        paths = _COMMANDS[chosen.command](chosen, _say)
        _SHOWS.get(chosen.command, _show)(paths)
        _say(f"written to {', '.join(map(str, paths.values()))}")
        return 0

    return exit_status(measure, "the same command goes on after the last whole round or run")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line, with defaults filled in. Raises FeedrateError naming what was probably meant."""
    parser = Parser(prog="bench.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="|".join(_COMMANDS), required=True)
    convert.add_options(_add(commands, "convert", "pack beside FFCV's writer", rounds=5))
    convert_scale.add_options(_add(commands, "convert-scale", "pack ever larger sets of tiny images", rounds=3))
    loading.add_options(_add(commands, "load", "load beside other people's loaders", rounds=5))
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
    if arguments and arguments[0].startswith("-") and arguments[0] not in ("-h", "--help"):
        raise FeedrateError(
            f"{arguments[0]} stands where the command belongs: first one of {', '.join(_COMMANDS)}, then its options"
        )
    chosen, others = parser.parse_known_args(arguments)
    if others:
        known = [word for action in commands.choices[chosen.command]._actions for word in action.option_strings]
        name = others[0].split("=")[0]
        raise FeedrateError(f"{chosen.command} has no option '{name}': {did_you_mean(name, known)}see --help")
    return chosen


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


def _parity(chosen: argparse.Namespace, say: Say) -> dict[str, Path]:
    from tools.benchmarks.parity import measure, page  # bring in torch

    return measured_and_written(
        chosen, "parity", lambda: measure(chosen.source, chosen.workers, chosen.work, say), page
    )


def _say(text: str) -> None:
    print(text, flush=True)


def _show(paths: dict[str, Path]) -> None:
    print(paths["md"].read_text())


_COMMANDS: dict[str, Callable[[argparse.Namespace, Say], dict[str, Path]]] = {
    "convert": convert.execute,
    "convert-scale": convert_scale.execute,
    "load": loading.execute,
    "parity": _parity,
    "profiler-overhead": overhead.execute,
    "what-if": what_if.execute,
    "cold-memory": cold_memory.execute,
    "profilers": profilers.execute,
    "accuracy": accuracy.execute,
    "train": training.execute,
    "ceilings": device.execute_ceilings,
    "end-to-end": device.execute_end_to_end,
    "cifar-speed": device.execute_cifar,
}
_SHOWS: dict[str, Callable[[dict[str, Path]], None]] = {"load": loading.show}  # how, where it is not the page

if __name__ == "__main__":
    end_early_no_more()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is running is ended then, too
    sys.exit(main(sys.argv[1:]))
