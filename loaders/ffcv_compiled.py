"""The inner loop of the `ffcv` loader, compiled by numba: stored samples to finished images, no Python inside.

What is compiled is kept in numba's cache (NUMBA_CACHE_DIR, else beside this file, else in the user's cache folder), so
a second start finds it. For that, C functions are named to LLVM: ctypes objects bar caching. There is no parallel loop,
since numba's threading layers end the process, one when two loaders run at once, another after a fork: threads are
Python's, and what they call runs without the interpreter's lock.
"""

import ctypes

import numpy as np
from numba import types
from numpy.typing import NDArray

from . import stage_writer
from .ffcv_kept import compiled as _compiled
from .ffcv_kept import external as _external
from .ffcv_kept import lib

# columns of the table that says what to do, int64 [rows, NUM_COLUMNS]; a row of width 0 is padding
POSITION, SIZE, IS_RAW, WIDTH, HEIGHT, LEFT, TOP, CROP_WIDTH, CROP_HEIGHT, FLIP, STATUS = range(11)
NUM_COLUMNS = 11
# a status, else 0: not done here, and Python is to look at it; and, beside that, its reading has been noted
ODD, TRIED = 1, 2

# Of the memory that `stage_writer` describes. Written out, since numba notices changes in this file alone: what it has
# kept would go on with the old layout.
_READ, _DECODE, _AUGMENT = 0, 1, 2
_DELAY_CELLS, _STAGE_CELLS, _NUM_BUCKETS, _FIRST_OCTAVE, _PARTS_BITS, _CPU_EVERY_IMAGES = 8, 260, 256, 6, 3, 8
_COUNT, _SAMPLED_COUNT, _WALL_NS, _SAMPLED_CPU_NS, _HISTOGRAM = 0, 1, 2, 3, 4
assert (
    *(_DELAY_CELLS, _STAGE_CELLS, _NUM_BUCKETS, _FIRST_OCTAVE, _PARTS_BITS, _CPU_EVERY_IMAGES),
    *(_COUNT, _SAMPLED_COUNT, _WALL_NS, _SAMPLED_CPU_NS, _HISTOGRAM),
) == stage_writer.LAYOUT
# of `clock`: what the system writes the time to; when the stage began; images until processor time is read again, and
# whether it is of this one; what was seen of pages
_SECONDS, _NS, _BEGUN, _BEGUN_CPU, _UNTIL_CPU, _SAMPLES_CPU, _SEEN = 0, 1, 2, 3, 4, 5, 6
CLOCK_CELLS = 8
_MONOTONIC, _THREAD_CPU = 1, 3  # Linux's numbers of clocks
_PAGE_BYTES = 4096

# From libturbojpeg, whichever libffcv is linked with. FFCV's own `imdecode` asks it for a faster, less exact transform.
_RGB = 0  # TJPF_RGB
_PLAIN_COLOURS = 2  # TJCS_RGB 0, TJCS_YCbCr 1, TJCS_GRAY 2: what becomes RGB exactly as in `pixels.Decoder`
_int, _pointer = types.int32, types.uintp

lib.tjInitDecompress.restype = ctypes.c_void_p
lib.tjDestroy.argtypes = (ctypes.c_void_p,)
lib.tjDestroy.restype = ctypes.c_int

_header = _external("tjDecompressHeader3", _int, *[_pointer] * 2, types.uint64, *[_pointer] * 4)
_decompress = _external(
    "tjDecompress2", _int, *[_pointer] * 2, types.uint64, _pointer, *[_int] * 5
)  # handle, data, size, pixels, width, pitch, height, format, flags
_clock_gettime = _external("clock_gettime", _int, _int, _pointer)
_nanosleep = _external("nanosleep", _int, _pointer, _pointer)
_resize = _external("resize", types.void, *[types.int64] * 11)
if hasattr(lib, "_ZN2cv13setNumThreadsEi"):
    lib._ZN2cv13setNumThreadsEi(1)  # libffcv's OpenCV would split large outputs over threads of its own


def new_decompressor() -> int:
    """A handle for `decode_rows`, one thread's own, to be given to `free_decompressor`."""
    handle = lib.tjInitDecompress()
    if not handle:
        raise MemoryError("libturbojpeg could not begin")
    return int(handle)


def free_decompressor(handle: int) -> None:
    """End what `new_decompressor` began."""
    lib.tjDestroy(handle)


