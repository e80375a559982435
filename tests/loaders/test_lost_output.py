"""Output that cannot be written: said once, and whatever prints goes on."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from commands import REPOSITORY, TIMEOUT_S, environment

PRINTS = """
import sys
from loaders.lost_output import output_may_be_lost
with output_may_be_lost({how}) as is_lost:
    for number in range(3):
        print("said", number, flush=True)
    if sys.stdout is not None:
        sys.stdout.writelines(["and", "more"])
    print("not emptied before the end")
sys.exit(7 if is_lost() else 3)
"""
TEXT = r"'2 \xd7 3 \udce4'"  # a sign, and a byte of a file's name that is no text
TOLD = "warning: what is printed from here on is lost ({}), and the command goes on\n"


def _ended(script, stdout, stderr=subprocess.PIPE, unbuffered=""):
    process = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env=environment(PYTHONUNBUFFERED=unbuffered),
        stdout=stdout,
        stderr=stderr,
        text=True,
        timeout=TIMEOUT_S,
    )
    return process.returncode, process.stderr


@pytest.fixture
def unread():
    """The mouth of a pipe that nobody reads."""
    nobody, mouth = os.pipe()
    os.close(nobody)
    with os.fdopen(mouth, "wb") as file:
        yield file


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is missing")
def test_a_full_disk_is_told_once_and_the_status_is_the_commands_own(unbuffered):
    with open("/dev/full", "wb") as full:
        assert _ended(PRINTS.format(how=""), full, unbuffered=unbuffered) == (
            7,
            TOLD.format("No space left on device"),
        )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_so_is_a_reader_that_is_gone(unread, unbuffered):
    assert _ended(PRINTS.format(how=""), unread, unbuffered=unbuffered) == (7, TOLD.format("Broken pipe"))


def test_with_nobody_to_tell_it_goes_on_all_the_same(unread):
    assert _ended(PRINTS.format(how=""), unread, unread)[0] == 7


def test_who_needs_a_reader_ends_without_one(unread):
    status, told = _ended(PRINTS.format(how="needs_a_reader=True"), unread)
    assert status != 7 and told.endswith("ReaderGone\n")


FRAMED = """
import os, sys
from rich.console import Console
from loaders.lost_output import output_may_be_lost, status_and_loss
def command():
    {body}
    return 0
status, is_lost = status_and_loss(command)
sys.exit(9 if is_lost else status)
"""


@pytest.mark.parametrize("body", ["print('said')", "Console().print('said')", "sys.stdout.writelines(['said'])"])
def test_a_command_whose_reader_is_gone_ends_with_sigpipes_status_whatever_prints(unread, body):
    assert _ended(FRAMED.format(body=body), unread) == (141, "")


def test_words_that_peoples_own_code_leaves_with_are_said():
    assert _ended(FRAMED.format(body="sys.exit('no weights here')"), subprocess.DEVNULL) == (1, "no weights here\n")


def test_another_pipe_that_breaks_is_no_reader_that_is_gone():
    body = "ends = os.pipe(); os.close(ends[0]); os.write(ends[1], b'x')"
    status, told = _ended(FRAMED.format(body=body), subprocess.DEVNULL)
    assert status == 1 and told.endswith("BrokenPipeError: [Errno 32] Broken pipe\n")


def test_a_block_inside_another_keeps_its_loss_to_itself(unread):
    """As training does, whose folder holds all that it says, within the frame of a command."""
    body = "with output_may_be_lost(): print('said', flush=True)"
    with open("/dev/full", "wb") as full:
        for output, why in ((full, "No space left on device"), (unread, "Broken pipe")):
            assert _ended(FRAMED.format(body=body), output) == (0, TOLD.format(why))


def test_where_it_can_be_written_nothing_is_said_of_it():
    assert _ended(PRINTS.format(how=""), subprocess.DEVNULL) == (3, "")


@pytest.mark.parametrize("closed", ["sys.stdout", "sys.stderr"])
def test_output_closed_from_the_start_is_left_alone(closed):
    script = f"import sys; {closed} = None\n{PRINTS.format(how='')}"
    assert _ended(script, subprocess.DEVNULL) == (3, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_each_line_is_written_at_once_with_its_end(unbuffered):
    """Each write to a socket of packets is a packet. The lines of two ranks ran together where the end came apart."""
    script = "import sys\n" + "\n".join(
        (
            "from loaders.lost_output import output_may_be_lost",
            "with output_may_be_lost():",
            "    print('error', 'of a rank', file=sys.stderr)",
            "    print('and more', file=sys.stderr)",
            "    print('a line that has no end', end='', file=sys.stderr)",
            "print('after', file=sys.stderr)",
        )
    )
    reads, writes = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with reads, writes:
        assert _ended(script, subprocess.DEVNULL, writes.fileno(), unbuffered)[0] == 0
        writes.close()
        packets = list(iter(lambda: reads.recv(1000), b""))
    assert b"".join(packets) == b"error of a rank\nand more\na line that has no endafter\n"
    assert packets[:2] == [b"error of a rank\n", b"and more\n"]


@pytest.mark.parametrize(
    "locale",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
@pytest.mark.parametrize("body", ["print({})", "Console().print({})", "sys.stdout.writelines([{}, chr(10)])"])
def test_what_the_encoding_has_no_sign_for_is_escaped(locale, body):
    script = (
        "import sys\nfrom rich.console import Console\nfrom loaders.lost_output import output_may_be_lost\n"
        f"with output_may_be_lost():\n    {body.format(TEXT)}\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env=environment(**locale),
        capture_output=True,
        timeout=TIMEOUT_S,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.rstrip() == rb"2 \xd7 3 \udce4"
