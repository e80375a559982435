"""One split of a packed folder, compared with its table, its manifest and itself."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loaders.errors import FeedrateError
from loaders.manifest import MANIFEST_NAME, Manifest, PackedSplit
from loaders.packed_folder import open_packed
from loaders.records import Records
from loaders.sample_table import SampleTable
from loaders.seek_points import SeekPoints
from loaders.shard_records import ShardRecords
from loaders.soundness import PACK_AGAIN

from ..channel_statistics import channel_statistics, statistics_digest
from ..crew import run_in_order
from ..formats.shards import index_lines
from ..progress import Phase
from ..restarts import why_no_kernel
from ..samples import Stored
from .check_tasks import CheckTasks, PackedRecords
from .image_check import CheckReport, CheckTask, CheckWork

_MOST_NAMED = 20  # samples of a split that are named; the others are counted
_ROUNDED = 1e-6  # statistics of the very pixels that were counted differ by less

Columns = Mapping[str, NDArray[np.int64]]  # labels, widths and heights, [N] each


class _Seen:
    """What the crew has reported, in bounded memory."""

    def __init__(self) -> None:
        self.named: list[str] = []
        self.num_wrong = 0
        self.histogram = np.zeros((3, 256), np.int64)
        self.num_encoded = 0

    def add(self, report: CheckReport) -> None:
        self.named += report.findings[: _MOST_NAMED - len(self.named)]
        self.num_wrong += len(report.findings)
        self.histogram += report.histogram
        self.num_encoded += report.num_encoded


class SplitCheck:
    """One split: its table, its formats, its images. After `run` these are complete: `findings`, `remarks` on what was
    not looked at, and `num_compared`.
    """

    def __init__(self, folder: Path, split: str, manifest: Manifest) -> None:
        self.findings: list[str] = []
        self.remarks: list[str] = []
        self.num_compared = 0
        self._folder, self._split, self._manifest = folder, split, manifest
        self._packed: PackedSplit = manifest.splits[split]
        self._table = SampleTable(folder / self._packed.samples.name, self._packed.num_samples)

    def run(self, num_workers: int, phase: Phase) -> None:
        """Raises FeedrateError for a dead worker."""
        columns = self._columns()
        opened: dict[str, PackedRecords] = {}
        try:
            for name in self._packed.formats:
                try:
                    records = open_packed(self._folder, self._split, name)
                except FeedrateError as error:
                    self.findings.append(str(error))
                    continue
                assert isinstance(records, PackedRecords)
                opened[name] = records
            if columns is None:
                return
            for name, records in opened.items():
                where = self._folder / self._packed.formats[name][0].name
                self.findings += compare_columns(records, where, columns, self._table.path)
                if isinstance(records, ShardRecords):
                    paths = [self._folder / file.name for file in self._packed.formats[name]]
                    self.findings += check_indices(records, paths)
            if opened:
                self._check_images(opened, columns, num_workers, phase)
        finally:
            for records in opened.values():
                records.close()

    def _columns(self) -> Columns | None:
        """Labels, widths and heights as the table has them; None where it is not sound, which is a finding."""
        classes, counted = self._manifest.classes, self._packed.samples_per_class
        try:
            labels = self._table.labels(len(classes))
            widths, heights = self._table.sides()
            self._table.names()
            source_index = self._table.column("source_index")
        except FeedrateError as error:
            self.findings.append(str(error))
            return None
        if len(np.unique(source_index)) < len(source_index):
            self.findings.append(f"{self._table.path} has a sample of the source twice: {PACK_AGAIN}")
        counts = np.bincount(labels, minlength=len(classes))
        other = np.flatnonzero(counts != counted)
        if len(other):
            label = int(other[0])
            self.findings.append(
                f"{self._table.path} has {counts[label]:,} samples of class {label} ({classes[label]}) and"
                f" {MANIFEST_NAME} counts {counted[label]:,} ({len(other):,} such classes): {PACK_AGAIN}"
            )
        return {"labels": labels, "widths": widths.astype(np.int64), "heights": heights.astype(np.int64)}

    def _check_images(
        self,
        opened: Mapping[str, PackedRecords],
        columns: Mapping[str, NDArray[np.int64]],
        num_workers: int,
        phase: Phase,
    ) -> None:
        """Let the crew look at every sample."""
        num_samples = self._packed.num_samples
        counted = self._counted()
        tasks = CheckTasks(opened, columns, counted, self._points(opened))
        seen = _Seen()

        def place(task: CheckTask, report: CheckReport) -> None:
            seen.add(report)

        def describe(number: int, item: int) -> str:
            stored: Stored = next(iter(tasks[number].stored.values()))[max(0, item)]
            return stored.where()

        work = CheckWork(all_kept=self._num_original() == num_samples)
        with (
            phase(f"compare {self._split}", num_samples) as advance,
            closing(run_in_order(work, tasks, num_workers, place, describe)) as done,
        ):
            for number in done:
                advance(tasks.num_samples(number), tasks.num_bytes(number))
                self.num_compared += tasks.num_samples(number)
        self.findings += [f"{finding}: {PACK_AGAIN}" for finding in seen.named]
        if seen.num_wrong > len(seen.named):
            self.findings.append(
                f"{self._folder}: '{self._split}' has {seen.num_wrong - len(seen.named):,} more findings about samples"
            )
        if counted.any() and not seen.num_wrong:
            self._compare_statistics(seen)

    def _points(self, opened: Mapping[str, PackedRecords]) -> SeekPoints | None:
        """Those of the split, where there are any and they can be made again."""
        if self._packed.seek_points is None:
            return None
        if reason := why_no_kernel():
            self.remarks.append(f"seek points are not compared with the JPEGs: {reason}")
            return None
        return next((points for one in opened.values() if (points := getattr(one, "seek_points", None))), None)

    def _num_original(self) -> int:
        """How many images kept their bytes, as the manifest says. A number that cannot be is found."""
        told = self._manifest.source.get("num_original", {}).get(self._split, 0)
        if not isinstance(told, int) or not 0 <= told <= self._packed.num_samples:
            self.findings.append(
                f"{self._folder / MANIFEST_NAME} says that {told} of the {self._packed.num_samples:,} images of"
                f" '{self._split}' kept their bytes: {PACK_AGAIN}"
            )
            return 0
        return told

    def _counted(self) -> NDArray[np.bool_]:
        """bool [N]: whose pixels the statistics came from; none where that cannot be told any more."""
        statistics, num_samples = self._manifest.statistics, self._packed.num_samples
        counted = np.zeros(num_samples, np.bool_)
        if statistics.split != self._split or statistics.num_samples < 1:
            return counted
        every = max(1, round(num_samples / statistics.num_samples))
        if len(range(0, num_samples, every)) == statistics.num_samples and (every == 1 or not self._packed.num_bad):
            counted[::every] = True
        return counted

    def _compare_statistics(self, seen: _Seen) -> None:
        """With the pixels, unless packing encoded them after it counted; else all there is to compare is their SHA-256,
        which `verify` does."""
        statistics, counted = self._manifest.statistics, self._manifest.source.get("statistics_sha256")
        if seen.num_encoded:
            if counted is None:
                self.remarks.append(
                    f"the channel statistics of '{self._split}' are not compared: its images were encoded after they"
                    " were counted, and their SHA-256 is not in the manifest, where packing notes it today"
                )
            return
        found = np.array(channel_statistics(seen.histogram))
        told = np.array([statistics.mean, statistics.std])
        if counted in (None, statistics_digest(statistics)) and not (np.abs(found - told) <= _ROUNDED).all():
            mean, std = (", ".join(f"{value:.2f}" for value in values) for values in found)
            self.findings.append(
                f"{self._folder / MANIFEST_NAME} has statistics that are not those of its '{self._split}' split"
                f" (mean {mean}, std {std}): {PACK_AGAIN}"
            )


def compare_columns(records: Records, where: Path, columns: Columns, table: Path) -> Iterator[str]:
    """Sentences about labels, widths and heights that a format tells otherwise than the table."""
    for name, told in columns.items():
        stored = getattr(records, name)
        if len(stored) != len(told):
            yield f"{where} has {len(stored):,} samples and {table.name} {len(told):,}: {PACK_AGAIN}"
            return
        other = np.flatnonzero(stored != told)
        if len(other):
            first = int(other[0])
            yield (
                f"{where}, sample {first} has {name[:-1]} {stored[first]} and {told[first]} in {table.name}"
                f" ({len(other):,} such): {PACK_AGAIN}"
            )


def check_indices(shards: ShardRecords, paths: Sequence[Path]) -> Iterator[str]:
    """Sentences about .idx files that are missing or do not say where things lie in their .tar.

    shards   opened, their places checked;  paths   all files of the format: each .tar and behind it its .idx
    """
    tars = [path for path in paths if path.suffix == ".tar"]
    expected_paths = [path for tar in tars for path in (tar, tar.with_suffix(".idx"))]
    if list(paths) != expected_paths:
        yield f"{tars[0].parent}: its shards are not each a .tar and its .idx, in order: {PACK_AGAIN}"
        return
    borders = np.searchsorted(shards.shards, np.arange(len(tars) + 1)).tolist()
    for tar, start, stop in zip(tars, borders[:-1], borders[1:], strict=True):
        path = tar.with_suffix(".idx")
        try:
            lines = path.read_text("ascii", "replace").split("\n")
        except OSError as error:
            yield f"{path} cannot be read ({error.strerror}): check its permissions"
            continue
        part = slice(start, stop)
        told = index_lines(start, shards.positions[part], shards.sizes[part], shards.labels[part])
        expected_lines = [*told, ""]  # the last line ends with a newline too
        for number, (found, expected) in enumerate(zip_longest(lines, expected_lines), start=1):
            if found != expected:
                yield (
                    f"{path}, line {number} is {'missing' if found is None else repr(found[:80])} where {tar.name}"
                    f" needs {'nothing' if expected is None else repr(expected)}: {PACK_AGAIN}"
                )
                break
