"""Tests that are interrupted leave none of the processes that they have started, torchrun's ranks included."""

import contextlib
import json
import signal
import subprocess
import sys
import time

import psutil
import pytest
from commands import REPOSITORY, TIMEOUT_S

# a launcher as torchrun is one: what it starts is in a session of its own, and it does not end it when it is killed
LAUNCHER = """
import json, os, subprocess, sys, time
rank = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True)
with open(sys.argv[1] + ".partial", "w") as file:
    json.dump([os.getpid(), rank.pid], file)
os.rename(sys.argv[1] + ".partial", sys.argv[1])
time.sleep(3600)
"""
TEST = """
import signal, sys, time
sys.path.insert(0, {tests!r})
signal.signal(signal.SIGINT, signal.default_int_handler)  # who starts the tests may ignore it
import commands
command = [sys.executable, "-c", {launcher!r}, sys.argv[1]]
if {how!r} == "run":
    commands.run(command)
else:
    with commands.started(command):
        time.sleep(3600)
"""


@pytest.mark.parametrize("how", ["run", "started"])
def test_a_command_that_is_waited_for_ends_with_all_its_ranks(tmp_path, how):
    pids = tmp_path / "pids.json"
    program = TEST.format(tests=str(REPOSITORY / "tests"), launcher=LAUNCHER, how=how)
    test = subprocess.Popen([sys.executable, "-c", program, str(pids)], stderr=subprocess.PIPE, text=True)
    family = []
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not pids.exists():
            assert test.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        family = [psutil.Process(pid) for pid in json.loads(pids.read_text())]
        test.send_signal(signal.SIGINT)
        _, errors = test.communicate(timeout=TIMEOUT_S)
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert not psutil.wait_procs(family, timeout=60)[1]
    finally:
        test.kill()
        test.wait()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
