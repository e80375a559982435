"""How many processors this process may really use."""

import math
import os
from pathlib import Path

_CGROUP_V2_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1_QUOTA = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
_CGROUP_V1_PERIOD = Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


def available_cpus() -> int:
    """Processors granted by both the affinity mask and the cgroup's quota, at least 1.

    `os.cpu_count()` names the machine's, which in a container is often many times what it may use.
    """
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_quota()
    return max(1, granted if quota is None else min(granted, math.ceil(quota)))


def _cgroup_quota() -> float | None:
    """The cgroup's limit in processors, None where there is none."""
    try:
        if _CGROUP_V2_QUOTA.exists():
            quota, period = _CGROUP_V2_QUOTA.read_text().split()
            return None if quota == "max" else int(quota) / int(period)
        if _CGROUP_V1_QUOTA.exists():
            quota_us = int(_CGROUP_V1_QUOTA.read_text())
            return quota_us / int(_CGROUP_V1_PERIOD.read_text()) if quota_us > 0 else None
    except (OSError, ValueError):
        pass  # an unreadable limit is no limit we could obey
    return None
