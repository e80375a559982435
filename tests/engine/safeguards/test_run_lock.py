"""One training at a time in a folder: whoever comes second is told so, and whoever comes after a killed one goes on."""

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from commands import TIMEOUT_S, TRAIN, kill_all, run, short_options, start, torchrun, wait_for
from short_runs import ONE_RANK, outcome, run_to_end, short_config

from engine import build as build_module
from engine.checkpointing.saving import Saver
from engine.dist import Ranks
from engine.safeguards import run_lock
from engine.safeguards.run_lock import LOCK_NAME, RunLock
from loaders.errors import FeedrateError


def _lock(folder):
    return RunLock(folder, ONE_RANK, patience_s=0.0)


def _refused(folder):
    """The sentence by which a second run is refused there."""
    with _lock(folder) as second, pytest.raises(FeedrateError) as raised:
        second.hold()
    return str(raised.value)


def until(is_so):
    deadline = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _has_open(process, name):
    try:
        return any(path.endswith(f"/{name}") for path in map(os.readlink, Path(f"/proc/{process.pid}/fd").glob("*")))
    except FileNotFoundError:  # one of them was closed meanwhile
        return True


def test_a_run_whose_folder_is_removed_or_replaced_writes_nothing_into_what_is_there_then(
    image_folder, tmp_path, monkeypatch
):
    config = short_config(image_folder, tmp_path)
    folder, really = tmp_path / "short", Saver.save

    def replaced(saver):
        shutil.rmtree(folder)
        with _lock(folder) as another:
            another.make_and_hold()
        really(saver)

    monkeypatch.setattr(Saver, "save", replaced)
    with pytest.raises(FeedrateError, match="short was removed or replaced while the run wrote there"):
        run_to_end(config)
    assert [path.name for path in folder.iterdir()] == [LOCK_NAME]
    with _lock(tmp_path / "other") as held:
        held.make_and_hold()
        shutil.rmtree(tmp_path / "other")
        with pytest.raises(FeedrateError, match="other was removed or replaced"):
            held.make_and_hold()


def test_the_lock_of_another_machine_may_be_deleted_if_that_is_gone(tmp_path):
    with _lock(tmp_path) as first:
        first.hold()
        assert "delete" not in _refused(tmp_path)
        (tmp_path / LOCK_NAME).write_text("process 7 on elsewhere\n")
        assert _refused(tmp_path).endswith(f"if that machine is gone for good, delete {tmp_path / LOCK_NAME}")


def test_the_second_is_refused_by_a_sentence_that_names_the_first_and_may_come_after_it(tmp_path):
    with _lock(tmp_path) as first:
        first.hold()
        first.make_and_hold()  # again: it is held already
        assert _refused(tmp_path) == (
            f"another process is training in {tmp_path} (process {os.getpid()} on {socket.gethostname()}): wait until"
            " it is done, end it, or give another --name"
        )
    with _lock(tmp_path) as after:
        after.hold()


def test_where_there_is_no_folder_none_is_made_before_all_has_been_checked(tmp_path):
    folder = tmp_path / "runs" / "new"
    with _lock(folder) as first:
        first.hold()
        assert not folder.exists()
        first.make_and_hold()
        assert "another process is training" in _refused(folder)


class _Second(Ranks):
    """The second of two ranks, of which the main one has nothing to complain of."""

    def largest(self, values):
        return list(values)


def test_a_rank_on_another_machine_makes_its_own_folder_and_holds_nothing(tmp_path):
    folder, second = tmp_path / "runs" / "new", _Second(1, 2, 1, 2, torch.device("cpu"))
    with RunLock(folder, second) as lock:
        lock.hold()
        assert not folder.exists()
        lock.make_and_hold()
        assert folder.is_dir() and not list(folder.iterdir())


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "runs").write_text("no folder")
    with (
        _lock(tmp_path / "runs" / "new") as first,
        pytest.raises(FeedrateError, match=r"the run's folder .*/runs/new cannot be made: .*Not a directory"),
    ):
        first.make_and_hold()


def test_a_run_that_began_and_ended_while_this_one_started_is_not_written_over(tmp_path):
    folder = tmp_path / "new"
    with _lock(folder) as slow:
        slow.hold()
        (folder / "checkpoints").mkdir(parents=True)
        (folder / "checkpoints" / "step-00000001.pt").write_bytes(b"of another")
        with pytest.raises(
            FeedrateError, match="has trained in .* since this one started: give the same command again"
        ):
            slow.make_and_hold()


