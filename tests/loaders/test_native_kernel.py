"""The native kernel gives the bits of OpenCV or Pillow and of a whole decode, or leaves the image alone."""

import ctypes
import io
import itertools
import mmap

import cv2
import numpy as np
import pytest
import simplejpeg
from pictures import smooth_picture
from PIL import Image
from stored_samples import RECORD_KINDS

from loaders import painters
from loaders.addresses import address_of
from loaders.crops import CenterCrop, PadCrop, RandomResizedCrop
from loaders.native import library
from loaders.native.kernel import ROW, Kernel
from loaders.pixels import Decoder, Renderer, cut
from loaders.plan import Sequential, Shuffled, View

FILL = (7, 77, 177)


@pytest.fixture(autouse=True)
def _kernel():
    if library.load("exact") is None:
        pytest.skip(library.why_not("exact"))


def painted(kernel: Kernel, data: np.ndarray, sample, rects, flips, is_raw: bool, size_px: int):
    """(images, which of them are done) of rectangles of one sample; `sample` is its (width, height)."""
    table = np.zeros(len(rects), dtype=ROW)
    table["address"], table["num_bytes"], table["is_raw"] = address_of(data), data.size, is_raw
    table["width"], table["height"] = sample
    table["rect"], table["flip"] = rects, flips
    slab = np.full((len(rects) + 2, size_px, size_px, 3), 99, dtype=np.uint8)
    is_done = kernel(table, slab[1:-1])
    assert np.all(slab[0] == 99) and np.all(slab[-1] == 99), "it wrote where it has no business"
    return slab[1:-1], is_done


def picture(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    if rng.random() < 0.4:
        return rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return smooth_picture(width, height, int(rng.integers(9)))


def rectangle(rng: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int]:
    cut_w, cut_h = int(rng.integers(1, width + 1)), int(rng.integers(1, height + 1))
    return int(rng.integers(0, width - cut_w + 1)), int(rng.integers(0, height - cut_h + 1)), cut_w, cut_h


def test_rectangles_are_copied_where_there_is_room_and_nowhere_else():
    rng = np.random.default_rng(8)
    pixels = rng.integers(0, 256, (31, 43, 3), dtype=np.uint8)
    table = np.zeros(200, dtype=ROW)
    table["address"], table["num_bytes"], table["is_raw"] = address_of(pixels), pixels.size, True
    table["width"], table["height"] = 43, 31
    table["rect"] = [(*rng.integers(-20, 60, 2), *rng.integers(0, 50, 2)) for _ in table]
    table["flip"] = rng.integers(0, 2, 200)  # which is for who resizes
    table["num_bytes"][7] -= 3
    table["address"][8] = 0
    areas = table["rect"][:, 2] * table["rect"][:, 3]
    rooms = areas + rng.integers(-1, 3, 200).clip(-areas)
    starts = np.cumsum([5, *rooms])
    out = np.full((starts[-1] + 5, 3), 99, dtype=np.uint8)
    is_done = Kernel(library.load(), 1, FILL).copy(table, out, starts)
    expected, is_expected = np.full_like(out, 99), []
    for number, (left, top, width, height) in enumerate(table["rect"].tolist()):
        overlaps = left < 43 and top < 31 and left + width > 0 and top + height > 0 and width > 0 and height > 0
        is_expected.append(overlaps and areas[number] <= rooms[number] and number not in (7, 8))
        if is_expected[-1]:
            part = cut(pixels, (left, top, width, height), FILL).reshape(-1, 3)
            expected[starts[number] : starts[number] + len(part)] = part
    assert is_done.tolist() == is_expected and 20 < sum(is_expected) < 180
    assert np.array_equal(out, expected)


@pytest.mark.parametrize("vectors", [True, False], ids=["vectors", "plain"])
@pytest.mark.parametrize("mode", ["exact", "bicubic", "area"])
@pytest.mark.parametrize("size_px", [1, 3, 7, 32, 96, 224])
def test_resizing_has_pillows_or_opencvs_bits(vectors, mode, size_px):
    rng = np.random.default_rng(size_px)
    kernel = Kernel(library.load(mode), size_px, FILL, mode, vectors)
    render = Renderer(size_px, FILL, mode)
    expected = np.empty((size_px, size_px, 3), dtype=np.uint8)
    for number in range(120):
        width, height = (int(2 ** rng.uniform(0, 9.3)) for _ in range(2))
        rect = rectangle(rng, width, height)
        if number % 5 == 0:  # whole factors, among them 1
            width, height = (min(900, size_px * int(rng.integers(1, 5))) for _ in range(2))
            rect = (0, 0, width, height)
        if number % 5 == 1 and size_px < 8:  # factors of which OpenCV finds some not to be whole
            width, height = size_px * int(rng.integers(1, 120)), size_px * int(rng.integers(1, 5))
            rect = (0, 0, width, height)
        pixels = picture(rng, width, height)
        images, is_done = painted(kernel, pixels.reshape(-1), (width, height), [rect] * 2, [0, 1], True, size_px)
        assert is_done.all()
        for flip in (False, True):
            render(pixels, rect, flip, expected)
            assert np.array_equal(images[int(flip)], expected), (size_px, rect, flip)


@pytest.mark.parametrize("size_px", [5, 32])
@pytest.mark.parametrize("mode", ["exact", "bicubic", "area"])
def test_what_lies_past_the_border_is_filled(size_px, mode):
    rng = np.random.default_rng(size_px)
    kernel = Kernel(library.load(mode), size_px, FILL, mode)
    render = Renderer(size_px, FILL, mode)
    expected = np.empty((size_px, size_px, 3), dtype=np.uint8)
    pixels = picture(rng, 40, 30)
    for number in range(200):
        left, top = int(rng.integers(-20, 39)), int(rng.integers(-20, 29))
        side = (size_px, size_px) if number % 2 else rng.integers(1, 60, 2).tolist()
        flip = bool(rng.random() < 0.5)
        images, is_done = painted(kernel, pixels.reshape(-1), (40, 30), [(left, top, *side)], [flip], True, size_px)
        assert is_done[0] == (left + side[0] > 0 and top + side[1] > 0)  # nothing of the sample in it: not its business
        if is_done[0]:
            render(pixels, (left, top, *side), flip, expected)
            assert np.array_equal(images[0], expected)


def jpeg(pixels: np.ndarray, **settings) -> np.ndarray:
    buffer = io.BytesIO()
    mode = settings.pop("mode", "RGB")
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", **settings)
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


def other_jpeg(pixels: np.ndarray, subsampling: str) -> np.ndarray:
    return np.frombuffer(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), 80, "RGB", subsampling), dtype=np.uint8)


