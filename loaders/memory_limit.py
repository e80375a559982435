"""How much memory this process may still use."""

from pathlib import Path

from .cgroups import CGROUPS, PROC, own_groups

# of a control group, by version: its limit, what it uses, and what the names of its statistics begin with
_FILES = (("memory.max", "memory.current", ""), ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"))


def available_memory_bytes(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """Bytes granted by the machine and by every memory limit above this process; None where neither can be read.

    What files occupy in the page cache counts as available, since the system gives it up for something else.
    """
    rooms = (_machine(proc), *map(_room, own_groups("memory", proc, cgroups)))
    known = [room for room in rooms if room is not None]
    return max(0, min(known)) if known else None


def _machine(proc: Path) -> int | None:
    kibibytes = _numbers(proc / "meminfo").get("MemAvailable:")
    return None if kibibytes is None else kibibytes * 1024


def _room(group: Path) -> int | None:
    for limit_name, usage_name, prefix in _FILES:
        try:
            limit, usage = (int((group / name).read_text()) for name in (limit_name, usage_name))
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
        used = _numbers(group / "memory.stat")
        return limit - usage + used.get(f"{prefix}inactive_file", 0) + used.get(f"{prefix}active_file", 0)
    return None


def _numbers(path: Path) -> dict[str, int]:
    """The lines "name number …" of a file, {} if it cannot be read."""
    try:
        rows = [line.split() for line in path.read_text().splitlines()]
        return {row[0]: int(row[1]) for row in rows if len(row) > 1}
    except (OSError, ValueError):
        return {}
