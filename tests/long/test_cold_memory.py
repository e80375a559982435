"""A set larger than the memory left for it, on a disk that is waited for: the verdict is read; without limits, decode.

The system slows reading down to what a hard disk or a network volume gives: what is tested is whether the profiler sees
it.
"""

import pytest

from tools.benchmarks.cold_memory.compare import ColdSettings, measure
from tools.benchmarks.control_groups import why_not

SETTINGS = ColdSettings(None, 20, ("turbo",), ("none", "both"), 2, 10, 0.7, 3, 1800)


def test_a_memory_limit_below_the_sets_size_changes_the_verdict_from_decode_to_read(tmp_path, measured):
    if reason := why_not(tmp_path):
        pytest.skip(reason)
    found = measure(SETTINGS, tmp_path, print)["loaders"]["turbo"]
    measured |= {case: [one["verdict"]["sentence"], one["rates"]] for case, one in found.items()}
    without, within = found["none"], found["both"]
    assert without["verdict"]["bottleneck"] == "decode"
    assert within["verdict"]["bottleneck"] == "read"
    assert within["memory_bytes"] < within["stored_bytes"] < without["memory_bytes"]
    assert within["verdict"]["runner_up"] == "decode"
    # what was waited for is read, and not what is done with it
    warm, cold = (within["loading"][kind]["wall_us"] for kind in ("warm", "cold"))
    assert cold["read"] > 5 * warm["read"] and cold["read"] > cold["decode"]
