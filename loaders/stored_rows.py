"""What the native kernel is told of some rows of a batch: where their stored bytes lie, and what to cut out of them."""

import time
import warnings

import numpy as np
from numpy.typing import NDArray

from .addresses import address_of, addresses_of
from .errors import LoaderError
from .native.kernel import ROW
from .pixels import Stored, most_pixels
from .plan import PADDING_ID, PlanRows
from .records import Records, lie_in_memory
from .seek_points import SeekPoints
from .stage_writer import StageWriter
from .thread_team import Part


class StoredRows:
    """Tables for the kernel. One thread's own.

    times  where it is on, the tables say what finding the bytes took
    """

    def __init__(self, records: Records, times: StageWriter) -> None:
        self._records = records
        self._seek_points: SeekPoints | None = getattr(records, "seek_points", None)
        self._addresses = addresses_of(records)
        self._addresses_of_points = None if self._seek_points is None else addresses_of(self._seek_points, "of")
        if self._seek_points is not None and self._addresses_of_points is None:
            self._addresses = None
        self._times_reading = times.is_on and not lie_in_memory(records)

    def table(self, rows: PlanRows, part: Part) -> tuple[NDArray[np.void], list[Stored]]:
        """ROW [part.stop - part.start], and what keeps the bytes in it alive.

        Without an address, so that the kernel leaves them alone: padding, what cannot be read, and encoded images that
        are larger than Pillow would open.
        """
        ids = rows.ids[part.start : part.stop]
        widths, heights = self._records.widths[ids], self._records.heights[ids]
        is_raw = self._records.is_raw[ids]
        table = np.zeros(len(ids), dtype=ROW)
        table["width"], table["height"], table["is_raw"] = widths, heights, is_raw
        table["rect"], table["flip"] = rows.rects[part.start : part.stop], rows.flips[part.start : part.stop]
        table["read_wall_ns"] = -1
        wanted = (ids != PADDING_ID) & (is_raw | (widths.astype(np.int64) * heights <= most_pixels()))
        return table, self._find(table, ids, wanted)

    def _find(self, table: NDArray[np.void], ids: NDArray[np.int64], wanted: NDArray[np.bool_]) -> list[Stored]:
        """Put into the table where the wanted rows' bytes lie in memory. Returns what keeps them there.

        All at once where the records can say it.
        """
        if self._addresses is None:
            return self._read_one_by_one(table, ids, wanted)
        begun_cpu_ns = time.thread_time_ns() if self._times_reading else 0
        begun_ns = time.perf_counter_ns() if self._times_reading else 0
        try:
            held, table["address"][wanted], table["num_bytes"][wanted] = self._addresses(ids[wanted])
        except LoaderError:  # not all of them need be concerned
            return self._read_one_by_one(table, ids, wanted)
        if self._addresses_of_points is not None:
            try:
                held_points, addresses, sizes = self._addresses_of_points(ids[wanted])
                table["seek_address"][wanted], table["seek_bytes"][wanted] = np.where(sizes > 0, addresses, 0), sizes
                held += held_points
            except LoaderError as error:
                self._go_without_points(error)
        if self._times_reading and (num_read := int(wanted.sum())):
            table["read_wall_ns"] = (time.perf_counter_ns() - begun_ns) // num_read
            table["read_cpu_ns"] = (time.thread_time_ns() - begun_cpu_ns) // num_read
        return held

    def _read_one_by_one(
        self, table: NDArray[np.void], ids: NDArray[np.int64], wanted: NDArray[np.bool_]
    ) -> list[Stored]:
        """The same by reading each."""
        held, addresses, sizes = [], [0] * len(ids), [0] * len(ids)
        seek_addresses, seek_sizes = [0] * len(ids), [0] * len(ids)
        walls_ns = [-1] * len(ids)
        begun_cpu_ns = time.thread_time_ns() if self._times_reading else 0
        begun_ns = time.perf_counter_ns() if self._times_reading else 0
        for offset in np.flatnonzero(wanted).tolist():
            try:
                # the kernel reads one byte after the other; people's own records may hand out anything
                data = np.ascontiguousarray(self._records.read(int(ids[offset])))
            except LoaderError:  # reading it again says so, in its turn
                begun_ns = time.perf_counter_ns() if self._times_reading else 0
                continue
            held.append(data)
            addresses[offset], sizes[offset] = address_of(data), data.size
            points = self._points_of(int(ids[offset]))
            if points is not None:
                held.append(points)
                seek_addresses[offset], seek_sizes[offset] = address_of(points), points.size
            if self._times_reading:
                now_ns = time.perf_counter_ns()
                walls_ns[offset], begun_ns = now_ns - begun_ns, now_ns
        num_read = sum(map(bool, addresses))
        if num_read and self._times_reading:
            table["read_cpu_ns"] = (time.thread_time_ns() - begun_cpu_ns) // num_read
        table["read_wall_ns"] = walls_ns
        table["address"], table["num_bytes"] = addresses, sizes
        table["seek_address"], table["seek_bytes"] = seek_addresses, seek_sizes
        return held

    def _points_of(self, index: int) -> Stored | None:
        """A sample's seek points; without any where their file is not there any more, which is said, once a thread."""
        if self._seek_points is None:
            return None
        try:
            return self._seek_points.of(index)
        except LoaderError as error:
            self._go_without_points(error)
            return None

    def _go_without_points(self, error: LoaderError) -> None:
        self._seek_points = self._addresses_of_points = None
        warnings.warn(f"{error}; until then JPEGs are decoded from their start", RuntimeWarning, stacklevel=2)
