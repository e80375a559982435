"""Standard output and error that may fail, while the work goes on: a full disk, a reader or a terminal that is gone."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO, cast

UNSAID = 120  # the status, Python's own for it, of a command whose answer cannot be written


class ReaderGone(BaseException):
    """Nobody reads standard output any more. No OSError, which libraries that print would take for their own matter."""


class MayFail:
    """A text stream to which printing raises nothing: from its first OSError on, what is written to it is lost.

    What is written past it, to its `buffer` or its file, may fail as ever.

    stream           where that is one of these, the stream of that one, which then has no part in it
    tell             hears that error, once
    needs_a_reader   a pipe that nobody reads any more raises ReaderGone all the same
    """

    def __init__(self, stream: TextIO, tell: Callable[[OSError], None], needs_a_reader: bool = False) -> None:
        self._stream: TextIO = stream._stream if isinstance(stream, MayFail) else stream
        self._tell = tell
        self._needs_a_reader = needs_a_reader
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
        except OSError as error:
            self.is_lost = True
            # what the stream still keeps goes nowhere too, or emptying it when the process ends would fail once more
            with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self._stream.fileno())
            if self._needs_a_reader and isinstance(error, BrokenPipeError):
                raise ReaderGone from error
            self._tell(error)


@contextlib.contextmanager
def output_may_be_lost(needs_a_reader: bool = False) -> Iterator[Callable[[], bool]]:
    """A block in which printing does not fail. Where standard output cannot be written, standard error says so once.

    Each line is written at once, its end with it, also where Python is told not to buffer: what several ranks say at a
    time would run together. What the streams' encoding has no sign for is written escaped, as in `\\xd7`.
    Gives what tells whether it was lost, to be asked behind the block: of blocks in one another the innermost knows.
    `needs_a_reader`: as of MayFail, for standard output.
    """
    before = sys.stdout, sys.stderr  # None each where it was closed by who started the process

    def tell(error: OSError) -> None:
        if errors is not None:
            why = error.strerror or error
            errors.write(f"warning: what is printed from here on is lost ({why}), and the command goes on\n")
            errors.flush()

    errors = None if before[1] is None else MayFail(before[1], lambda error: None)
    output = None if before[0] is None else MayFail(before[0], tell, needs_a_reader)
    sys.stdout, sys.stderr = cast(TextIO, output), cast(TextIO, errors)
    try:
        with _escaping(output), _in_whole_lines(output), _in_whole_lines(errors):
            yield lambda: output is not None and output.is_lost
            if output is not None:
                output.flush()
    finally:
        sys.stdout, sys.stderr = before


@contextlib.contextmanager
def _escaping(stream: MayFail | None) -> Iterator[None]:
    """A block in which no character is an error to a stream, as none is to standard error: neither names of files nor
    the × between two sides need be in the encoding that the environment asks for."""
    before = getattr(stream, "errors", None)
    if before not in ("strict", "surrogateescape") or not hasattr(stream, "reconfigure"):
        yield
        return
    assert stream is not None
    stream.flush()  # where it may fail, as below: reconfiguring empties it
    stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        stream.flush()
        stream.reconfigure(errors=before)


@contextlib.contextmanager
def _in_whole_lines(stream: MayFail | None) -> Iterator[None]:
    """A block in which a stream that passes on each part of a line (`python -u`) passes on whole lines instead."""
    if not getattr(stream, "write_through", False):  # no stream, one that is buffered, or one of people's own
        yield
        return
    assert stream is not None
    before = stream.line_buffering
    stream.reconfigure(line_buffering=True, write_through=False)
    try:
        yield
    finally:
        stream.flush()  # where it may fail
        stream.reconfigure(line_buffering=before, write_through=True)


def status_and_loss(command: Callable[[], int]) -> tuple[int, bool]:
    """Run `command` where printing does not fail. Returns the status that it returns or exits with, as after its help,
    and whether what it printed was lost: where nobody reads it any more, as behind `| head`, SIGPIPE's status and no.
    """
    try:
        with output_may_be_lost(needs_a_reader=True) as is_lost:
            try:
                status = command()
            except SystemExit as told:
                if not isinstance(told.code, int | None):  # words, as people's own code may leave with
                    print(told.code, file=sys.stderr)
                    return 1, is_lost()
                status = told.code or 0
    except ReaderGone:
        return 128 + signal.SIGPIPE, False
    return status, is_lost()
