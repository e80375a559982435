"""tools/bench.py cold-memory: what limits a command, and the page; tests/long takes its profiles."""

import sys

import pytest
from test_bench import MACHINE, command

from loaders.errors import FeedrateError
from tools.benchmarks.cold_memory import compare
from tools.benchmarks.cold_memory.page import page
from tools.benchmarks.control_groups import Limits, limited, why_not
from tools.benchmarks.process import run

MIB = 1 << 20
TAKES_MEMORY = "import sys; taken = b'x' * (int(sys.argv[1]) << 20); print(len(taken))"


def may_limit(path):
    if reason := why_not(path):
        pytest.skip(reason)


def took(group, mebibytes, log):
    command = group.command([sys.executable, "-c", TAKES_MEMORY, str(mebibytes)])
    return int(run(command, log, 60).output)


def test_a_command_within_a_limit_has_no_more_memory_than_that_and_the_group_goes_away(tmp_path):
    may_limit(tmp_path)
    with limited(Limits(memory_bytes=100 * MIB), tmp_path) as group:
        (folder,) = group._folders
        assert took(group, 40, tmp_path / "log") == 40 * MIB
        with pytest.raises(FeedrateError, match="ended with status"):
            took(group, 200, tmp_path / "log")
    assert not folder.exists()
    with limited(Limits(), tmp_path) as group:
        assert took(group, 200, tmp_path / "log") == 200 * MIB


def test_a_limit_of_reading_is_of_the_disk_below_the_path(tmp_path):
    may_limit(tmp_path)
    with limited(Limits(read_bytes_per_s=5_000_000), tmp_path) as group:
        (folder,) = group._folders
        device, rate = (folder / "blkio.throttle.read_bps_device").read_text().split()
        assert rate == "5000000" and device.split(":")[1].isdecimal()


def test_without_control_groups_it_says_what_is_missing(tmp_path, monkeypatch, capsys):
    assert "version 1" in why_not(tmp_path, tmp_path)
    monkeypatch.setattr(compare, "why_not", lambda path: "there is no /sys/fs/cgroup/memory")
    words = ["cold-memory", "--work", str(tmp_path / "work"), "--report", str(tmp_path)]
    assert command().main(words) == 2
    assert "cannot be done here: there is no /sys/fs/cgroup/memory" in capsys.readouterr().err


def test_the_page_has_a_row_a_case_and_what_the_loader_alone_showed():
    verdict = {"bottleneck": "read", "sentence": "Read-bound: the set takes 571 MB."}
    warm = {"images_per_s": 900.0, "wall_us": {"read": 10.0, "decode": 1200.0}}
    cold = {"images_per_s": 90.0, "wall_us": {"read": 20_000.0, "decode": 1200.0}}
    case = {
        "limits": {"memory_bytes": 836_000_000, "read_bytes_per_s": 10**7},
        "verdict": verdict,
        "rates": {"loop": [800.0], "loop_cold": [88.0], "cold": [89.0]},
        "memory_bytes": 371_000_000,
        "cold_share": 1.0,
        "loading": {"warm": warm, "cold": cold},
    }
    packed = {"num_images": 5000, "photos": "sample", "bytes": 571_000_000}
    settings = {"set": packed, "repeat": 10, "num_workers": 2, "num_rounds": 5, "minutes": 1.0, "room_share": 0.5}
    settings |= {"read_mb_per_s": 10, "in_one_go": True}
    text = page({"date": "today", "machine": MACHINE, "settings": settings, "loaders": {"turbo": {"both": case}}})
    assert "| both | 836 MB | 371 MB | 100% | 800 img/s | 88.0 img/s | 89.0 img/s | **read** |" in text
    assert "* *both*: Read-bound: the set takes 571 MB." in text
    assert "| both | dropped | 90.0 | 20.0 ms | 1.20 ms | n/a |" in text
