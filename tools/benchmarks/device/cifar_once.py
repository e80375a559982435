"""Run in a process of its own: one side of `bench.py cifar-speed`, run after run. Its last line is JSON.

python cifar_once.py JOB

Either {"unavailable": why} or {"runs": as CifarRun, "version": of what was run}. A first run that warms up is not told.
"""

import importlib
import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[3])

from loaders.errors import FeedrateError
from tools.benchmarks.device.cifar_job import CifarJob, CifarRun
from tools.benchmarks.device.cifar_sides import SIDES


def main(path: str) -> None:
    """Run the job and print what was measured."""
    job = CifarJob.read(path)
    try:
        runs = measure(job)
    except (ImportError, FeedrateError) as error:
        print(json.dumps({"unavailable": " ".join(str(error).split())}))
        return
    print(json.dumps({"runs": [asdict(run) for run in runs]}))


def measure(job: CifarJob) -> list[CifarRun]:
    """All runs, at least one."""
    module, name = SIDES[job.side].runs.split(".")
    side = getattr(importlib.import_module(f"tools.benchmarks.device.{module}"), name)(job)
    side.warm_up()
    runs: list[CifarRun] = []
    deadline_s = time.monotonic() + 60 * job.minutes
    while len(runs) < job.num_runs and (not runs or time.monotonic() < deadline_s):
        runs.append(side.run(len(runs)))
        print(f"run {len(runs)}: {runs[-1].train_s:.2f} s, {runs[-1].final:.2%}", flush=True)
    return runs


if __name__ == "__main__":
    main(sys.argv[1])
    sys.stdout.flush()
    os._exit(0)  # nothing of a run needs to be waited for
