"""What a worker of `verify` does with a task: read samples in every format, decode them, compare."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from loaders.shard_layout import BLOCK_BYTES, image_name, label_name, name_and_size

from ..encode import Encoded, Encoding, UndecodableImage, Wanted, encode
from ..restarts import points_of
from ..samples import Stored

_AS_STORED = Encoding()
_PIXELS_OF = ("raw", "beton", "shards")  # whose pixels are counted: those that were never encoded come first


@dataclass(frozen=True)
class CheckTask:
    """Neighbours of one split in all its formats.

    first    the number of the first of them
    stored   by format, where each lies; of "shards" the image with its header and the label behind it
    labels, widths, heights, image_bytes (in the shards; 0 where there are none)   int64 [n], as the table says
    counted  bool [n], whose pixels are counted
    seek_points  where what is noted of each lies; None where nothing is noted of the split, or cannot be compared
    """

    first: int
    stored: Mapping[str, Sequence[Stored]]
    labels: NDArray[np.int64]
    widths: NDArray[np.int64]
    heights: NDArray[np.int64]
    image_bytes: NDArray[np.int64]
    counted: NDArray[np.bool_]
    seek_points: Sequence[Stored] | None = None


@dataclass
class CheckReport:
    """What is wrong, one sentence a finding, and the values of the pixels counted: int64 [3, 256].

    num_encoded  of the samples counted: packing may have encoded these, and counted other pixels before
    """

    findings: list[str] = field(default_factory=list)
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros((3, 256), np.int64))
    num_encoded: int = 0


@dataclass(frozen=True)
class CheckWork:
    """See `crew.Work`.

    all_kept  every JPEG is the source's own, so that raw pixels are just its pixels
    """

    all_kept: bool

    def read_ahead(self, task: CheckTask) -> None:
        """See `crew.Work`."""
        for several in task.stored.values():
            for stored in several:
                stored.will_be_read()

    def prepare(self, task: CheckTask, at: Callable[[int], None]) -> tuple[CheckReport, None]:
        """Check the task's samples; nothing is kept."""
        report = CheckReport()
        for item in range(len(task.labels)):
            at(item)
            _SampleCheck(task, item, report).run(self)
        return report, None

    def write(self, kept: None, place: None) -> None:
        """Nothing is written."""


class _SampleCheck:
    def __init__(self, task: CheckTask, item: int, report: CheckReport) -> None:
        self._stored = {name: several[item] for name, several in task.stored.items()}
        self._label, self._image_bytes = int(task.labels[item]), int(task.image_bytes[item])
        self._size = int(task.widths[item]), int(task.heights[item])
        self._number, self._is_counted = task.first + item, bool(task.counted[item])
        self._seek_points = None if task.seek_points is None else task.seek_points[item]
        self._report = report

    def run(self, work: CheckWork) -> None:
        """Read what has to be looked at, and compare."""
        jpegs, pixels = self._read()
        decoded: dict[str, Encoded] = {}
        if len(jpegs) == 2 and np.array_equal(jpegs["beton"], jpegs["shards"]):
            del jpegs["shards"]
        elif len(jpegs) == 2:
            self._wrong("shards", f"is another JPEG than that in {self._stored['beton'].where()}")
        for name, jpeg in jpegs.items():
            image = self._decode(name, jpeg)
            if image is not None:
                decoded[name] = image
        if self._seek_points is not None:
            self._compare_points(self._seek_points, next(iter(jpegs.values()), None))
        if len(pixels) == 2 and not np.array_equal(pixels["beton"], pixels["raw"]):
            self._wrong("raw", f"has other pixels than {self._stored['beton'].where()}")
        for name, image in decoded.items():
            for raw, stored in pixels.items() if work.all_kept else ():
                if image.pixels is not None and not np.array_equal(image.pixels.ravel(), stored):
                    self._wrong(raw, f"has other pixels than {self._stored[name].where()}")
        if self._is_counted:
            self._report.num_encoded += self._count(decoded, pixels) in decoded and not work.all_kept

    def _read(self) -> tuple[dict[str, NDArray[np.uint8]], dict[str, NDArray[np.uint8]]]:
        """By format: JPEGs, and raw pixels, which are left out where there is nothing to compare them with."""
        jpegs, pixels = {}, {}
        needs_pixels = self._is_counted or len(self._stored) > 1
        for name, stored in self._stored.items():
            if stored.raw_size is not None and not needs_pixels:
                continue
            try:
                data = stored.read()
            except OSError as error:
                self._wrong(name, f"cannot be read ({error.strerror})")
                continue
            if name == "shards":
                jpegs[name] = self._image_of(data)
            elif stored.raw_size is None:
                jpegs[name] = data
            else:
                pixels[name] = data
        return jpegs, pixels

    def _image_of(self, members: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The image of a shard's two members; both headers and the label are compared with the table."""
        end = members.size - BLOCK_BYTES
        headers = members[:BLOCK_BYTES].tobytes(), members[end - BLOCK_BYTES : end].tobytes()
        label = str(self._label).encode()
        expected = (image_name(self._number), self._image_bytes), (label_name(self._number), len(label))
        for header, (name, size) in zip(headers, expected, strict=True):
            found = name_and_size(header)
            if found != (name, size):
                told = "no header" if found is None else f"a header of {found[0]}, {found[1]:,} bytes"
                self._wrong("shards", f"has {told}, where the table says {name}, {size:,} bytes")
        stored = members[end:].tobytes()
        if stored != label.ljust(BLOCK_BYTES, b"\0"):
            found_label = stored.rstrip(b"\0")[:20].decode("ascii", "replace")
            self._wrong("shards", f"has label {found_label} in its .cls and {self._label} in the table")
        return members[BLOCK_BYTES : BLOCK_BYTES + self._image_bytes]

    def _decode(self, name: str, jpeg: NDArray[np.uint8]) -> Encoded | None:
        wanted = Wanted(jpeg=False, pixels=True, histogram=self._is_counted)
        try:
            image = encode(jpeg, None, _AS_STORED, wanted)
        except UndecodableImage as error:
            self._wrong(name, f"cannot be decoded ({error})")
            return None
        if (image.width, image.height) != self._size:
            width, height = self._size
            self._wrong(name, f"is {image.width}×{image.height} px and {width}×{height} px in the table")
        return image

    def _compare_points(self, noted: Stored, jpeg: NDArray[np.uint8] | None) -> None:
        try:
            found = noted.read().tobytes() if noted.num_bytes else b""
        except OSError as error:
            self._report.findings.append(f"{noted.where()} cannot be read ({error.strerror})")
            return
        if jpeg is None or not found:
            return  # which of them have none, packing decides
        spacing = int.from_bytes(found[:2], "little")
        if not spacing or found != points_of(jpeg, spacing):
            self._report.findings.append(f"{noted.where()}, has other seek points than its JPEG")

    def _count(self, decoded: Mapping[str, Encoded], pixels: Mapping[str, NDArray[np.uint8]]) -> str:
        """Add the values of the sample's pixels, once; returns the format that they were taken from, "" for none."""
        for name in _PIXELS_OF:
            histogram = decoded[name].histogram if name in decoded else None
            if name in pixels and pixels[name].size == 3 * self._size[0] * self._size[1]:
                wanted = Wanted(jpeg=False, pixels=False, histogram=True)
                histogram = encode(pixels[name], self._size, _AS_STORED, wanted).histogram
            if histogram is not None:
                self._report.histogram += histogram
                return name
        return ""

    def _wrong(self, name: str, complaint: str) -> None:
        self._report.findings.append(f"{self._stored[name].where()}, {complaint}")
