"""A program for tests of limits: run a few epochs of a loader, then print what they were and what they took, as JSON.

python limited_run.py '{"path": …, "loader": …, "resize": …, "epochs": 2, "batch_size": 8, "size_px": 32, …}'
"""

import json
import os
import resource
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

import psutil
import torch

from loaders.api import Loader, LoaderOptions
from loaders.choose import open_loader
from loaders.crops import RandomResizedCrop
from loaders.plan import Plan, Shard, Shuffled, View
from loaders.records import open_records


def main() -> None:
    """Print a JSON line for each folder: `path` is one or a list, read one after the other in this process."""
    wanted = json.loads(sys.argv[1])
    for path in [wanted["path"]] if isinstance(wanted["path"], str) else wanted["path"]:
        print(json.dumps(run(path, wanted)), flush=True)


def run(path: str, wanted: dict[str, Any]) -> dict[str, Any]:
    loader = open_wanted(path, wanted)
    if room_bytes := wanted.get("room_bytes"):  # beyond what there is once all is imported
        limit = psutil.Process().memory_info().vms + room_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    digest, rss_bytes = sha256(), []
    for epoch in range(wanted.get("epochs", 1)):
        for batch in loader.epoch(epoch):
            digest.update(batch.ids.numpy().tobytes() + batch.images.cpu().numpy().tobytes())
        rss_bytes.append(psutil.Process().memory_info().rss)
    loader.close()
    peaks = [resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "sha256": digest.hexdigest(),
        "rss_bytes": rss_bytes,  # after each epoch
        "peak_bytes": max(peaks),  # of this process or one of its workers, so far
        "cpus": len(os.sched_getaffinity(0)),
    }


def open_wanted(path: str, wanted: dict[str, Any]) -> Loader:
    records = open_records(path, "train")
    view = View(RandomResizedCrop(), wanted.get("size_px", 32), 0.5)
    plan = Plan(records.widths, records.heights, Shuffled(wanted.get("batch_size", 8)), view, 0)
    options = LoaderOptions(
        shard=Shard(wanted.get("rank", 0), wanted.get("world_size", 1)),
        device=torch.device(wanted.get("device", "cpu")),
        resize=wanted.get("resize"),
        num_workers=2,
    )
    return open_loader(wanted["loader"], records, plan, options)


if __name__ == "__main__":
    main()
