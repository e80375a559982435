"""How the commands of tools/ end: bad input and Ctrl-C are one sentence and a status, and no traceback.

Two commands have a frame of their own. engine/train.py saves a checkpoint before a signal ends it, and all its ranks
end together. what tools/convert.py calls may not import the engine.
"""

import sys
from collections.abc import Callable

from loaders.ending_signals import status_of
from loaders.errors import FeedrateError
from loaders.lost_output import UNSAID, status_and_loss
from loaders.system_limits import limits_told


def exit_status(
    command: Callable[[], int], if_interrupted: str = "", rank: int = 0, kept: Callable[[], str] = lambda: ""
) -> int:
    """Run `command`; returns what it does, or 2 where it raises FeedrateError, 130 where Ctrl-C ends it, 128 + n
    where signal n does by `unwind_at_signals`, SIGPIPE's where who reads what it says is gone, and 120 where that
    cannot be written otherwise, which ends nothing.

    if_interrupted  what is said then, beside that it was; nothing more where it is empty
    rank            is named in an error, where it is not 0
    kept            asked when one of both happens: what the command leaves behind already. It is said with an error,
                    and instead of `if_interrupted`
    """
    status, is_lost = status_and_loss(lambda: _framed(command, if_interrupted, rank, kept))
    return status or (UNSAID if is_lost else 0)


def _framed(command: Callable[[], int], if_interrupted: str, rank: int, kept: Callable[[], str]) -> int:
    try:
        with limits_told():
            return command()
    except FeedrateError as error:
        where = f" (rank {rank})" if rank else ""
        print("; ".join(filter(None, (f"error{where}: {error}", kept()))), file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        print(": ".join(filter(None, ("interrupted", kept() or if_interrupted))), file=sys.stderr)
        return status_of(interrupt)
