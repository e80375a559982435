"""Run in a process of its own: load images whose bytes are in memory, or are not. Prints one line of JSON.

python once.py JOB

Images a second, and of each stage of the loader microseconds an image, as one worker's clock has them: so it shows in
which of them waiting for storage is seen.
"""

import json
import sys
import time
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parents[3])

from engine.config import Config, DataConfig
from engine.data import plan_of
from loaders.api import Loader, LoaderOptions
from loaders.choose import open_loader
from loaders.page_eviction import bring_in, evict, stored_bytes
from loaders.records import open_records
from loaders.stage_times import StageTimes
from tools.benchmarks.cold_memory.job import Job

_WARM_UP_BATCHES = 8  # so many are read together


def main(path: str) -> None:
    """Run the job and print what was measured."""
    job = Job.read(path)
    times = StageTimes(job.num_workers + 1)
    config = Config(data=DataConfig(path=job.data, batch_size=job.batch_size, size_px=job.size_px))
    with closing(open_records(job.data, "train")) as records:
        plan = plan_of(records, config)
        stored = stored_bytes(records, plan.ids_in(0, range(job.num_batches)))
        assert stored is not None, "a packed set lies in files"
        (evict if job.is_cold else bring_in)(stored)
        options = LoaderOptions(num_workers=job.num_workers, stage_times=times)
        with closing(open_loader(job.loader, records, plan, options)) as loader:
            print(json.dumps(_load(loader, times, job.num_batches)))


def _load(loader: Loader, times: StageTimes, num_batches: int) -> dict[str, Any]:
    with closing(loader.epoch(0)) as batches:
        for _ in islice(batches, _WARM_UP_BATCHES):
            pass
        before, started, num_images = times.read(), time.perf_counter(), 0
        for batch in islice(batches, num_batches - _WARM_UP_BATCHES):
            num_images += batch.num_valid
        seconds, after = time.perf_counter() - started, times.read()
    taken = {stage: reading.since(before.get(stage)) for stage, reading in after.items()}
    return {
        "images_per_s": num_images / seconds,
        "wall_us": {stage: 1e6 * reading.wall_s / reading.count for stage, reading in taken.items() if reading.count},
    }


if __name__ == "__main__":
    main(sys.argv[1])
