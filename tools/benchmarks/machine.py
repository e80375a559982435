"""On what a measurement was made."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

# DALI for CUDA 12 or for CUDA 13, as the machine's torch needs
DALI_PACKAGES = ("nvidia-dali-cuda120", "nvidia-dali-cuda130")


def describe() -> dict[str, Any]:
    """Versions, commit, processor and memory, load, what keeps `turbo` from its kernel here, and the command, of paths
    the last part alone."""
    from engine.reporting.run_folder import environment  # brings in torch: nobody waits for it at a wrong option
    from loaders.choose import slower_because

    return {
        **environment(),
        "command": " ".join(["python", "tools/bench.py", *(Path(word).name for word in sys.argv[1:])]),
        "processor": _processor(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "turbo_slower_because": slower_because("turbo"),
        "load_1_min": round(os.getloadavg()[0], 2),
    }


def version_of(*packages: str, otherwise: str = "not installed") -> str:
    """The installed version of the first of these packages that is there."""
    for package in packages:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return otherwise


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
