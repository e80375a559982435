"""The packing pass: every split in every format asked for, in one reading, into one folder, resumable to the byte."""

import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from loaders.atomic import atomic_file
from loaders.errors import FeedrateError
from loaders.manifest import WORK_FOLDER, Manifest, PackedFile, PackedSplit, write_manifest
from loaders.sample_table import table_name, write_table

from .byte_counts import disk_bytes
from .channel_statistics import statistics_digest, statistics_of
from .encode import Encoding
from .estimate import Estimate, estimate
from .formats.beton import BetonOutput
from .formats.outputs import Output, sync
from .formats.raw_array import RawOutput
from .formats.seek_file import SeekOutput
from .formats.shards import SHARD_BYTES, ShardOutput
from .inspection.checksums import Checksums
from .out_folder import BAD_SAMPLES_NAME, begin, claimed, is_full_disk, no_space, publish, too_large
from .pack_work import PackWork
from .progress import Phase, silent_phase
from .samples import BadSample, Samples
from .split_pass import Rules, SplitPass, check_bad

FORMATS = ("beton", "shards", "raw")
_SEEK = "seek points"  # an output beside them


@dataclass(frozen=True)
class PackSettings:
    """All that the packed bytes depend on, beside the source.

    formats  of "beton", "shards", "raw", one or more
    seed     of the order in which samples are stored (None: the source's own order), and of write mode "mix"
    """

    encoding: Encoding = field(default_factory=Encoding)
    formats: tuple[str, ...] = ("beton",)
    seed: int | None = 0
    shard_bytes: int = SHARD_BYTES

    def __post_init__(self) -> None:
        for name in self.formats:
            if name not in FORMATS:
                raise FeedrateError(f"format '{name}' is unknown: known are {', '.join(FORMATS)}")
        if not self.formats or len(set(self.formats)) < len(self.formats):
            raise FeedrateError(f"--to {','.join(self.formats)} makes no sense: name each format once")
        if self.shard_bytes < 1 << 20:
            raise FeedrateError(f"shards of {self.shard_bytes:,} bytes are too small: give 1 MB or more")


@dataclass(frozen=True)
class Packed:
    """What a pass has written: the manifest, images that kept their bytes, and whether all was there before."""

    manifest: Manifest
    num_original: int
    was_there: bool


def pack(
    splits: Mapping[str, Samples],
    out: Path,
    settings: PackSettings,
    num_workers: int,
    rules: Rules = Rules(),
    source: Mapping[str, Any] | None = None,
    phase: Phase = silent_phase,
    tell: Callable[[Mapping[str, Estimate]], None] = lambda needed: None,
) -> Packed:
    """Pack the splits into `out`. The bytes depend on source and settings alone: not on workers, nor on interruptions.

    Nothing has its final name before all is written; the manifest comes last. Whatever ends the pass, the next call
    with the same arguments goes on from its last checkpoint. `num_workers` 0 does all in this process. `tell` hears
    before the start what it will take. Raises FeedrateError for bad samples that `rules` do not bear, a dead worker, a
    full disk, a folder that holds other things.
    """
    for samples in splits.values():  # all, before the first is packed and what was there is replaced
        check_bad(0, samples.bad, rules)
    task = _task(splits, settings)
    with claimed(out):
        there = begin(out, task, rules.overwrite)
        if there is None:
            there = publish(out)  # all was written, and the run before ended at its very end
        if there is not None:
            return Packed(there, _num_original(there), was_there=True)
        needed = estimate(splits, settings.encoding, settings.formats, num_workers)
        try:
            tell(needed)
            _check_space(out, needed)
            manifest = _Pass(splits, out, settings, task, source or {}).run(num_workers, rules, phase)
            publish(out)
        except OSError as error:
            if error.errno == errno.EFBIG:
                raise too_large(out) from error
            if not is_full_disk(error):
                raise
            raise no_space(out, sum(part.num_bytes for part in needed.values())) from error
    return Packed(manifest, _num_original(manifest), was_there=False)


