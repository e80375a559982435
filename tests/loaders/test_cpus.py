"""How many processors a process may use: affinity, and the quotas of its cgroups."""

import os
from pathlib import Path

import pytest

from loaders import cpus


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """machine(own, quotas): 16 processors, the process in the cgroups `own`, and files of quotas under the root."""

    def make(own: str, quotas: dict[str, str]) -> int:
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)))
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(own)
        for name, text in quotas.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return cpus.available_cpus(tmp_path / "proc", tmp_path / "cgroup")

    return make


@pytest.mark.parametrize(
    ("own", "quotas", "expected"),
    [
        ("0::/\n", {}, 16),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 16),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "5000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "9900000 100000\n"}, 16),
        ("0::/a/b\n", {"cpu.max": "max 100000\n", "a/b/cpu.max": "200000 100000\n"}, 2),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "max 100000\n"}, 4),
        ("0::/a/b\n", {"other/cpu.max": "100000 100000\n"}, 16),
        (
            "4:cpu,cpuacct:/a\n2:memory:/b\n",
            {"cpu/a/cpu.cfs_quota_us": "150000", "cpu/a/cpu.cfs_period_us": "50000"},
            3,
        ),
        ("4:cpu,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "50000"}, 16),
        ("0::/\n", {"cpu.max": "what is this"}, 16),
    ],
)
def test_the_smallest_quota_of_the_cgroups_around_a_process_counts(machine, own, quotas, expected):
    assert machine(own, quotas) == expected


def test_affinity_counts():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cpus.available_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)
