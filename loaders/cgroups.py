"""The control groups that may limit this process, of both versions."""

from pathlib import Path, PurePosixPath

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def own_groups(controller: str, proc: Path = PROC, cgroups: Path = CGROUPS) -> list[Path]:
    """The folders that may hold a limit of `controller` ("cpu", "memory"): of this process's group and those around it.

    They need not exist. Inside a container a path may be the host's, of which only the root is to be seen.
    """
    folders = {cgroups, cgroups / controller}
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = cgroups / controller if controllers else cgroups
        path = PurePosixPath(name.lstrip("/"))
        folders.update(root / part for part in (path, *path.parents))
    return sorted(folders)