FORMS = {
    "4:2:0": lambda pixels: jpeg(pixels, subsampling="4:2:0"),
    "4:2:2": lambda pixels: jpeg(pixels, subsampling="4:2:2"),
    "4:4:4": lambda pixels: jpeg(pixels, subsampling="4:4:4"),
    "4:4:0": lambda pixels: other_jpeg(pixels, "440"),
    "grey": lambda pixels: jpeg(pixels, mode="L"),
    "RGB": lambda pixels: jpeg(pixels, keep_rgb=True),
    "restart markers": lambda pixels: jpeg(pixels, subsampling="4:2:0", restart_marker_blocks=3),
    "a restart marker a row": lambda pixels: jpeg(pixels, subsampling="4:2:0", restart_marker_rows=1),
    "progressive": lambda pixels: jpeg(pixels, subsampling="4:2:0", progressive=True),
    "progressive grey": lambda pixels: jpeg(pixels, mode="L", progressive=True),
    "every value, of long codes": lambda pixels: jpeg(pixels, subsampling="4:4:4", quality=100),
    "few values": lambda pixels: jpeg(pixels, subsampling="4:2:0", quality=2),
    "codes of its own": lambda pixels: jpeg(pixels, subsampling="4:2:0", quality=97, optimize=True),
    "noise behind the end": lambda pixels: np.append(jpeg(pixels, comment=b"\xff\xd9"), np.arange(99, dtype=np.uint8)),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_window_of_a_jpeg_has_the_bits_of_a_whole_decode(form):
    rng = np.random.default_rng(list(FORMS).index(form))
    for size_px in (1, 8, 31):
        kernel = Kernel(library.load(), size_px, FILL)
        render = Renderer(size_px, FILL, "area")
        expected = np.empty((size_px, size_px, 3), dtype=np.uint8)
        for _ in range(12):
            width, height = (int(2 ** rng.uniform(0, 7.5)) for _ in range(2))
            data = FORMS[form](picture(rng, width, height))
            whole = simplejpeg.decode_jpeg(data, "RGB")
            # cut without resizing, so that no pixel's error is lost in a mean; and as crops are
            rects = [(int(rng.integers(width)), int(rng.integers(height)), size_px, size_px) for _ in range(8)]
            rects += [rectangle(rng, width, height) for _ in range(4)]
            flips = rng.random(len(rects)) < 0.5
            images, is_done = painted(kernel, data, (width, height), rects, flips, False, size_px)
            assert is_done.all()
            for image, rect, flip in zip(images, rects, flips, strict=True):
                render(whole, rect, flip, expected)
                assert np.array_equal(image, expected), (width, height, rect)


@pytest.mark.parametrize("form", [form for form in FORMS if "progressive" not in form])
def test_huffman_codes_are_decoded_without_libjpeg_to_its_bits(form):
    rng = np.random.default_rng(3)
    rects = [(0, 0, 60, 50), (33, 18, 21, 30), (7, 41, 50, 8)]
    kernel = Kernel(library.load(), 16, FILL)
    for noise in (0, 3, 255):  # with 255 whole blocks have no zero, so that no code for the end follows
        pixels = np.clip(smooth_picture(60, 50, 3) + rng.integers(-noise, noise + 1, (50, 60, 3)), 0, 255)
        data, before = FORMS[form](pixels.astype(np.uint8)), library.num_files_decoded(library.load())
        images = []
        for _ in range(3):  # a table that is kept is used in another way than a new one
            images.append(painted(kernel, data, (60, 50), rects, [False] * 3, False, 16)[0].copy())
        ctypes.c_int32.in_dll(library.load(), "feedrate_own_codes").value = 2  # without BMI2
        images.append(painted(kernel, data, (60, 50), rects, [False] * 3, False, 16)[0].copy())
        assert library.num_files_decoded(library.load()) >= before + 4 * len(rects)
        before = library.num_files_decoded(library.load())
        library.decode_codes(by_libjpeg=True)
        try:
            expected, is_done = painted(kernel, data, (60, 50), rects, [False] * 3, False, 16)
        finally:
            library.decode_codes(by_libjpeg=False)
        assert library.num_files_decoded(library.load()) == before and is_done.all()
        assert all(np.array_equal(image, expected) for image in images)


def test_a_large_file_is_decoded_by_pairs_from_the_start_on():
    """What smaller ones are only with a table that the one before them had: the bits are those of a whole decode."""
    pixels = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    data = jpeg(pixels, quality=92, optimize=True)
    assert len(data) > 1 << 16
    kernel, expected = Kernel(library.load(), 200, FILL), np.empty((200, 200, 3), dtype=np.uint8)
    images, is_done = painted(kernel, data, (300, 300), [(50, 60, 200, 200)], [False], False, 200)
    Renderer(200, FILL, "area")(simplejpeg.decode_jpeg(data, "RGB"), (50, 60, 200, 200), False, expected)
    assert is_done[0] and np.array_equal(images[0], expected)


def test_what_is_not_as_expected_is_left_to_the_reference():
    pixels = smooth_picture(100, 80, 3)
    stored = jpeg(pixels, subsampling="4:2:0")
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    cases = {
        "another size": (stored, (101, 80)),
        "4:1:1": (other_jpeg(pixels, "411"), (100, 80)),
        "CMYK": (jpeg(pixels, mode="CMYK"), (100, 80)),
        "PNG": (np.frombuffer(png.getvalue(), np.uint8), (100, 80)),
        "no bytes": (stored[:0], (100, 80)),
    }
    kernel = Kernel(library.load(), 32, FILL)
    for name, (data, size) in cases.items():
        _, is_done = painted(kernel, data, size, [(0, 40, 50, 40)], [False], False, 32)
        assert not is_done[0], name
    for data in (stored, jpeg(pixels, progressive=True)):
        for keep in range(0, len(data), 7):  # also where all that the window needs is there
            assert not painted(kernel, data[:keep], (100, 80), [(0, 0, 9, 9)], [False], False, 32)[1][0], keep
        assert painted(kernel, data, (100, 80), [(0, 0, 9, 9)], [False], False, 32)[1][0]  # none of it did harm
    for rect in ((100, 0, 9, 9), (0, 0, 0, 9), (0, 0, 9, -1), (-2147483648, 0, 9, 9)):
        assert not painted(kernel, stored, (100, 80), [rect], [False], False, 32)[1][0], rect
    flat = pixels.reshape(-1)
    assert not painted(kernel, flat[:-1], (100, 80), [(0, 0, 9, 9)], [False], True, 32)[1][0]


@pytest.mark.parametrize("form", ["4:2:0", "4:4:4", "restart markers", "progressive"])
def test_of_damaged_files_it_makes_what_the_reference_makes_and_never_more(form):
    """Else which samples are bad would depend on whether there is a kernel."""
    rng = np.random.default_rng(1)
    stored = FORMS[form](smooth_picture(100, 80, 3))
    kernel, decode, num_done, num_bad = Kernel(library.load(), 20, FILL), Decoder(), 0, 0
    for number in range(400):
        data, at, length = stored.copy(), int(rng.integers(2, len(stored) - 2)), int(rng.integers(1, 10))
        if number % 3 == 0:
            data[at : at + length] = 0xFF
        elif number % 3 == 1:
            data[at : at + length] = rng.integers(0, 256, len(data[at : at + length]))
        else:
            data = np.delete(data, slice(at, at + length))
        top = int(rng.integers(0, 60))
        images, is_done = painted(kernel, data, (100, 80), [(10, top, 20, 20)], [False], False, 20)
        num_done += int(is_done[0])
        try:
            whole = decode(data)
        except Exception:
            num_bad += 1
            assert not is_done[0], number
        else:
            assert not is_done[0] or np.array_equal(images[0], whole[top : top + 20, 10:30]), number
    assert num_done > 50 and num_bad > 50


@pytest.mark.parametrize("by_libjpeg", [True, False])
@pytest.mark.parametrize("marker", [b"\xff\xdb", b"\xff\xc4"], ids=["quantisation", "codes"])
def test_a_file_without_its_tables_is_not_decoded_by_those_of_the_one_before(marker, by_libjpeg):
    """libjpeg keeps tables, so what becomes of a damaged file would depend on the order of the samples."""
    pixels = smooth_picture(100, 80, 3)
    other = jpeg(pixels, subsampling="4:2:0", quality=30, optimize=True)
    damaged = other.tobytes().replace(marker, b"\xff\xeb")  # an application's data: nothing is wrong but what misses
    assert damaged != other.tobytes()
    damaged = np.frombuffer(damaged, dtype=np.uint8)
    kernel = Kernel(library.load(), 32, FILL)
    library.decode_codes(by_libjpeg)
    try:
        for data, expected in ((other, True), (damaged, False), (other, True), (damaged, False)):
            assert painted(kernel, data, (100, 80), [(0, 40, 50, 40)], [False], False, 32)[1][0] == expected
    finally:
        library.decode_codes(by_libjpeg=False)


@pytest.mark.parametrize("form", ["4:2:0", "restart markers"])
def test_any_number_of_fill_bytes_may_stand_before_a_marker(form):
    """As some cameras write them; T.81, B.1.1.2."""
    stored = FORMS[form](smooth_picture(100, 80, 3)).tobytes()
    begin = stored.index(b"\xff\xda")
    markers = [bytes([0xFF, number]) for number in (*range(0xD0, 0xD8), 0xD9)]
    filled = stored[begin:]
    for marker in markers:
        filled = filled.replace(marker, b"\xff\xff" + marker)
    data = np.frombuffer(stored[:begin] + filled, dtype=np.uint8)
    assert data.size > len(stored)
    kernel, whole = Kernel(library.load(), 32, FILL), simplejpeg.decode_jpeg(data, "RGB")
    expected = np.empty((32, 32, 3), dtype=np.uint8)
    for rect in ((0, 0, 100, 80), (20, 10, 32, 32)):
        images, is_done = painted(kernel, data, (100, 80), [rect], [False], False, 32)
        Renderer(32, FILL, "area")(whole, rect, False, expected)
        assert is_done[0] and np.array_equal(images[0], expected)


def test_it_reads_no_byte_past_the_pixels():
    """They end where memory ends: one byte further is the end of this process."""
    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 4 * page)
    everything = np.frombuffer(memory, dtype=np.uint8)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    assert libc.mprotect(address_of(everything) + 3 * page, page, 0) == 0
    try:
        for width, height in ((1, 1), (2, 9), (4, 4), (5, 5), (6, 7), (21, 21), (37, 50), (64, 60), (100, 3)):
            pixels = everything[3 * page - 3 * width * height : 3 * page]
            for size_px, mode in itertools.product((1, 4, 21, 64), ("area", "exact", "bicubic")):
                kernel = Kernel(library.load(mode), size_px, FILL, mode)
                whole, quarter = (0, 0, width, height), (width // 2, height // 2, -(-width // 2), -(-height // 2))
                rects, flips = [whole, whole, quarter, quarter], [False, True, False, True]
                assert painted(kernel, pixels, (width, height), rects, flips, True, size_px)[1].all()
    finally:
        libc.mprotect(address_of(everything) + 3 * page, page, mmap.PROT_READ | mmap.PROT_WRITE)


VIEWS = {
    "random crops": (Shuffled(8), View(RandomResizedCrop(), 32, 0.5)),
    "padded crops": (Shuffled(8), View(PadCrop(4), 32, 0.5, (1, 2, 3))),
    "centre crops": (Sequential(8), View(CenterCrop(28, 32), 48)),
}


@pytest.mark.parametrize("resize", ["area", "exact"])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("kind", RECORD_KINDS)
def test_a_loader_gives_the_same_bits_with_and_without_it(records, view, resize, open_one, monkeypatch):
    left_alone = []
    paint = painters.Painter.paint
    monkeypatch.setattr(
        painters.Painter,
        "paint",
        lambda self, rows, row, *rest, **how: (left_alone.append(row), paint(self, rows, row, *rest, **how)),
    )
    batches = {}
    for switch in ("1", "0"):
        monkeypatch.setenv("FEEDRATE_NATIVE", switch)
        left_alone.clear()
        order, view_of = VIEWS[view]
        with_padding = 37 % 8 if isinstance(order, Sequential) else 0
        loader = open_one(records, "turbo", resize, order=order, view=view_of)
        batches[switch] = [
            (batch.images.clone(), batch.ids.tolist(), batch.labels.tolist()) for batch in loader.epoch(3)
        ]
        identity = loader.identity()
        assert batches[switch] and (switch == "1") == (len(left_alone) <= (8 - with_padding) % 8), len(left_alone)
    assert identity == loader.identity()
    for ours, reference in zip(batches["1"], batches["0"], strict=True):
        assert ours[0].equal(reference[0]) and ours[1:] == reference[1:]


def test_pixels_that_do_not_lie_one_after_the_other_are_read_as_they_are_meant(records_of, open_one, monkeypatch):
    """People's own records may hand out a view: of every second byte here, in backward order."""
    raw = records_of("raw")
    expected = next(open_one(raw, "turbo", "area").epoch(0)).images.clone()
    read = raw.read
    monkeypatch.setattr(raw, "read", lambda index: np.repeat(read(index)[::-1], 2)[::-2])
    assert next(open_one(raw, "turbo", "area").epoch(0)).images.equal(expected)


def test_opencv_and_pillow_are_what_the_reference_resizes_with():
    """Else the tests above would compare the kernel with something else."""
    pixels = smooth_picture(61, 47, 2)
    out = np.empty((20, 20, 3), dtype=np.uint8)
    Renderer(20, FILL, "area")(pixels, (0, 0, 61, 47), False, out)
    assert np.array_equal(out, cv2.resize(pixels, (20, 20), interpolation=cv2.INTER_AREA))
    Renderer(20, FILL, "exact")(pixels, (0, 0, 61, 47), False, out)
    assert np.array_equal(out, Image.fromarray(pixels).resize((20, 20), Image.Resampling.BILINEAR))