def test_a_forked_process_that_outlives_the_run_does_not_hold_its_lock(tmp_path):
    hears, tells = os.pipe()
    with _lock(tmp_path) as first:
        first.hold()
        child = os.fork()
        if child == 0:
            os.close(tells)
            os.read(hears, 1)  # until the parent closes its end
            os._exit(0)
        assert "another process is training" in _refused(tmp_path), "that the child let go costs the parent nothing"
    try:
        with _lock(tmp_path) as after:
            # the child may not have run yet: as long as it takes to come to its first line
            after._patience_s = 60.0
            after.hold()
        assert psutil.pid_exists(child)
    finally:
        os.close(tells)
        os.waitpid(child, 0)
        os.close(hears)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_trained_on(tmp_path, monkeypatch, number):
    def unknown(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", unknown)
    with _lock(tmp_path) as first, _lock(tmp_path) as second:
        first.hold()
        second.hold()


def test_a_full_disk_takes_the_name_and_not_the_lock(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(run_lock.os, "pwrite", full)
    with _lock(tmp_path) as first:
        first.hold()
        assert f"another process is training in {tmp_path}: wait" in _refused(tmp_path)


def test_a_folder_that_takes_no_file_is_one_sentence(tmp_path):
    (tmp_path / LOCK_NAME).mkdir()
    with (
        _lock(tmp_path) as first,
        pytest.raises(FeedrateError, match=r"cannot be written \(Is a directory\): .* permit it, or give another"),
    ):
        first.hold()


def test_a_run_holds_it_from_before_it_looks_for_a_checkpoint_until_its_end(image_folder, tmp_path, monkeypatch):
    config = short_config(image_folder, tmp_path, epochs=1)
    told, really = [], build_module._find_checkpoint

    def seen(*arguments):
        told.append(_refused(tmp_path / "short"))
        return really(*arguments)

    run_to_end(config)
    monkeypatch.setattr(build_module, "_find_checkpoint", seen)
    run_to_end(config)
    assert len(told) == 1 and "another process is training" in told[0]
    with _lock(tmp_path / "short") as after:
        after.hold()


def test_a_run_that_is_suspended_keeps_its_folder_and_goes_on_to_the_same_bits(image_folder, tmp_path):
    command = [sys.executable, TRAIN, *short_options(image_folder, tmp_path / "twice", epochs=15)]
    folder = tmp_path / "twice" / "ddp"
    first = start(command)
    try:
        wait_for(folder / "checkpoints" / "step-00000001.pt", first)
        first.send_signal(signal.SIGSTOP)
        until(lambda: psutil.Process(first.pid).status() == psutil.STATUS_STOPPED)
        before = sorted(path.name for path in folder.rglob("*"))
        second = run(command)
        assert second.returncode == 2, second.stdout + second.stderr
        who = f"process {first.pid} on {socket.gethostname()}"
        assert second.stderr == (
            f"error: another process is training in {folder} ({who}): wait until it is done, end it, or give another"
            " --name\n"
        )
        assert sorted(path.name for path in folder.rglob("*")) == before
        first.send_signal(signal.SIGCONT)
        output, _ = first.communicate(timeout=TIMEOUT_S)
    finally:
        if first.poll() is None:
            kill_all(first)
    assert first.returncode == 0, output
    assert run([sys.executable, TRAIN, *short_options(image_folder, tmp_path / "once", epochs=15)]).returncode == 0
    assert outcome(folder) == outcome(tmp_path / "once" / "ddp")


def test_all_ranks_are_refused_and_none_waits_for_another(image_folder, tmp_path):
    (tmp_path / "ddp").mkdir()
    with _lock(tmp_path / "ddp") as first:
        first.hold()
        result = run(torchrun(2, TRAIN, *short_options(image_folder, tmp_path)))
    assert result.returncode == 1  # torchrun's own
    told = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert told and all("another process is training" in line for line in told), result.stderr
    assert (
        "exitcode  : 2" in result.stderr and 'Traceback (most recent call last):\n  File "' + TRAIN not in result.stderr
    )
    assert {path.name for path in (tmp_path / "ddp").iterdir()} == {LOCK_NAME}


def test_the_same_command_goes_on_at_once_after_a_kill_though_workers_still_live(image_folder, tmp_path):
    command = [sys.executable, TRAIN, *short_options(image_folder, tmp_path, loader="torchvision", epochs=15)]
    killed = start(command)
    wait_for(tmp_path / "ddp" / "checkpoints" / "step-00000002.pt", killed)
    workers = []
    while not workers:  # between two epochs there may be none
        assert killed.poll() is None
        killed.send_signal(signal.SIGSTOP)
        workers = psutil.Process(killed.pid).children(recursive=True)
        if not workers:
            killed.send_signal(signal.SIGCONT)
    try:
        # one that has just been forked lets go of the lock as the first thing it does
        until(lambda: not any(_has_open(worker, LOCK_NAME) for worker in workers))
        for worker in workers:
            worker.suspend()  # so that they live on
        killed.kill()
        killed.wait()
        assert all(worker.is_running() for worker in workers)
        result = run(command)
        assert result.returncode == 0 and "going on in epoch" in result.stdout, result.stderr
        assert all(worker.is_running() for worker in workers)
    finally:
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
        killed.stdout.close()
