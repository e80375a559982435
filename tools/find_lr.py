"""Find a learning rate: raise it from update to update and watch the loss.

python tools/find_lr.py [--lowest-rate R] [--highest-rate R] [--updates N] [--growth exponential|linear]
                        [--config NAME] [--loader NAME] [--option value …]

All options of engine/train.py are understood, and torchrun starts it on several ranks. Nothing is trained: the weights
it moved are thrown away. Writes runs/NAME/lr-finder/sweep.png and sweep.json.
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

import argparse
import dataclasses
import json
from collections.abc import Sequence

from engine.command_line import OwnOptions
from engine.config import Config
from engine.dist import run_and_end, start_ranks, stop_ranks
from engine.finders.learning_rate import Suggestion, Sweep, SweepSettings, find_learning_rates, suggest
from engine.reporting.display import Display
from engine.reporting.writing import OR_ELSEWHERE, writing
from engine.safeguards.exit_status import exit_status
from loaders.atomic import atomic_file
from loaders.errors import FeedrateError
from tools.plots import lr_sweep
from tools.plots.picture import save

_DEFAULTS = SweepSettings()
_OPTION_OF = {
    "num_updates": "--updates",
    "lowest_rate": "--lowest-rate",
    "smoothing_updates": "--smoothing-updates",
}


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status: 0 done, 2 bad input, and what else `exit_status` says."""
    return exit_status(lambda: _find(arguments))  # what it writes is whole or not there, and said


def _find(arguments: Sequence[str]) -> int:
    chosen, read_config = _options().split(arguments)
    settings = _settings(chosen)
    config = read_config()
    ranks = start_ranks(config.execution.device)
    display = Display(ranks.is_main)
    swept = find_learning_rates(config, ranks, settings, display.say)
    suggestion = suggest(swept)
    _tell(display, swept, suggestion)  # first: this cannot fail for a full disk
    if ranks.is_main:
        _write(Path(config.run.folder) / config.name / "lr-finder", swept, suggestion, config)
    stop_ranks()
    return 0


def _options() -> OwnOptions:
    own = OwnOptions(__doc__)
    add = own.add_argument
    add("--lowest-rate", type=float, default=_DEFAULTS.lowest_rate, metavar="R", help="to start from (1e-6)")
    add("--highest-rate", type=float, default=_DEFAULTS.highest_rate, metavar="R", help="to end with (10)")
    add("--updates", type=int, default=_DEFAULTS.num_updates, metavar="N", help="from one to the other (200)")
    add("--growth", choices=("exponential", "linear"), default=_DEFAULTS.growth, help="of the rate (exponential)")
    smoothing = _DEFAULTS.smoothing_updates
    add("--smoothing-updates", type=int, default=smoothing, metavar="N", help=f"loss is a mean over N ({smoothing})")
    return own


def _settings(chosen: argparse.Namespace) -> SweepSettings:
    """Raises FeedrateError, of the option, for a value that cannot be."""
    try:
        return SweepSettings(
            chosen.lowest_rate, chosen.highest_rate, chosen.updates, chosen.growth, chosen.smoothing_updates
        )
    except FeedrateError as error:
        setting, space, rest = str(error).partition(" ")
        raise FeedrateError(_OPTION_OF.get(setting, setting) + space + rest) from error


def _write(folder: Path, swept: Sweep, suggestion: Suggestion | str, config: Config) -> None:
    """Raises FeedrateError where the folder cannot be written."""
    suggested = None if isinstance(suggestion, str) else suggestion
    save(lr_sweep.figure_of(swept, suggested, config.name), folder / "sweep.png", OR_ELSEWHERE)
    content = {
        "suggestion": None if suggested is None else dataclasses.asdict(suggested),
        **dataclasses.asdict(swept),
        "smoothed": swept.smoothed().tolist(),
        "config": dataclasses.asdict(config),
    }
    with writing(folder / "sweep.json", OR_ELSEWHERE), atomic_file(folder / "sweep.json") as file:
        file.write(json.dumps(content, indent=1).encode() + b"\n")
    print(f"written to {folder / 'sweep.png'} and sweep.json")


def _tell(display: Display, swept: Sweep, suggestion: Suggestion | str) -> None:
    display.say(f"{len(swept.rates)} updates; {swept.ending}")
    if isinstance(suggestion, str):
        display.say(f"no suggestion: {suggestion}; try another range, more --updates or a larger batch")
        return
    display.say(
        f"suggested: between {suggestion.minimum:.2g} and {suggestion.maximum:.2g}, such as --optim.learning-rate"
        f" {suggestion.maximum:.2g}; the loss was lowest at {suggestion.lowest_loss_at:.2g}"
    )
    display.say(suggestion.derivation)


if __name__ == "__main__":
    end_early_no_more()
    run_and_end(lambda: main(sys.argv[1:]))
