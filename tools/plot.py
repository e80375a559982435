"""Draw a picture.

python tools/plot.py schedule [--config NAME] [--steps-per-epoch N] [--out FILE] [--option value …]
python tools/plot.py runs FOLDER … [--group PATTERN] [--out FILE]
python tools/plot.py confusion FOLDER [--out FILE]

`schedule` draws the learning rate of a configuration against epochs, without reading data; all options of
engine/train.py are understood. `runs` draws loss, top-1, learning rate and img/s of runs side by side, `confusion` the
confusion matrix of a run's newest evaluation.
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

from collections.abc import Callable, Sequence

from engine.safeguards.exit_status import exit_status
from loaders.errors import FeedrateError, did_you_mean
from tools.plots import confusion, runs, schedule

PLOTS: dict[str, Callable[[Sequence[str]], Path]] = {
    "schedule": schedule.run,
    "runs": runs.run,
    "confusion": confusion.run,
}


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status: 0 done, 2 bad input, and what else `exit_status` says."""
    return exit_status(lambda: _draw(arguments), "nothing was written")


def _draw(arguments: Sequence[str]) -> int:
    name = arguments[0] if arguments else ""
    if name in ("-h", "--help"):
        print(__doc__)
        return 0
    if name not in PLOTS:
        raise FeedrateError(f"no plot '{name}': {did_you_mean(name, PLOTS)}known are {', '.join(PLOTS)}")
    print(f"written to {PLOTS[name](arguments[1:])}")
    return 0


if __name__ == "__main__":
    end_early_no_more()
    sys.exit(main(sys.argv[1:]))
