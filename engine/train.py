"""Train an image classifier.

torchrun engine/train.py [--config NAME] [--loader NAME] [--option value …]
python engine/train.py   [--config NAME] [--loader NAME] [--option value …]
"""

import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__" and not sys.flags.safe_path:
    # Python put engine/ first, where modules could hide the standard library's and `loaders` is not found
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from engine.safeguards.early_end import end_early

if __name__ == "__main__":
    end_early()  # the imports below take seconds; StopRequest takes over from it

from engine.build import build_run
from engine.command_line import parse_config
from engine.config import Config
from engine.dist import is_lost_rank, run_and_end, start_ranks, stop_ranks
from engine.loop import Run, train
from engine.reporting.display import Display
from engine.safeguards.interrupt import Stopped, StopRequest
from loaders.errors import FeedrateError, first_line
from loaders.lost_output import UNSAID, output_may_be_lost, status_and_loss
from loaders.system_limits import limits_told


def main(arguments: list[str]) -> int:
    """Run the command; returns its exit status: 0 done, 2 bad input, 1 another rank is gone, 128 + n
    stopped by signal n, 120 where the help that was asked for cannot be written.

    Not by `exit_status`, as the commands of tools/ do it: StopRequest takes Ctrl-C, to save first, and one that comes
    before it is for `end_early`; a rank that is gone or that only repeats an error has its own sentence, or none.
    """
    status, is_lost = status_and_loss(lambda: _main(arguments, int(os.environ.get("RANK", "0"))))
    return status or (UNSAID if is_lost else 0)


def _main(arguments: list[str], rank: int) -> int:
    try:
        config = parse_config(arguments, speaks=rank == 0)
    except FeedrateError as error:
        if rank == 0:  # every rank parses the same words
            print(f"error: {error}", file=sys.stderr)
        return 2
    with output_may_be_lost():  # the run's folder holds all of it
        return _run(config, rank)


def _run(config: Config, rank: int) -> int:
    """The run, and how it ended. Returns the exit status."""
    stop = StopRequest()
    try:
        with limits_told():
            ranks = start_ranks(config.execution.device, config.run.hang_timeout_s)
            with build_run(config, ranks, Display(ranks.is_main), stop) as run:
                status = _train(run)
        stop_ranks()  # all of them come here; after an error it could wait for ever for those that do not
        return status
    except FeedrateError as error:
        where = f" (rank {rank})" if rank else ""
        print(f"error{where}: {error}", file=sys.stderr)
        return 2
    except Stopped:
        if rank == 0:
            print("stopped before the first step: nothing is lost, the same command starts again", file=sys.stderr)
        return 128 + (stop.signal or signal.SIGTERM)
    except RuntimeError as error:
        if not is_lost_rank(error):
            raise
        print(
            f"error (rank {rank}): another rank is gone ({first_line(error)}):"
            " the same command goes on from the newest checkpoint",
            file=sys.stderr,
        )
        return 1
    finally:
        stop.restore()


def _train(run: Run) -> int:
    """Train to the end, or to where all ranks agree to stop, and say which. Returns the exit status."""
    if train(run):
        run.display.say(f"done: {run.folder.path}")
        return 0
    assert run.stop.signal is not None or run.ranks.world_size > 1
    run.display.say(
        f"stopped in epoch {run.progress.epoch + 1} after batch {run.progress.batch} of {len(run.data.train)};"
        f" the checkpoint is in {run.folder.checkpoints}: the same command goes on from there"
    )
    return 128 + (run.stop.signal or signal.SIGTERM)


if __name__ == "__main__":
    run_and_end(lambda: main(sys.argv[1:]))
