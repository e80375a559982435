"""Measures one group of the self-test's cells, alone or as one rank of several: a line of JSON a cell.

self_test_group.py GROUP, as JSON
"""

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from engine.dist import run_and_end, start_ranks, stop_ranks
from engine.profiler.self_test.planting import run_group
from tools.profiling.self_test_runs import Group


def main(text: str) -> int:
    """Returns the exit status."""
    group = Group.from_json(text)
    ranks = start_ranks(group.device)
    for outcome in run_group(group.config(), ranks, group.cells, group.effort, lambda text: None):
        if ranks.is_main:
            print(json.dumps(outcome.as_json()), flush=True)
    stop_ranks()
    return 0


if __name__ == "__main__":
    run_and_end(lambda: main(sys.argv[1]))