@_compiled
def decode_rows(
    table: NDArray[np.int64],
    stored: NDArray[np.uint8],
    slab: NDArray[np.uint8],
    fill: NDArray[np.int64],
    scratch: NDArray[np.uint8],
    handle: int,
    notes: NDArray[np.int64],
    clock: NDArray[np.int64],
) -> None:
    """Make all rows of `table` in `slab`, uint8 [rows, S, S, 3], from `stored`, the bytes of the file.

    scratch  uint8 [1, 1, bytes], at least one output; a JPEG for which the rest is too small gets memory of its own.
             Three axes, because a stock FFCV Loader in the same process spoils numba's type of arrays with one or two
    notes    a thread's row of the memory of `stage_writer`, or empty: then nothing is noted, nor delayed
    clock    int64 [CLOCK_CELLS], the thread's own, kept from call to call

    A row that cannot be made here, or only with a warning, gets status TRIED; one that is ODD is left alone.
    """
    num_out = slab.shape[1] * slab.shape[2] * 3
    unflipped = scratch[0, 0, :num_out].reshape((slab.shape[1], slab.shape[2], 3))
    spare = scratch[0, 0, num_out:]
    for row in range(len(table)):
        task = table[row]
        if task[STATUS] == ODD:
            continue
        if task[WIDTH] == 0:
            slab[row] = 0
            continue
        width, height = task[WIDTH], task[HEIGHT]
        data = stored[task[POSITION] : task[POSITION] + task[SIZE]]
        _begin_image(notes, clock)
        if len(notes):
            _touch(data, task, clock)
        _end_stage(notes, clock, _READ, 1)
        if task[IS_RAW]:
            _render(data.reshape((height, width, 3)), task, fill, unflipped, slab[row])
            _end_stage(notes, clock, _AUGMENT, 1)
            continue
        num_bytes = 3 * width * height
        memory = spare[:num_bytes] if num_bytes <= len(spare) else np.empty(num_bytes, np.uint8)
        pixels = memory.reshape((height, width, 3))
        if _decode(data, pixels, handle):
            _end_stage(notes, clock, _DECODE, 1)
            _render(pixels, task, fill, unflipped, slab[row])
            _end_stage(notes, clock, _AUGMENT, 1)
        else:
            _end_stage(notes, clock, _DECODE, 0)
            task[STATUS] = TRIED


@_compiled
def _touch(data: NDArray[np.uint8], task: NDArray[np.int64], clock: NDArray[np.int64]) -> None:
    """Look at every page that is needed, so that it is read now: all of a JPEG, of pixels the rectangle's rows."""
    start, stop = 0, len(data)
    if task[IS_RAW]:
        stride = 3 * task[WIDTH]
        start, stop = max(0, task[TOP]) * stride, min(task[HEIGHT], task[TOP] + task[CROP_HEIGHT]) * stride
    for at in range(start, stop, _PAGE_BYTES):
        clock[_SEEN] += data[at]  # noted somewhere, or the compiler would leave it out
    if stop > start:
        clock[_SEEN] += data[stop - 1]


@_compiled
def _decode(data: NDArray[np.uint8], pixels: NDArray[np.uint8], handle: int) -> bool:
    """Whether `data` is a JPEG of this very size that decodes without as much as a warning."""
    if len(data) < 3 or data[0] != 0xFF or data[1] != 0xD8 or data[2] != 0xFF:
        return False
    height, width = pixels.shape[0], pixels.shape[1]
    found = np.empty(4, np.int32)  # width, height, subsampling, colours
    address = found.ctypes.data
    result = _header(
        handle,
        data.ctypes.data,
        len(data),
        address,
        address + np.uint64(4),
        address + np.uint64(8),
        address + np.uint64(12),
    )
    if result != 0 or found[0] != width or found[1] != height or found[3] > _PLAIN_COLOURS:
        return False
    result = _decompress(
        handle,
        data.ctypes.data,
        len(data),
        pixels.ctypes.data,
        np.int32(width),
        np.int32(0),
        np.int32(height),
        np.int32(_RGB),
        np.int32(0),
    )
    return bool(result == 0)


@_compiled
def _render(
    pixels: NDArray[np.uint8],
    task: NDArray[np.int64],
    fill: NDArray[np.int64],
    unflipped: NDArray[np.uint8],
    out: NDArray[np.uint8],
) -> None:
    """Cut, filling what lies past the border; resize; flip: what `pixels.Renderer` does in mode "area"."""
    target = unflipped if task[FLIP] else out
    left, top, width, height = task[LEFT], task[TOP], task[CROP_WIDTH], task[CROP_HEIGHT]
    if left >= 0 and top >= 0 and left + width <= pixels.shape[1] and top + height <= pixels.shape[0]:
        _scale(pixels, left, top, width, height, target)
    else:
        part = np.empty((height, width, 3), np.uint8)
        for channel in range(3):
            part[:, :, channel] = fill[channel]
        x0, x1 = max(left, 0), min(left + width, pixels.shape[1])
        y0, y1 = max(top, 0), min(top + height, pixels.shape[0])
        if x0 < x1 and y0 < y1:
            part[y0 - top : y1 - top, x0 - left : x1 - left] = pixels[y0:y1, x0:x1]
        _scale(part, 0, 0, width, height, target)
    if task[FLIP]:
        _mirror(unflipped, out)


