"""CIFAR-10 and CIFAR-100, in either form of their archives, packed or unpacked: read into memory as a whole."""

from hashlib import sha256
from pathlib import Path

from loaders import cifar_records

from ..progress import Phase
from ..samples import Samples
from .records_source import RecordSamples


def recognise(path: Path) -> str | None:
    """ "cifar10" or "cifar100"; "any" where both are, which opening refuses."""
    found = cifar_records.datasets(path)
    return found[0] if len(found) == 1 else "any" if found else None


def open_splits(path: Path, phase: Phase) -> dict[str, Samples]:
    """Read both splits. Raises FeedrateError on missing or damaged files."""
    splits: dict[str, Samples] = {}
    for split in cifar_records.list_splits(path):
        with phase(f"read {split}", 0) as advance:
            records = cifar_records.open_split(path, split, None)
            digest = sha256()
            for index in range(len(records)):
                digest.update(records.read(index).tobytes())
            splits[split] = RecordSamples(records, records.name, str(records.place), digest.digest())
            advance(len(records), 0)
    return splits
