"""Signals that ask a run to stop: what is noted, what ends at once, and that nothing of the run is lost."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from commands import REPOSITORY, environment, short_options
from short_runs import ONE_RANK, outcome, run_to_end, short_config

from engine import build as build_module
from engine import train as train_module
from engine.build import build_run
from engine.dist import Ranks
from engine.loop import train
from engine.reporting.display import Display
from engine.safeguards import interrupt
from engine.safeguards.interrupt import STOP_SIGNALS, Lookout, Stopped, StopRequest
from engine.safeguards.watchdog import Watchdog

pytestmark = pytest.mark.usefixtures("sighup_heeded")

# a main thread that cannot run Python: it waits for a lock that it holds itself, and signals do not wake it
STUCK = """
import ctypes, os, sys
from engine.safeguards.interrupt import StopRequest
stop = StopRequest()
if sys.argv[1] == "running":
    stop.end_start()
lock, libc = ctypes.create_string_buffer(256), ctypes.CDLL(None)
print("ready", flush=True)
libc.pthread_mutex_lock(lock)
libc.pthread_mutex_lock(lock)
"""


@pytest.fixture
def stop():
    request = StopRequest()
    yield request
    request.restore()


def _stuck(phase):
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, phase],
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(1)  # it is at the lock by now
    return process


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_is_noted_and_nothing_else_happens(stop, number):
    stop.end_start()
    assert not stop.is_up
    os.kill(os.getpid(), number)
    assert stop.is_up and stop.signal == number


def test_handlers_and_threads_are_as_before_once_it_is_over():
    before = [signal.getsignal(number) for number in STOP_SIGNALS], threading.active_count()
    StopRequest().restore()
    assert ([signal.getsignal(number) for number in STOP_SIGNALS], threading.active_count()) == before
    assert signal.set_wakeup_fd(-1) == -1


def test_sighup_that_is_ignored_stays_so_as_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stop = StopRequest()
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.1)
        assert not stop.is_up
        stop.restore()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_of_a_forked_process_is_not_taken_for_ones_own(stop):
    stop.end_start()
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(0.3)
    assert not stop.is_up


def test_a_second_signal_ends_the_process_even_while_its_main_thread_is_stuck():
    process = _stuck("running")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(signal.SIGINT)  # the first a second later is not the same wish any more
        time.sleep(0.2)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert told == "stopped by SIGTERM at once, as a second signal asks\n"


# a rank whose launcher dies while it imports: it is then another's child
ORPHANED = """
import os, time
from engine.safeguards import early_end
launcher = os.getppid()
print("importing", flush=True)
while os.getppid() == launcher:
    time.sleep(0.05)
