"""Say what a run waits for, which stage of it, what would help, and how much at most.

python tools/profile.py [--minutes M] [--rounds N] [--config NAME] [--loader NAME] [--option value …]
python tools/profile.py --apply [--price-per-hour PRICE] …
torchrun --nproc-per-node=4 tools/profile.py …
python tools/profile.py compare A B [--fail-if-slower 5%]
python tools/profile.py self-test [--quick] [--loaders NAME,…] [--planted NAME,…]

Measures, in turns, the training step alone, the loader alone with several numbers of workers, both together, and the
latter two with files dropped from memory before; then names the one stage that holds the run back, or says that none
can be named, and predicts what changes would bring. --apply tries two of them and says how wrong that was. All options
of engine/train.py are understood. With no arguments it profiles the default configuration on data/imagenet, or where
that is missing, on images it generates once in data/generated.
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

import dataclasses
import importlib
import os
import re
from collections.abc import Callable
from contextlib import ExitStack

from rich.console import Console

from engine.command_line import OwnOptions
from engine.config import Config
from engine.data_path import data_path_to_open
from engine.dist import Ranks, run_and_end, start_ranks, stop_ranks
from engine.profiler.record import Profile
from engine.profiler.reports.files import write_reports
from engine.profiler.reports.terminal import print_profile
from engine.profiler.session import Budget, profile
from engine.reporting.run_folder import environment
from engine.safeguards.exit_status import exit_status
from loaders.ending_signals import unwind_at_signals
from loaders.errors import FeedrateError, did_you_mean
from loaders.lost_output import output_may_be_lost
from tools.profiling import what_if

# what is not measuring: a word before the options, and the module whose `run` takes the words after it; imported when
# asked for, since what they draw with takes a second of every start
COMMANDS = {"compare": "tools.profiling.compare", "self-test": "tools.profiling.self_test"}

GENERATED = Path("data/generated")
NUM_GENERATED = {"train": 512, "val": 64}


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status: 0 done, 2 bad input, and what else a command of COMMANDS says."""
    if arguments and arguments[0] in COMMANDS:
        return exit_status(lambda: _other_command(arguments))  # what they write is whole or not there
    rank = int(os.environ.get("RANK", "0"))
    default = Budget()
    own = OwnOptions(__doc__)
    text = "to measure for, and half of it more for full predictions; where whole batches take longer, it says so"
    own.add_argument("--minutes", type=float, default=default.minutes, help=f"{text} (default {default.minutes:g})")
    own.add_argument("--rounds", type=int, default=default.rounds, help=f"of everything (default {default.rounds})")
    what_if.add_options(own)
    console = Console(highlight=False, soft_wrap=True, quiet=rank != 0)
    kept = ""

    def measure() -> int:
        nonlocal kept
        if arguments and not arguments[0].startswith("-"):
            known = f"{did_you_mean(arguments[0], COMMANDS)}known are {' and '.join(COMMANDS)}"
            raise FeedrateError(f"'{arguments[0]}' is no command of profile.py: {known}, and without one it measures")
        chosen, read_config = own.split(arguments)
        budget = Budget(chosen.minutes, chosen.rounds)
        wishes = what_if.wishes_of(chosen, int(os.environ.get("WORLD_SIZE", "1")))
        config = read_config()
        stack.enter_context(output_may_be_lost())  # the reports hold all of it
        ranks = start_ranks(config.execution.device)
        config = _with_data(config, ranks, console)
        with console.status("profiling") as status:
            tell = _teller(console, status)
            tell(what_if.how_long(budget, wishes))
            measured = profile(config, ranks, budget, environment(), tell)
            folder = Path(config.run.folder) / config.name / "profile"
            if rank == 0:  # what comes now takes minutes, and may fail
                _, failed = _write(folder, measured)
                kept = "" if failed else f"{folder} holds what was measured, without predictions"
            measured = what_if.with_predictions(measured, config, ranks, budget, wishes, tell)
        stop_ranks()
        if rank == 0:
            written, failed = _write(folder, measured)
            kept = kept if failed else f"{folder} holds all of it"
            print_profile(console, measured)
            if failed:  # told when what was measured is
                raise failed
            console.print(f"written to {', '.join(map(str, written))}", markup=False)
        return 0

    with ExitStack() as stack:
        return exit_status(measure, "nothing was written", rank, lambda: kept)


def _write(folder: Path, measured: Profile) -> tuple[list[Path], FeedrateError | None]:
    """The report's files, and why they could not be written, if so."""
    try:
        return write_reports(folder, measured), None
    except FeedrateError as error:
        return [], error


def _other_command(arguments: list[str]) -> int:
    """Run one of COMMANDS; returns its exit status. Raises FeedrateError."""
    command = importlib.import_module(COMMANDS[arguments[0]])
    status: int = command.run(arguments[1:], Console(highlight=False, soft_wrap=True))
    return status


def _teller(console: Console, status) -> Callable[[str], None]:
    """Show each phase as it begins: in place on a terminal, as a line elsewhere, where a round is one line."""
    last = ""

    def tell(text: str) -> None:
        nonlocal last
        if not text.startswith(("round", "once")):
            console.print(text, markup=False)
        elif console.is_terminal:
            status.update(text)
        elif (turn := text.split(":")[0]) != last:
            last = turn
            console.print(turn, markup=False)

    return tell


def _with_data(config: Config, ranks: Ranks, console: Console) -> Config:
    """The configuration itself, or if ImageNet is missing where the presets have it, the same on generated images."""
    path = config.data.path
    is_imagenet = path == Config().data.path or re.fullmatch(f"{re.escape(Config().data.path)}-[0-9]+", path)
    if Path(data_path_to_open(config.data)).exists() or not is_imagenet:
        return config
    from converters.generated.photos import write_photos

    console.print(f"{path} is missing: profiling on generated photos in {GENERATED} instead", markup=False)
    if ranks.local_rank == 0:
        write_photos(GENERATED, NUM_GENERATED, seed=0)
    ranks.barrier()
    # the photos hold no mean of their own, and what is subtracted costs no time
    normalize = "auto" if config.data.normalize == "set" else config.data.normalize
    data = dataclasses.replace(config.data, path=str(GENERATED), normalize=normalize)
    return dataclasses.replace(config, data=data)


if __name__ == "__main__":
    end_early_no_more()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        unwind_at_signals()  # what was packed to be tried is removed then, too
    run_and_end(lambda: main(sys.argv[1:]))
