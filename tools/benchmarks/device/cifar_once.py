"""Run in a process of its own: one side of `bench.py cifar-speed`, run after run, each kept at its end. Its last line
is JSON.

python cifar_once.py JOB

Either {"unavailable": why} or {"num_runs": of this process}. A first run that warms up does not count. What began and
failed ends with status 2.
"""

import importlib
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[3])

from tools.benchmarks.device.cifar_job import CifarJob
from tools.benchmarks.device.cifar_sides import SIDES
from tools.benchmarks.rounds import Rounds
from tools.benchmarks.telling import tell


def measure(job: CifarJob, rounds: Rounds) -> dict[str, int]:
    """Add runs to those of earlier calls, at least one."""
    module, name = SIDES[job.side].runs.split(".")
    side = getattr(importlib.import_module(f"tools.benchmarks.device.{module}"), name)(job)
    side.warm_up()
    num_before = len(rounds.done)
    deadline_s = time.monotonic() + 60 * job.minutes
    while (number := len(rounds.done)) < job.num_runs and (number == num_before or time.monotonic() < deadline_s):
        run = side.run(number)
        rounds.add(str(number), asdict(run))
        print(f"run {number + 1}: {run.train_s:.2f} s, {run.final:.2%}", flush=True)
    return {"num_runs": len(rounds.done) - num_before}


if __name__ == "__main__":
    asked = CifarJob.read(sys.argv[1])
    os._exit(tell(lambda: measure(asked, asked.rounds())))  # nothing of a run needs to be waited for
