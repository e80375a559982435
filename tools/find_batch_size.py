"""Find the largest batch that fits into memory.

python tools/find_batch_size.py [--memory-bytes N] [--multiple K] [--config NAME] [--option value …]

Tries whole training steps, doubling the batch until one does not fit, then halving the gap. On a GPU its own memory is
the limit; on a CPU --memory-bytes says it, and each trial is a process of its own. All options of engine/train.py are
understood. What CUDA graphs take they keep, evaluation has to do with the rest: with them, leave some room.
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

from engine.command_line import OwnOptions
from engine.dist import start_ranks
from engine.finders.batch_size import find_batch_size
from engine.safeguards.exit_status import exit_status
from engine.safeguards.memory import gigabytes
from loaders.errors import FeedrateError


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status: 0 found, 2 bad input or nothing fits, and what else
    `exit_status` says."""
    return exit_status(lambda: _find(arguments))


def _find(arguments: list[str]) -> int:
    own = OwnOptions(__doc__)
    own.add_argument("--memory-bytes", type=int, help="that a step may take; a GPU's own memory where it is not given")
    own.add_argument("--multiple", type=int, default=8, help="of which the batch shall be one (default 8)")
    chosen, read_config = own.split(arguments)
    for option, value in (("--multiple", chosen.multiple), ("--memory-bytes", chosen.memory_bytes)):
        if value is not None and value < 1:
            raise FeedrateError(f"{option} is {value}: it must be 1 or more")
    config = read_config()
    ranks = start_ranks(config.execution.device)
    if ranks.world_size > 1:
        raise FeedrateError("tools/find_batch_size.py tries one rank: start it with python, not with torchrun")
    found = find_batch_size(config, ranks, chosen.memory_bytes, chosen.multiple, print)
    if not found.num_images:
        fewer = "a smaller --multiple, " if chosen.multiple > 1 else ""
        raise FeedrateError(
            f"not even {chosen.multiple} images of {found.size_px} px fit: try {fewer}smaller images (--data.size-px),"
            " another model, or --execution.checkpoint-activations"
        )
    print(
        f"{found.num_images} images of {found.size_px} px a rank fit, at {gigabytes(found.peak_bytes)}:"
        f" --data.batch-size {found.num_images} on one rank, as many times more on several"
    )
    return 0


if __name__ == "__main__":
    end_early_no_more()
    sys.exit(main(sys.argv[1:]))
