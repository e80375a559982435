"""How much memory this process may still use."""

from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")


def available_memory_bytes(proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int | None:
    """Bytes granted by the machine and by every memory limit above this process; None where neither can be read.

    What files occupy in the page cache counts as available, since the system gives it up for something else.
    """
    known = [room for room in (_machine(proc), *_groups(proc, cgroups)) if room is not None]
    return max(0, min(known)) if known else None


def _machine(proc: Path) -> int | None:
    kibibytes = _numbers(proc / "meminfo").get("MemAvailable:")
    return None if kibibytes is None else kibibytes * 1024


def _groups(proc: Path, cgroups: Path) -> Iterator[int | None]:
    """Room in each control group from the process's own up to the root, of both versions."""
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            root, names = cgroups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
        elif not controllers:
            root, names = cgroups, ("memory.max", "memory.current", "")
        else:
            continue
        # inside a container the path may be the host's, of which only the root is to be seen
        parts = Path(path.lstrip("/")).parts
        for depth in range(len(parts), -1, -1):
            yield _room(root.joinpath(*parts[:depth]), *names)


def _room(group: Path, limit_name: str, usage_name: str, prefix: str) -> int | None:
    try:
        limit, usage = (int((group / name).read_text()) for name in (limit_name, usage_name))
    except (OSError, ValueError):  # no such group, or "max": no limit
        return None
    used = _numbers(group / "memory.stat")
    return limit - usage + used.get(f"{prefix}inactive_file", 0) + used.get(f"{prefix}active_file", 0)


def _numbers(path: Path) -> dict[str, int]:
    """The lines "name number …" of a file, {} if it cannot be read."""
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
        return {row[0]: int(row[1]) for row in rows if len(row) > 1}
    except (OSError, ValueError):
        return {}