class _Pass:
    """The passes over all splits, and what is written about them."""

    def __init__(
        self,
        splits: Mapping[str, Samples],
        out: Path,
        settings: PackSettings,
        task: dict[str, Any],
        source: Mapping[str, Any],
    ) -> None:
        self._splits = splits
        self._out = out
        self._work = out / WORK_FOLDER
        self._settings = settings
        self._task = task
        self._source = source

    def run(self, num_workers: int, rules: Rules, phase: Phase) -> Manifest:
        """Pack, hash, describe; all in the work folder, the manifest too."""
        settings = self._settings
        work = PackWork(settings.encoding, settings.formats, settings.seed or 0)
        passes: dict[str, SplitPass] = {}
        try:
            for split, samples in self._splits.items():
                journal = self._work / f"{split}.journal"
                one = passes[split] = SplitPass(samples, self._outputs(split, samples), journal, settings.seed)
                with phase(f"pack {split}", len(samples), one.num_done) as advance:
                    one.run(work, num_workers, rules, advance)
                if not len(one.rows):
                    raise FeedrateError(f"not one sample of '{split}' could be used: look at {BAD_SAMPLES_NAME}")
            self._list_bad(passes, self._work)
            manifest = self._manifest(passes, self._describe_files(passes, phase))
        except FeedrateError:
            self._list_bad(passes, self._out)
            raise
        finally:
            for one in passes.values():
                one.settle()
        write_manifest(self._work, manifest)
        return manifest

    def _outputs(self, split: str, samples: Samples) -> dict[str, Output]:
        """An output a format, in the order of FORMATS."""
        make: dict[str, Callable[[], Output]] = {
            "beton": lambda: BetonOutput(self._work, split, len(samples)),
            "shards": lambda: ShardOutput(self._work, split, self._settings.shard_bytes),
            "raw": lambda: RawOutput(self._work, split),
        }
        outputs = {name: make[name]() for name in FORMATS if name in self._settings.formats}
        if self._settings.encoding.seek_points:
            outputs[_SEEK] = SeekOutput(self._work, split)
        return outputs

    def _list_bad(self, passes: Mapping[str, SplitPass], folder: Path) -> None:
        """Write the list of what could not be used, if anything."""
        bad = [(split, item) for split in passes for item in self._all_bad(split, passes[split])]
        if bad:
            with atomic_file(folder / BAD_SAMPLES_NAME) as file:
                for split, item in bad:
                    file.write(json.dumps({"split": split, **asdict(item)}).encode() + b"\n")

    def _all_bad(self, split: str, done: SplitPass) -> list[BadSample]:
        return [*self._splits[split].bad, *done.found_bad]

    def _describe_files(self, passes: Mapping[str, SplitPass], phase: Phase) -> dict[str, PackedSplit]:
        """Write the tables and hash everything, by reading it again: what stands before samples is written last."""
        for split, one in passes.items():
            self._write_table(split, one)
        tables = {split: self._work / table_name(split) for split in passes}
        paths = [*tables.values(), *(path for one in passes.values() for of in one.paths.values() for path in of)]
        total = sum(len(one.rows) for one in passes.values())
        with Checksums({path: path.stat().st_size for path in paths}) as checksums:
            for path in paths:
                sync(path)
            with phase("checksums", total, checksums.num_done(total)) as advance:
                digests = checksums.wait(advance, total)
        return {
            split: PackedSplit(
                num_samples=len(one.rows),
                num_bad=len(self._all_bad(split, one)),
                samples_per_class=np.bincount(one.rows["label"], minlength=len(self._splits[split].classes)).tolist(),
                samples=_measured(tables[split], digests),
                formats={
                    name: [_measured(path, digests) for path in of] for name, of in one.paths.items() if name != _SEEK
                },
                seek_points=_measured(one.paths[_SEEK][0], digests) if _SEEK in one.paths else None,
            )
            for split, one in passes.items()
        }

    def _write_table(self, split: str, one: SplitPass) -> None:
        rows, samples = one.rows, self._splits[split]
        columns = {
            "labels": rows["label"],
            "widths": rows["width"],
            "heights": rows["height"],
            "source_index": rows["source_index"],
        }
        if "shards" in self._settings.formats:
            columns |= {"shard": rows["shard"], "shard_position": rows["shard_position"]}
            columns |= {"shard_bytes": rows["jpeg_bytes"]}
        if "raw" in self._settings.formats:
            columns["raw_position"] = rows["raw_position"]
        if self._settings.encoding.seek_points:
            columns["seek_bytes"] = rows["seek_bytes"]
        with atomic_file(self._work / table_name(split)) as file:
            write_table(file, columns, (samples.stored(index).name for index in rows["source_index"].tolist()))

    def _manifest(self, passes: Mapping[str, SplitPass], splits: dict[str, PackedSplit]) -> Manifest:
        """It holds no time and no number of workers, so packing the same source twice gives the same bytes."""
        first = next(iter(self._splits.values()))
        statistics = statistics_of(passes, self._splits, self._settings.encoding)
        return Manifest(
            classes=list(first.classes),
            class_names=list(first.class_names),
            splits=splits,
            statistics=statistics,
            settings=self._task["settings"],
            source={
                **self._source,
                "task": self._task,
                "notes": {split: samples.notes for split, samples in self._splits.items() if samples.notes},
                "num_listed": {split: len(samples) for split, samples in self._splits.items()},
                "num_ignored": {split: samples.num_ignored for split, samples in self._splits.items()},
                "statistics_sha256": statistics_digest(statistics),
                "num_original": {split: int(one.rows["is_original"].sum()) for split, one in passes.items()},
            },
            versions=self._task["versions"],
        )


def _task(splits: Mapping[str, Samples], settings: PackSettings) -> dict[str, Any]:
    """What decides the bytes: an unfinished pass is continued only by one with the same."""
    first = next(iter(splits.values()))
    return {
        "settings": {
            **asdict(settings.encoding),
            "formats": [name for name in FORMATS if name in settings.formats],
            "order": "source" if settings.seed is None else "shuffled",
            "seed": settings.seed,
            "shard_bytes": settings.shard_bytes,
        },
        "fingerprints": {split: samples.fingerprint() for split, samples in splits.items()},
        "classes": classes_digest(first.classes, first.class_names),
        "versions": {name: _version(name) for name in ("feedrate", "simplejpeg", "opencv-python-headless", "pillow")},
    }


def classes_digest(classes: Sequence[str], class_names: Sequence[str]) -> str:
    """SHA-256 of what the classes are called, by label."""
    return hashlib.sha256("\0".join((*classes, *class_names)).encode("utf-8", "surrogateescape")).hexdigest()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _measured(path: Path, digests: Mapping[Path, str | OSError]) -> PackedFile:
    """A finished file's size and SHA-256. Raises OSError where it could not be read."""
    digest = digests[path]
    if isinstance(digest, OSError):
        raise digest
    return PackedFile(path.name, path.stat().st_size, digest)


def _check_space(out: Path, needed: Mapping[str, Estimate]) -> None:
    """Refuse a disk that cannot hold what is still to be written. Raises FeedrateError."""
    written = disk_bytes((out / WORK_FOLDER).iterdir())
    surely = sum(part.at_least for part in needed.values()) - written
    if shutil.disk_usage(out).free < surely:
        raise no_space(out, sum(part.num_bytes for part in needed.values()))


def _num_original(manifest: Manifest) -> int:
    return int(sum(manifest.source["num_original"].values()))