from engine.safeguards.interrupt import StopRequest
stop = StopRequest()
time.sleep(600)
"""


def test_a_rank_whose_launcher_died_while_it_imported_ends_too():
    launcher = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]]); input()"
    process = subprocess.Popen(
        [sys.executable, "-c", launcher, ORPHANED],
        cwd=REPOSITORY,
        env=environment() | {"TORCHELASTIC_RUN_ID": "test"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout.readline() == "importing\n"
    process.kill()
    told, _ = process.communicate(timeout=120)  # until the orphan is gone, too
    assert told == "stopped by SIGTERM before the first step, while it waited for something else\n"


@pytest.mark.parametrize("under_torchrun", [True, False])
def test_the_same_signal_twice_within_a_second_is_one_wish(monkeypatch, under_torchrun):
    now, ended = [100.0], []
    monkeypatch.setattr(interrupt, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(StopRequest, "_exit", lambda self, how: ended.append((now[0], how)))
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    if under_torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    stop = StopRequest()
    stop.end_start()
    for now[0] in (100.0, 100.2, 100.9, 101.1):
        stop._note(signal.SIGTERM)  # as its listener does
    stop.restore()
    assert ended == [(101.1, "at once, as a second signal asks")]


def test_two_signals_at_once_as_timeout_sends_them_still_leave_a_checkpoint(image_folder, tmp_path, monkeypatch):
    ended = []
    monkeypatch.setattr(interrupt, "time", SimpleNamespace(monotonic=lambda: 100.0))
    monkeypatch.setattr(StopRequest, "_exit", lambda self, how: ended.append(how))
    config = short_config(image_folder, tmp_path, epochs=1)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, checkpoint_every_steps=0))
    stop = StopRequest()
    try:
        with build_run(config, ONE_RANK, Display(is_main=False), stop) as run:
            _interrupted_in(run, run.data.train, at_batch=1, times=2)
            assert not train(run)
            assert (run.progress.epoch, run.progress.batch) == (0, 2)
    finally:
        stop.restore()
    assert outcome(tmp_path / "short")["position"] == [0, 2] and not ended


def test_a_start_that_is_stuck_ends_of_a_signal():
    process = _stuck("starting")
    process.send_signal(signal.SIGUSR1)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGUSR1
    assert "stopped by SIGUSR1 before the first step" in told


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_during_the_start_ends_it_cleanly_with_nothing_written(
    image_folder, tmp_path, monkeypatch, capfd, number
):
    opened = []

    def interrupted(*arguments):
        opened.append(really(*arguments))
        os.kill(os.getpid(), number)
        return opened[0]

    really = build_module.open_data
    monkeypatch.setattr(build_module, "open_data", interrupted)
    assert train_module.main(short_options(image_folder, tmp_path)) == 128 + number
    assert "stopped before the first step: nothing is lost, the same command starts again" in capfd.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("split", ["training", "evaluation"])
def test_a_signal_while_images_are_decoded_into_memory_ends_it_at_once(
    image_folder, tmp_path, monkeypatch, capfd, split
):
    def interrupted(self, stage):
        noted(self, stage)
        if stage.startswith(f"decoding {split} images into memory"):
            os.kill(os.getpid(), signal.SIGTERM)

    noted = Watchdog.at
    monkeypatch.setattr(Watchdog, "at", interrupted)
    options = [*short_options(image_folder, tmp_path), "--loader", "resident"]
    assert train_module.main(options) == 128 + signal.SIGTERM
    assert "stopped before the first step: nothing is lost" in capfd.readouterr().err
    assert not list(tmp_path.rglob("*.pt")) and not list(tmp_path.rglob("*.safetensors"))


def _interrupted_in(run, epoch_of, at_batch, times=1):
    """Send this process SIGTERM as soon as that loader has given its batch number `at_batch`."""
    loader = epoch_of._loader
    really = loader.epoch

    def epoch(index, start=0):
        for number, batch in enumerate(really(index, start), start):
            for _ in range(times if number == at_batch else 0):
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.1)  # two that come before the first is heard would be one to the system itself
            yield batch

    loader.epoch = epoch


@pytest.mark.parametrize("where", ["training", "evaluation", "writing"])
def test_a_signal_saves_at_once_wherever_it_comes_and_the_run_ends_with_the_same_bits(
    image_folder, tmp_path, monkeypatch, where
):
    config = short_config(image_folder, tmp_path / "whole", "turbo")
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, checkpoint_every_steps=0))
    expected = run_to_end(config)
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(tmp_path / "stopped")))
    stop = StopRequest()
    with build_run(config, ONE_RANK, Display(is_main=False), stop) as run:
        if where == "writing":
            really = torch.save

            def interrupted(*arguments):
                monkeypatch.undo()  # once
                os.kill(os.getpid(), signal.SIGTERM)
                really(*arguments)

            monkeypatch.setattr(torch, "save", interrupted)
        else:
            _interrupted_in(run, run.data.train if where == "training" else run.data.evaluation, at_batch=1)
        assert not train(run)
        position = run.progress.epoch, run.progress.batch
    stop.restore()
    # in the middle of the first epoch; before its evaluation is over; one step after the checkpoint being written
    assert position == {"training": (0, 2), "evaluation": (0, 5), "writing": (1, 1)}[where]
    if where == "evaluation":
        assert outcome(tmp_path / "stopped" / "short")["position"] == [0, 5]
    assert run_to_end(config) == expected


class TwoRanks(Ranks):
    """This rank and another whose steps take `other_s`, on a device that should not be waited for."""

    other_s = 0.0

    def largest(self, values):
        self.asked.append(len(values))
        return [*values[:-1], max(values[-1], self.other_s)]


def test_on_a_gpu_ranks_ask_each_other_every_two_seconds_and_no_seldomer_than_they_log(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(interrupt, "time", SimpleNamespace(monotonic=lambda: now[0]))
    ranks = TwoRanks(0, 2, 0, 2, torch.device("cuda", 0))
    object.__setattr__(ranks, "asked", [])

    def asked_after(steps, step_s, other_s):
        object.__setattr__(ranks, "other_s", other_s)
        ranks.asked.clear()
        lookout, at = Lookout(ranks, most_steps=20), []
        for step in range(1, steps + 1):
            now[0] += step_s
            before = len(ranks.asked)
            answer = lookout.ask(True, False)
            assert answer == ([True, False] if len(ranks.asked) > before else [False, False])
            at += [step] if len(ranks.asked) > before else []
        return at

    assert asked_after(50, step_s=0.01, other_s=0.0) == [1, 21, 41]  # with the logging
    assert asked_after(12, step_s=0.5, other_s=0.0) == [1, 5, 9]  # every 2 s
    assert asked_after(6, step_s=0.01, other_s=1.0) == [1, 3, 5]  # by the slower rank
    assert asked_after(3, step_s=7.0, other_s=0.0) == [1, 2, 3]


def test_alone_or_on_cpus_every_step_is_asked():
    lookout = Lookout(Ranks(0, 1, 0, 1, torch.device("cuda", 0)), most_steps=20)
    assert [lookout.ask(True)[0] for _ in range(5)] == [True] * 5


def test_stopped_is_no_exception_that_a_library_would_swallow():
    assert not issubclass(Stopped, Exception)
