"""Run in a process of its own: open what was packed, once; prints a line of JSON with the seconds and the memory."""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

import json
import time

import psutil

from loaders.records import open_records


def main(folder: str) -> None:
    """Open the training split and print what that took."""
    before_bytes = psutil.Process().memory_info().rss
    started_s = time.perf_counter()
    records = open_records(folder, "train")
    open_s = time.perf_counter() - started_s
    grown_bytes = psutil.Process().memory_info().rss - before_bytes
    print(json.dumps({"open_s": open_s, "open_rss_bytes": grown_bytes, "opened": len(records)}))


if __name__ == "__main__":
    main(sys.argv[1])