@_compiled
def _scale(pixels: NDArray[np.uint8], left: int, top: int, width: int, height: int, out: NDArray[np.uint8]) -> None:
    """FFCV's resize, OpenCV's INTER_AREA, of a rectangle inside `pixels`; a copy where nothing is to be resized."""
    if height == out.shape[0] and width == out.shape[1]:
        out[:] = pixels[top : top + height, left : left + width]
        return
    _resize(
        0,
        pixels.ctypes.data,
        pixels.shape[0],
        pixels.shape[1],
        top,
        top + height,
        left,
        left + width,
        out.ctypes.data,
        out.shape[0],
        out.shape[1],
    )


@_compiled
def _mirror(image: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Left to right. Unsigned indices, since numba else allows for negative ones, which is twice as slow."""
    one, two, three = np.uint64(1), np.uint64(2), np.uint64(3)
    width = np.uint64(image.shape[1])
    for y in range(image.shape[0]):
        row, mirrored = image[y].reshape(-1), out[y].reshape(-1)
        for x in range(width):
            to, source = three * x, three * (width - one - x)
            mirrored[to] = row[source]
            mirrored[to + one] = row[source + one]
            mirrored[to + two] = row[source + two]


@_compiled
def _begin_image(notes: NDArray[np.int64], clock: NDArray[np.int64]) -> None:
    """An image begins, and its first stage."""
    if len(notes) == 0:
        return
    clock[_UNTIL_CPU] -= 1
    clock[_SAMPLES_CPU] = clock[_UNTIL_CPU] <= 0
    if clock[_SAMPLES_CPU]:
        clock[_UNTIL_CPU] = _CPU_EVERY_IMAGES
        clock[_BEGUN_CPU] = _now(clock, _THREAD_CPU)
    clock[_BEGUN] = _now(clock, _MONOTONIC)


@_compiled
def _end_stage(notes: NDArray[np.int64], clock: NDArray[np.int64], stage: int, images: int) -> None:
    """The stage under way ends, by `images` images, 1 or 0, after the delay that is asked for; the next begins."""
    if len(notes) == 0:
        return
    if notes[stage] != 0 and images:
        _obey(notes[stage], clock)
    at = _DELAY_CELLS + stage * _STAGE_CELLS
    wall = _now(clock, _MONOTONIC)
    notes[at + _WALL_NS] += wall - clock[_BEGUN]
    notes[at + _COUNT] += images
    notes[at + _HISTOGRAM + _bucket_of(wall - clock[_BEGUN])] += images
    clock[_BEGUN] = wall
    if clock[_SAMPLES_CPU]:
        cpu = _now(clock, _THREAD_CPU)
        notes[at + _SAMPLED_COUNT] += images
        notes[at + _SAMPLED_CPU_NS] += cpu - clock[_BEGUN_CPU]
        clock[_BEGUN_CPU] = cpu


@_compiled
def _now(clock: NDArray[np.int64], which: int) -> int:
    _clock_gettime(np.int32(which), clock.ctypes.data)
    return int(clock[_SECONDS] * 1_000_000_000 + clock[_NS])


@_compiled
def _obey(delay: int, clock: NDArray[np.int64]) -> None:
    if delay > 0:
        clock[_SECONDS], clock[_NS] = delay // 1_000_000_000, delay % 1_000_000_000
        while _nanosleep(clock.ctypes.data, clock.ctypes.data) != 0:
            pass  # a signal came: the rest of it
        return
    end = _now(clock, _THREAD_CPU) - delay
    while _now(clock, _THREAD_CPU) < end:
        pass


@_compiled
def _bucket_of(wall_ns: int) -> int:
    octave = 0
    while wall_ns >> (octave + 1):
        octave += 1
    if octave < _FIRST_OCTAVE:
        return 0
    part = (wall_ns >> (octave - _PARTS_BITS)) & 7
    return int(min(_NUM_BUCKETS - 1, (octave - _FIRST_OCTAVE) * 8 + part))
