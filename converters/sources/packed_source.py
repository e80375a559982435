"""What was packed before, by us or by FFCV: packed folders and .beton files alone, to be packed in another way."""

from pathlib import Path

from loaders import packed_folder
from loaders.manifest import MANIFEST_NAME, read_manifest
from loaders.sample_table import SampleTable

from ..progress import Phase
from ..samples import Samples
from .records_source import RecordSamples


def recognise(path: Path) -> str | None:
    """ "any" where there is something packed."""
    return "any" if packed_folder.recognises(path) else None


def open_splits(path: Path, phase: Phase) -> dict[str, Samples]:
    """Open every split. Names of samples and classes are the manifest's, if there is one. Raises FeedrateError."""
    return {split: _open(path, split, phase) for split in packed_folder.list_splits(path)}


def _open(path: Path, split: str, phase: Phase) -> RecordSamples:
    with phase(f"list {split}", 0) as advance:
        records = packed_folder.open_split(path, split)
        advance(len(records), 0)
    file = packed_folder.bare_files(path).get(split) if path.is_dir() else path
    if file is None:
        manifest = read_manifest(path)
        names = SampleTable(path / manifest.splits[split].samples.name, len(records)).names()
        stamp = (path / MANIFEST_NAME).read_bytes()  # holds a hash of every file
        return RecordSamples(records, names.__getitem__, str(path), stamp, tuple(manifest.class_names))
    status = file.stat()
    stamp = f"{status.st_size} {status.st_mtime_ns}".encode()
    return RecordSamples(records, lambda index: f"{file.name}/{index}", str(file), stamp)
