"""The folder that is packed into: held by one pass at a time, continued, replaced, and filled only when all is done.

Everything is written into `packing.partial/` inside it. When all is there, the files take their final names, the
manifest last; nothing opens a folder without one.
"""

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loaders.atomic import atomic_file
from loaders.errors import FeedrateError
from loaders.manifest import MANIFEST_NAME, WORK_FOLDER, Manifest, OtherVersion, parse_manifest, read_manifest

from .byte_counts import readable_bytes
from .formats.outputs import sync

BAD_SAMPLES_NAME = "bad_samples.jsonl"
_TASK_NAME = "task.json"  # in the work folder: what is being packed, and how
_MOST_DIFFERENCES = 4  # that are named
_AFTER_SPLIT = r"(\.beton|\.npy|\.seek|\.samples\.npz|-\d{6}\.(tar|idx))"
_OWN = re.compile(rf"(train|val){_AFTER_SPLIT}|manifest\.json")  # what packing writes, and alone may remove
NAMED_LIKE_OWN = re.compile(rf".+{_AFTER_SPLIT}(\.partial)?|manifest\.json\.partial")  # and what may be taken for it


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """The folder, made if need be, held against other packing passes.

    Raises FeedrateError, also where it turns out in the block that nothing can be written into the folder.
    """
    try:
        if out.exists() and not out.is_dir():
            raise FeedrateError(f"{out} is a file: give a folder with --out")
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out, os.O_RDONLY)
    except OSError as error:
        raise _not_writable(out, error) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FeedrateError(f"{out} is being packed by another process: wait, or give another --out") from error
        yield
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) and not is_full_disk(error):
            raise
        raise _not_writable(out, error) from error
    finally:
        os.close(descriptor)


def may_remove(out: Path, path: Path) -> bool:
    """Whether packing into `out` may remove what lies at `path`, or a link at `path`, for being named like its own."""
    folder = out.resolve()
    for place in (path.resolve(), path.parent.resolve() / path.name):
        if place != folder and place.is_relative_to(folder):
            first = place.relative_to(folder).parts[0]
            if first == WORK_FOLDER or _OWN.fullmatch(first):
                return True
    return False


def begin(out: Path, task: Mapping[str, Any], overwrite: bool) -> Manifest | None:
    """Make the folder ready for packing what `task` describes; the manifest if just that is packed there already.

    An unfinished pass of the same task is left to be continued. Anything else is replaced if `overwrite` says so: first
    what there is goes, manifest first, since there is seldom room for two. Raises FeedrateError.
    """
    task = json.loads(json.dumps(task))
    work = out / WORK_FOLDER
    otherwise = ""
    if (out / MANIFEST_NAME).exists():
        shutil.rmtree(work, ignore_errors=True)  # of a pass that was killed after its very last step
        there, otherwise = _compared(out, task)
        if there is not None and not overwrite:
            return there
    begun = _task_of(work)
    if begun is not None and begun != task and not overwrite:
        raise FeedrateError(
            f"{out} holds an unfinished packing, begun otherwise ({_difference(begun, task)}): give the same command as"
            " then to go on, --overwrite to begin anew, or another --out"
        )
    if begun != task:
        own = sorted(path for path in out.iterdir() if _OWN.fullmatch(path.name))
        if own and not overwrite:
            there = "a packed set" if (out / MANIFEST_NAME).exists() else own[-1].name
            raise FeedrateError(
                f"{out} already holds {there}{otherwise}: give another --out, or --overwrite to replace what it holds"
            )
        for path in sorted(own, key=lambda path: path.name != MANIFEST_NAME):
            path.unlink()
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        with atomic_file(work / _TASK_NAME) as file:
            file.write(json.dumps(task, indent=2).encode())
    return None


def publish(out: Path) -> Manifest | None:
    """If the work folder is complete, which its manifest says, give all its files their final names, the manifest last.

    Returns the manifest. Interrupted, it is simply called again.
    """
    work = out / WORK_FOLDER
    if not (work / MANIFEST_NAME).exists():
        return None
    manifest = parse_manifest(work)
    if not any(split.num_bad for split in manifest.splits.values()):
        (out / BAD_SAMPLES_NAME).unlink(missing_ok=True)  # of a pass that failed
    for name in (*(file.name for file in manifest.files()), BAD_SAMPLES_NAME):
        if (work / name).exists():
            os.replace(work / name, out / name)
    sync(out)
    os.replace(work / MANIFEST_NAME, out / MANIFEST_NAME)
    sync(out)
    shutil.rmtree(work)
    return manifest


