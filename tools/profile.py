"""Say what a run waits for.

python tools/profile.py [--seconds S] [--rounds N] [--config NAME] [--loader NAME] [--option value …]
python tools/profile.py compare A B [--fail-if-slower 5%]

Measures the training step alone, the loader alone and both together, in turns, and names the slower. All options of
engine/train.py are understood. With no arguments it profiles the default configuration on data/imagenet, or where that
is missing, on images it generates once in data/generated.
"""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    if sys.flags.safe_path:
        sys.path.append(str(REPOSITORY))  # tools/profiling is not installed
    else:
        # Python put tools/ first, where this file would be taken for the standard library's `profile`
        sys.path[0] = str(REPOSITORY)

import dataclasses
from collections.abc import Callable, Sequence

from rich.console import Console

from engine.command_line import OwnOptions
from engine.config import Config
from engine.data import packed_beside
from engine.dist import start_ranks
from engine.profiler.report import print_report, write_report
from engine.profiler.session import profile
from engine.reporting.run_folder import environment
from loaders.api import FeedrateError
from tools.profiling import compare

# what is not measuring: a word before the options, and what runs the words after it
COMMANDS: dict[str, Callable[[Sequence[str], Console], int]] = {"compare": compare.run}

GENERATED = Path("data/generated")
NUM_GENERATED = {"train": 512, "val": 64}


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status: 0 done, 2 bad input, and what else a command of COMMANDS says."""
    if arguments and arguments[0] in COMMANDS:
        return _other_command(arguments)
    own = OwnOptions(__doc__)
    own.add_argument("--seconds", type=float, default=5.0, help="of each measurement (default 5)")
    own.add_argument("--rounds", type=int, default=3, help="of the three measurements (default 3)")
    console = Console(highlight=False, soft_wrap=True)
    try:
        chosen, read_config = own.split(arguments)
        if chosen.seconds <= 0 or chosen.rounds < 1:
            raise FeedrateError("--seconds must be above 0 and --rounds 1 or more")
        config = _with_data(read_config(), console)
        ranks = start_ranks(config.execution.device)
        if ranks.world_size > 1:
            raise FeedrateError("tools/profile.py measures one rank: start it with python, not with torchrun")
        with console.status("profiling") as status:
            measured, verdict = profile(config, ranks, chosen.seconds, chosen.rounds, _teller(console, status))
    except FeedrateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    print_report(console, measured, verdict)
    report = Path(config.run.folder) / config.name / "profile" / "report.json"
    write_report(report, measured, verdict, {"config": dataclasses.asdict(config), "environment": environment()})
    console.print(f"written to {report}", markup=False)
    return 0


def _other_command(arguments: list[str]) -> int:
    """Run one of COMMANDS; returns its exit status."""
    try:
        return COMMANDS[arguments[0]](arguments[1:], Console(highlight=False, soft_wrap=True))
    except FeedrateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _teller(console: Console, status):
    """Show each phase as it begins: in place on a terminal, as a line elsewhere."""

    def tell(text: str) -> None:
        if console.is_terminal and text.startswith("round"):
            status.update(text)
        else:
            console.print(text, markup=False)

    return tell


def _with_data(config: Config, console: Console) -> Config:
    """The configuration itself, or if its default data are missing, the same on generated images."""
    path = config.data.path
    if Path(packed_beside(path)).exists() or path != Config().data.path:
        return config
    from converters.generated.photos import write_photos

    console.print(f"{path} is missing: profiling on generated photos in {GENERATED} instead", markup=False)
    write_photos(GENERATED, NUM_GENERATED, seed=0)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, path=str(GENERATED)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
