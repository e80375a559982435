"""Restart markers change no pixel, and a JPEG that has them can be cut to what a rectangle needs."""

import io

import numpy as np
import pytest
import simplejpeg
from pictures import smooth_picture
from PIL import Image

from loaders.native import library
from loaders.native.restart_markers import add_restart_markers, cut_to_window

pytestmark = pytest.mark.skipif(library.load() is None, reason=f"no native kernels: {library.why_not()}")

SUBSAMPLINGS = ["444", "422", "420", "440", "411", "Gray"]
SIZES = [(500, 375), (333, 500), (496, 31), (17, 300), (1, 1), (8, 8), (241, 239)]


def jpeg_of(width, height, subsampling="420", quality=90):
    pixels = np.ascontiguousarray(smooth_picture(width, height, 7))
    if subsampling == "Gray":
        return simplejpeg.encode_jpeg(pixels[:, :, :1].copy(), quality, "GRAY", "Gray")
    return simplejpeg.encode_jpeg(pixels, quality, "RGB", subsampling)


def pixels_of(jpeg):
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def rectangles(width, height, count, seed=0):
    draw = np.random.default_rng(seed)
    yield 0, 0, width, height
    for _ in range(count):
        w, h = int(draw.integers(1, width + 1)), int(draw.integers(1, height + 1))
        yield int(draw.integers(0, width - w + 1)), int(draw.integers(0, height - h + 1)), w, h


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_no_pixel_changes_and_any_rectangle_can_be_cut_out(size, subsampling):
    jpeg = jpeg_of(*size, subsampling)
    rewritten = add_restart_markers(jpeg)
    whole = pixels_of(jpeg)
    assert np.array_equal(pixels_of(rewritten), whole)
    assert np.array_equal(simplejpeg.decode_jpeg(rewritten, "RGB", strict=True), whole)
    for left, top, width, height in rectangles(*size, 40):
        part, (x, y, _, _) = cut_to_window(rewritten, (left, top, width, height))
        assert len(part) <= len(rewritten)
        pixels = simplejpeg.decode_jpeg(part, "RGB", strict=True)
        found = pixels[top - y : top - y + height, left - x : left - x + width]
        assert np.array_equal(found, whole[top : top + height, left : left + width]), (left, top, width, height)


def test_a_small_rectangle_takes_a_small_part_of_the_file():
    rewritten = add_restart_markers(jpeg_of(500, 375))
    part, _ = cut_to_window(rewritten, (200, 150, 60, 60))
    assert len(part) < 0.35 * len(rewritten)


def test_progressive_becomes_sequential_with_the_same_pixels():
    buffer = io.BytesIO()
    Image.fromarray(smooth_picture(300, 200, 1)).save(buffer, "JPEG", progressive=True, quality=90)
    rewritten = add_restart_markers(buffer.getvalue())
    assert np.array_equal(pixels_of(rewritten), pixels_of(buffer.getvalue()))
    assert b"\xff\xc2" not in rewritten[:600] and cut_to_window(rewritten, (10, 10, 50, 50)) is not None


def test_a_progressive_file_without_its_last_scans_is_not_rewritten():
    """Decoders smooth over what it leaves out, and would not if it were sequential."""
    buffer = io.BytesIO()
    Image.fromarray(smooth_picture(300, 200, 1)).save(buffer, "JPEG", progressive=True, quality=60)
    whole = buffer.getvalue()
    scans = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    for last in range(1, len(scans)):
        tables = whole.rfind(b"\xff\xc4", 0, scans[last])  # those of the first scan that is left out
        cut = whole[: tables if tables > scans[last - 1] else scans[last]] + b"\xff\xd9"
        rewritten = add_restart_markers(cut)
        assert rewritten is None or np.array_equal(pixels_of(rewritten), pixels_of(cut)), last
        assert rewritten is None or last == len(scans) - 1


def test_metadata_are_left_out_and_a_second_time_changes_nothing():
    buffer = io.BytesIO()
    Image.fromarray(smooth_picture(200, 100, 1)).save(buffer, "JPEG", comment=b"x" * 5000)
    once = add_restart_markers(buffer.getvalue())
    assert b"xxx" not in once and add_restart_markers(once) == once


def test_cmyk_and_what_is_damaged_is_not_rewritten():
    buffer = io.BytesIO()
    Image.fromarray(smooth_picture(64, 64, 1)).convert("CMYK").save(buffer, "JPEG")
    assert add_restart_markers(buffer.getvalue()) is None
    whole = jpeg_of(200, 150)
    for damaged in (whole[: len(whole) // 2], whole[:100], b"", b"\xff\xd8", b"nothing of the kind" * 20):
        assert add_restart_markers(damaged) is None


def test_what_is_cut_short_or_damaged_is_not_cut():
    rewritten = add_restart_markers(jpeg_of(200, 150))
    rect = (16, 16, 40, 40)
    assert cut_to_window(rewritten, rect) is not None
    for size in range(0, len(rewritten), 97):
        assert cut_to_window(rewritten[:size], rect) is None
    marker = rewritten.index(b"\xff\xd3")
    for damaged in (
        rewritten[:marker] + rewritten[marker + 2 :],  # one marker is missing
        rewritten[:marker] + b"\xff\xd5" + rewritten[marker + 2 :],  # out of its turn
        rewritten[:marker] + b"\xff\xd9" + rewritten[marker + 2 :],  # the end comes early
        rewritten[:marker] + b"\xff\xc4" + rewritten[marker + 2 :],  # no marker that may stand there
    ):
        assert cut_to_window(damaged, rect) is None


def test_a_rectangle_outside_or_a_file_without_fitting_markers_is_not_cut():
    plain = jpeg_of(200, 150)
    assert cut_to_window(plain, (16, 16, 40, 40)) is None
    rewritten = add_restart_markers(plain)
    for rect in ((-1, 0, 10, 10), (0, -1, 10, 10), (191, 0, 10, 10), (0, 141, 10, 10), (0, 0, 0, 5), (0, 0, 5, 0)):
        assert cut_to_window(rewritten, rect) is None


def test_noise_in_place_of_a_header_is_refused_and_never_read_past():
    rewritten = bytearray(add_restart_markers(jpeg_of(120, 90)))
    draw = np.random.default_rng(3)
    for _ in range(3000):
        damaged = bytearray(rewritten)
        for at in draw.integers(2, 640, 3):
            damaged[at] = int(draw.integers(0, 256))
        cut = cut_to_window(bytes(damaged), (8, 8, 30, 30))
        assert cut is None or len(cut[0]) <= len(damaged)
