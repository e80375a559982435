"""What the system refuses a process beyond a limit (threads, processes, open files), in words."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import FeedrateError

_TOO_FEW_FILES = "raise the limit on open files (ulimit -n), or take fewer workers"
_NO_THREAD = "can't start new thread"  # Python's RuntimeError, whatever the system's reason
_REMEDIES = {
    errno.EAGAIN: (  # of fork
        "raise the limit on processes and threads (ulimit -u, or pids.max of a control group), or take fewer workers"
    ),
    errno.EMFILE: _TOO_FEW_FILES,
    errno.ENFILE: _TOO_FEW_FILES,
}


def limit_reached(error: BaseException) -> str:
    """The limit that `error` tells of and its remedy, '' where it tells of none."""
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        return f"the system starts no more threads for this user: {_REMEDIES[errno.EAGAIN]}"
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        at = f" at {error.filename}" if error.filename else ""
        return f"the system refuses more ({error.strerror}{at}): {_REMEDIES[error.errno]}"
    return ""


@contextmanager
def limits_told() -> Iterator[None]:
    """A block in which reaching such a limit is a FeedrateError. For the frames of commands: nothing goes on then."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        if not (sentence := limit_reached(error)):
            raise
        raise FeedrateError(sentence) from error
