"""A run that hangs is found, told with its stacks, and ended; one that is slow is left alone."""

import json
import os
import threading
import time

import psutil
from commands import REPOSITORY, TIMEOUT_S, TRAIN, environment, kill_all, short_options, start, torchrun
from short_runs import ONE_RANK

from engine.dist import Ranks
from engine.safeguards.watchdog import HANG_STATUS, Watchdog, WatchedLoader


class NotesOfOthers:
    """A board on which the test writes for the other ranks."""

    def __init__(self, read):
        self.read = read

    def write(self, text):
        pass


def _watchdog(timeout_s, ended, ranks=ONE_RANK):
    return Watchdog(timeout_s, ranks, lambda: "step-7.pt", ended.set)


def test_standing_still_for_too_long_ends_the_process_and_shows_where_it_stood(capfd):
    ended = threading.Event()
    with _watchdog(0.5, ended) as watchdog:
        watchdog.end_start()
        watchdog.at("waiting for batch 3")
        assert ended.wait(60)
    told = capfd.readouterr().err
    assert "error (rank 0): nothing has moved for " in told and "Rank 0 is waiting for batch 3." in told
    assert "The newest checkpoint is step-7.pt: the same command goes on from there." in told
    assert "test_standing_still_for_too_long" in told  # the stack of the main thread


def test_moving_keeps_it_quiet_however_long_it_takes():
    ended = threading.Event()
    with _watchdog(2.0, ended) as watchdog:
        watchdog.end_start()
        for number in range(15):
            watchdog.at(f"batch {number}")
            time.sleep(0.2)
    assert not ended.is_set()


def test_the_start_may_take_longer():
    ended = threading.Event()
    with _watchdog(0.2, ended):
        assert not ended.wait(1)


def test_no_timeout_means_no_thread():
    before = threading.active_count()
    with _watchdog(0, threading.Event()) as watchdog:
        watchdog.at("anything")
        assert threading.active_count() == before


def test_it_leaves_no_thread_behind():
    before = threading.active_count()
    with _watchdog(30, threading.Event()):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_a_rank_that_waits_for_others_which_move_is_left_alone_and_ended_when_they_stop(capfd, monkeypatch):
    from engine.safeguards import watchdog as module

    moves = {"count": 0, "naps": 0}
    still = threading.Event()

    def read():
        moves["naps"] += 1
        moves["count"] += not still.is_set()
        other = json.dumps({"moves": moves["count"], "naps": moves["naps"], "stage": "writing"})
        return ['{"moves": 1, "naps": 1, "stage": "waiting"}', other, '{"moves": 1, "naps": 5, "stage": "stopping"}']

    monkeypatch.setattr(module, "Board", lambda ranks: NotesOfOthers(read))
    ended = threading.Event()
    with _watchdog(0.5, ended, Ranks(0, 3, 0, 3, ONE_RANK.device)) as watchdog:
        watchdog.end_start()
        assert not ended.wait(2)
        still.set()
        assert ended.wait(60)
    told = capfd.readouterr().err
    assert "Rank 1 is writing." in told
    assert "Rank 2 is SILENT (stopped, dead or out of reach), last stopping." in told


def test_a_watched_loader_is_the_same_loader_and_tells_every_batch():
    class Five:
        name = "five"
        closed = 0

        def __len__(self):
            return 5

        def epoch(self, index, start=0):
            return (number for number in range(start, 5))

        def identity(self):
            return {"stream": 1}

        def close(self):
            self.closed += 1

    stages, obeyed = [], []
    five = Five()

    class Noting:
        at = staticmethod(stages.append)

    watched = WatchedLoader(five, "of a test", Noting(), lambda: obeyed.append(1))
    assert list(watched.epoch(0, 3)) == [3, 4] and len(watched) == 5 and watched.identity() == {"stream": 1}
    assert stages == [
        "waiting for batch 4 of 5 of a test",
        "working on batch 4 of 5 of a test",
        "waiting for batch 5 of 5 of a test",
        "working on batch 5 of 5 of a test",
        "at the end of a test",
    ]
    assert len(obeyed) == 2
    watched.close()
    assert five.closed == 1


def test_a_rank_that_hangs_is_named_with_its_stack_and_every_rank_ends(image_folder, tmp_path, monkeypatch):
    """Rank 1 really blocks: it opens a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "fifo")
    monkeypatch.setenv("FEEDRATE_TEST_FIFO", str(tmp_path / "fifo"))
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tests"))
    assert "FEEDRATE_TEST_FIFO" in environment()
    # long beside a checkpoint to a slow disk
    more = {"loader": "hanging_loader:HangingLoader", "run.hang-timeout-s": 20}
    process = start(torchrun(2, TRAIN, *short_options(image_folder, tmp_path / "runs", **more)))
    try:
        family: set[psutil.Process] = set()
        deadline = time.monotonic() + TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline:
            family.update(psutil.Process(process.pid).children(recursive=True))
            time.sleep(0.2)
        output, _ = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            kill_all(process)
    assert process.returncode != 0
    assert "Rank 1 is waiting for batch 4 of 6 of an epoch." in output, output
    assert "hanging_loader.py" in output  # the stack of the thread that blocks
    assert "step-00000003.pt: the same command goes on from there" in output
    assert f"exitcode  : {HANG_STATUS}" in output
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive and len(family) >= 2
