"""What the system refuses beyond a limit is a sentence and status 2, and no traceback."""

import errno
import multiprocessing
import resource
import subprocess
import sys
from multiprocessing.context import BaseContext

import pytest
from commands import REPOSITORY, TIMEOUT_S
from limited_run import open_wanted

from engine import train
from engine.safeguards.exit_status import exit_status
from loaders.errors import LoaderError
from loaders.system_limits import limit_reached


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "ulimit -u"),
        (OSError(errno.EMFILE, "Too many open files", "a.jpg"), "ulimit -n"),
        (OSError(errno.ENFILE, "Too many open files in system"), "ulimit -n"),
    ],
)
def test_a_limit_that_is_reached_names_the_limit_and_ends_with_status_2(error, remedy, capsys):
    def command():
        raise error

    assert exit_status(command) == 2
    told = capsys.readouterr().err
    assert told == f"error: {limit_reached(error)}\n" and remedy in told


def test_training_ends_so_too(monkeypatch, capsys):
    def refused(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(train, "build_run", refused)
    assert train.main(["--execution.device", "cpu"]) == 2
    assert "error: the system starts no more threads" in capsys.readouterr().err


@pytest.mark.parametrize("error", [RuntimeError("a bug"), OSError(errno.EIO, "Input/output error"), ValueError("no")])
def test_any_other_error_stays_what_it_is(error):
    def command():
        raise error

    assert limit_reached(error) == ""
    with pytest.raises(type(error), match=str(error.args[-1])):
        exit_status(command)


@pytest.mark.parametrize(
    ("which", "limit", "told"),
    [(resource.RLIMIT_NOFILE, 12, "ulimit -n"), (resource.RLIMIT_FSIZE, 4096, "ulimit -f")],
)
def test_packing_within_too_low_a_limit_ends_with_a_sentence(image_folder, tmp_path, which, limit, told):
    command = [
        sys.executable,
        "tools/convert.py",
        "folder",
        "--source",
        str(image_folder),
        "--out",
        str(tmp_path / "p"),
    ]
    done = subprocess.run(
        [*command, "--workers", "4"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        preexec_fn=lambda: resource.setrlimit(which, (limit, limit)),
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and told in done.stderr


@pytest.mark.parametrize(
    ("number", "error", "told"), [(errno.ENOSPC, LoaderError, "/dev/shm has no room"), (errno.EMFILE, OSError, "files")]
)
def test_workers_that_cannot_all_be_started_are_ended_and_torch_says_nothing(
    image_folder, monkeypatch, number, error, told
):
    loader = open_wanted(str(image_folder), {"loader": "torchvision", "resize": "exact"})
    real, asked, unraisable = BaseContext.Queue, [], []

    def queue(self, *arguments, **named):
        asked.append(1)
        if len(asked) == 3:  # those of all workers' answers, and of the first one's jobs, are there
            raise OSError(number, "too many files")
        return real(self, *arguments, **named)

    monkeypatch.setattr(BaseContext, "Queue", queue)
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    with pytest.raises(error, match=told):
        next(iter(loader.epoch(0)))
    loader.close()
    assert not multiprocessing.active_children() and not unraisable