def require_packed(folder: Path) -> None:
    """Raise FeedrateError where the folder holds nothing that was packed to its end."""
    if (folder / MANIFEST_NAME).is_file():
        return
    if (folder / WORK_FOLDER).is_dir():
        raise FeedrateError(f"{folder} was never packed to its end: give the same packing command again to go on")
    remedy = "give a packed folder, what --out named when packing"
    if folder.is_file():
        remedy = f"give its folder, {folder.parent}" if (folder.parent / MANIFEST_NAME).is_file() else remedy
        raise FeedrateError(f"{folder} is a file, and no folder with a {MANIFEST_NAME}: {remedy}")
    raise FeedrateError(f"{folder} has no {MANIFEST_NAME}: {remedy}")


def no_space(out: Path, num_bytes: float) -> FeedrateError:
    """The sentence for a disk that is full, or will be; `num_bytes` are needed in all."""
    free = shutil.disk_usage(out).free
    return FeedrateError(
        f"{out} needs about {readable_bytes(num_bytes)} and its disk has {readable_bytes(free)} free: free some"
        " and give the same command again, give another --out, or store less (--preset 256)"
    )


def too_large(out: Path) -> FeedrateError:
    """The sentence for a file that may not grow as large as it has to."""
    return FeedrateError(
        f"a file in {out} has to be larger than its file system, or the limit on files (ulimit -f), allows: raise that,"
        " give another --out, or write smaller files (--preset 256, or --to shards)"
    )


def _not_writable(out: Path, error: OSError) -> FeedrateError:
    return FeedrateError(f"{out} cannot be written to ({error.strerror}): give another --out")


def is_full_disk(error: BaseException) -> bool:
    """Whether this is how a full disk, or a used-up quota, shows."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _compared(out: Path, task: dict[str, Any]) -> tuple[Manifest | None, str]:
    """The manifest, if it is of this task and its files are there; else None and what is otherwise, for people."""
    try:
        manifest = read_manifest(out)
    except OtherVersion:
        return None, ", which another version of this has packed"
    except FeedrateError as error:
        return None, f", which is not whole ({error})"
    packed = manifest.source.get("task")
    if packed == task:
        return manifest, ""
    if not isinstance(packed, dict):
        return None, ", of which is not known how it was packed"
    return None, f", packed otherwise ({_difference(packed, task)})"


def settings_there(out: Path) -> dict[str, Any] | None:
    """What was packed into the folder with, or is being; None where nothing tells."""
    try:
        if (out / MANIFEST_NAME).exists():
            task = json.loads((out / MANIFEST_NAME).read_bytes())["source"]["task"]
        else:
            task = _task_of(out / WORK_FOLDER) or {}
        settings = task.get("settings")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return settings if isinstance(settings, dict) else None


def _task_of(work: Path) -> dict[str, Any] | None:
    """What an unfinished pass packs; None where there is none, or it had hardly begun."""
    try:
        content: dict[str, Any] = json.loads((work / _TASK_NAME).read_bytes())
    except (OSError, ValueError):
        return None
    return content


def _difference(begun: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    """The first things in which they differ, for people: settings as the manifest calls them, hashes in words."""
    found = []
    for part in ("settings", "fingerprints", "classes", "versions"):
        before, now = begun.get(part), task.get(part)
        if isinstance(before, dict) and isinstance(now, dict):
            names = [name for name in (*before, *sorted(set(now) - set(before))) if before.get(name) != now.get(name)]
            found += [_in_words(part, name, before.get(name), now.get(name)) for name in names]
        elif before != now:
            found.append("the classes are others" if part == "classes" else f"its {part} are others")
    more = f", and {len(found) - _MOST_DIFFERENCES} more" if len(found) > _MOST_DIFFERENCES else ""
    return "; ".join(found[:_MOST_DIFFERENCES]) + more or "what decides the bytes is described otherwise"


def _in_words(part: str, name: str, before: object, now: object) -> str:
    """One difference."""
    if part == "fingerprints":
        if before is None:
            return f"there was no '{name}'"
        if now is None:
            return f"there is no '{name}' any more"
        return f"the images of '{name}' have changed: files, sizes, times, or which of them --val-fraction chooses"
    values = [", ".join(map(str, value)) if isinstance(value, list) else str(value) for value in (before, now)]
    of = "the version of " if part == "versions" else ""
    return f"{of}{name} was {values[0][:40]} and is {values[1][:40]}".replace(" None", " not set")
