"""Standard output and error that may fail, while the work goes on: a full disk, a reader or a terminal that is gone."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO, cast

UNSAID = 120  # the status, Python's own for it, of a command whose answer cannot be written


class MayFail:
    """A text stream to which printing raises nothing: from its first OSError on, what is written to it is lost.

    What is written past it, to its `buffer` or its file, may fail as ever.

    tell    hears that error, once
    but_for kinds of it that are raised all the same
    """

    def __init__(
        self, stream: TextIO, tell: Callable[[OSError], None], but_for: tuple[type[OSError], ...] = ()
    ) -> None:
        self._stream = stream
        self._tell = tell
        self._but_for = but_for
        self.is_lost = False

    def write(self, text: str) -> int:
        self._try(lambda: self._stream.write(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self._try(lambda: self._stream.writelines(lines))

    def flush(self) -> None:
        self._try(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        """All else is the stream's own: whether it is a terminal, its encoding, its file."""
        return getattr(self._stream, name)

    def _try(self, act: Callable[[], object]) -> None:
        if self.is_lost:
            return
        try:
            act()
        except self._but_for:
            raise
        except OSError as error:
            self.is_lost = True
            # what the stream still keeps goes nowhere too, or emptying it when the process ends would fail once more
            with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
            self._tell(error)


@contextlib.contextmanager
def output_may_be_lost(but_for: tuple[type[OSError], ...] = ()) -> Iterator[Callable[[], bool]]:
    """A block in which printing does not fail. Where standard output cannot be written, standard error says so once.

    Gives what tells whether it was lost, to be asked behind the block. `but_for`: as of MayFail, for standard output.
    """
    before = sys.stdout, sys.stderr  # None each where it was closed by who started the process

    def tell(error: OSError) -> None:
        if errors is not None:
            why = error.strerror or error
            errors.write(f"warning: what is printed from here on is lost ({why}), and the command goes on\n")
            errors.flush()

    errors = None if before[1] is None else MayFail(before[1], lambda error: None)
    output = None if before[0] is None else MayFail(before[0], tell, but_for)
    sys.stdout, sys.stderr = cast(TextIO, output), cast(TextIO, errors)
    try:
        yield lambda: output is not None and output.is_lost
        if output is not None:
            output.flush()
    finally:
        sys.stdout, sys.stderr = before


def status_and_loss(command: Callable[[], int]) -> tuple[int, bool]:
    """Run `command` where printing does not fail. Returns the status that it returns or exits with, as after its help,
    and whether what it printed was lost: where nobody reads it any more, as behind `| head`, SIGPIPE's status and no.
    """
    try:
        with output_may_be_lost(but_for=(BrokenPipeError,)) as is_lost:
            try:
                status = command()
            except SystemExit as told:
                status = int(told.code or 0)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python empties what is kept for it at the end
        return 128 + signal.SIGPIPE, False
    return status, is_lost()
