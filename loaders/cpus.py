"""How many processors this process may really use."""

import math
import os
from pathlib import Path

from .cgroups import CGROUPS, PROC, own_groups


def available_cpus(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Processors granted by both the affinity mask and the cgroups' quotas, at least 1.

    `os.cpu_count()` names the machine's, which in a container is often many times what it may use.
    """
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in own_groups("cpu", proc, cgroups) if (quota := _quota(folder)) is not None]
    return max(1, min([granted, *(math.ceil(quota) for quota in quotas)]))


def _quota(folder: Path) -> float | None:
    """A cgroup's own limit in processors, None where it has none."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
            return None if quota == "max" else int(quota) / int(period)
        if (folder / "cpu.cfs_quota_us").exists():
            quota_us = int((folder / "cpu.cfs_quota_us").read_text())
            return quota_us / int((folder / "cpu.cfs_period_us").read_text()) if quota_us > 0 else None
    except (OSError, ValueError):
        pass  # an unreadable limit is no limit we could obey
    return None
