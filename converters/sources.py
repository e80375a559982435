"""What comes in: the splits of a data set, opened, and a sentence that helps where there is none."""

from pathlib import Path

from loaders.errors import FeedrateError
from loaders.records import Records, list_splits, open_records

from .progress import Phase

_REMEDIES = {
    "imagenet": (
        "unpack ILSVRC2012 (https://image-net.org/download) into train/<class>/ and val/<class>/ there,"
        " or give the folder with --source"
    ),
    "cifar10": (
        "unpack https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz there, or give the folder with --source"
    ),
    "cifar100": (
        "unpack https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz there, or give the folder with --source"
    ),
    "folder": "give the folder that holds train/<class>/ and val/<class>/ with --source",
}


def open_source(dataset: str, path: Path, phase: Phase) -> dict[str, Records]:
    """Every split at `path`, by name. `dataset` is a key of the remedies and only chooses the sentence on failure.

    Raises FeedrateError where there is nothing, or where the splits do not have the same classes.
    """
    if not path.exists():
        remedy = _REMEDIES[dataset]
        raise FeedrateError(f"{path} does not exist: {remedy}; without data, try 'python tools/convert.py synthetic'")
    opened: dict[str, Records] = {}
    for split in list_splits(path):
        opened[split] = _open(path, split, phase)
        if len(opened[split]) == 0:
            raise FeedrateError(f"{path} has no images in its '{split}' split: add some, or remove it")
    first = next(iter(opened))
    for split, records in opened.items():
        if records.classes != opened[first].classes:
            odd = sorted(set(records.classes) ^ set(opened[first].classes))
            raise FeedrateError(
                f"{path}: the splits '{first}' and '{split}' differ in their classes ({', '.join(odd[:3])}"
                f"{', …' if len(odd) > 3 else ''}): give both the same class folders"
            )
    return opened


def _open(path: Path, split: str, phase: Phase) -> Records:
    """Open one split, showing how far the scan of image sizes is if there is one to be done."""
    with phase(f"scan {split}", 0) as advance:
        num_seen = 0

        def progress(num_scanned: int, num_to_scan: int) -> None:
            nonlocal num_seen
            advance(num_scanned - num_seen, 0)
            num_seen = num_scanned

        return open_records(path, split, progress)


def check_apart(source: Path, out: Path) -> None:
    """Refuse to pack into the source, where the packed folder would be taken for a class. Raises FeedrateError."""
    if out.resolve().is_relative_to(source.resolve()):
        raise FeedrateError(f"{out} lies inside the source {source}: give an --out outside of it")
