"""What is kept, what is encoded anew, and that broken images are found."""

from io import BytesIO

import numpy as np
import pytest
import simplejpeg
from pictures import smooth_picture
from PIL import Image

from converters.encode import Encoding, UndecodableImage, _histogram, encode
from loaders.errors import FeedrateError

PIXELS = smooth_picture(90, 60, seed=4)


def stored(image, kind="JPEG", **options):
    """An image's file, uint8 [size]."""
    buffer = BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def pixels_of(encoded):
    if encoded.is_raw:
        return np.frombuffer(encoded.data, np.uint8).reshape(encoded.height, encoded.width, 3)
    return simplejpeg.decode_jpeg(encoded.data, "RGB", strict=True)


@pytest.mark.parametrize(
    "data",
    [
        stored(PIXELS, quality=92),
        stored(PIXELS, quality=92, progressive=True),
        stored(PIXELS, quality=92, subsampling=0),
        stored(PIXELS, quality=92, keep_rgb=True),
        stored(Image.fromarray(PIXELS).convert("L")),
    ],
    ids=["baseline", "progressive", "4:4:4", "RGB", "grey"],
)
def test_a_jpeg_that_every_reader_decodes_keeps_its_bytes(data):
    encoded, histogram = encode(data, None, Encoding())
    assert encoded.data == data.tobytes() and encoded.is_original and not encoded.is_raw
    assert (encoded.width, encoded.height) == (90, 60)
    assert histogram.sum() == 3 * 90 * 60


def test_a_jpeg_within_the_limit_keeps_its_bytes_and_a_larger_one_shrinks():
    data = stored(PIXELS)
    assert encode(data, None, Encoding(max_side_px=90))[0].is_original
    encoded, _ = encode(data, None, Encoding(max_side_px=89))
    assert (encoded.width, encoded.height) == (89, 59) and not encoded.is_original
    assert simplejpeg.decode_jpeg_header(encoded.data)[:2] == (59, 89)


@pytest.mark.parametrize(("size", "limit", "expected"), [((500, 375), 256, (256, 192)), ((3, 900), 30, (1, 30))])
def test_the_longest_side_is_what_shrinks_to_the_limit(size, limit, expected):
    encoded, _ = encode(stored(smooth_picture(*size, 0), "PNG"), None, Encoding("raw", limit))
    assert (encoded.width, encoded.height) == expected
    assert len(encoded.data) == expected[0] * expected[1] * 3


ODD = {
    "CMYK JPEG": stored(Image.fromarray(PIXELS).convert("CMYK"), quality=95),
    "PNG": stored(PIXELS, "PNG"),
    "palette": stored(Image.fromarray(PIXELS).quantize(128), "PNG"),
    "alpha": stored(Image.fromarray(PIXELS).convert("RGBA"), "PNG"),
    "WebP": stored(PIXELS, "WEBP", quality=95),
    "BMP": stored(PIXELS, "BMP"),
}


@pytest.mark.parametrize("kind", ODD)
def test_anything_else_becomes_a_jpeg_that_looks_the_same(kind):
    encoded, histogram = encode(ODD[kind], None, Encoding(quality=95))
    assert not encoded.is_original
    assert simplejpeg.decode_jpeg_header(encoded.data)[2:] == ("YCbCr", "420")
    assert np.abs(pixels_of(encoded).astype(int) - PIXELS).mean() < 10
    assert np.array_equal(histogram, [np.bincount(pixels_of(encoded)[..., c].ravel(), minlength=256) for c in range(3)])


def test_sixteen_bits_are_scaled_and_not_clipped():
    deep = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    encoded, _ = encode(stored(Image.fromarray(deep), "PNG"), None, Encoding("raw"))
    assert np.array_equal(pixels_of(encoded)[..., 1], deep >> 8)


def test_raw_mode_stores_the_very_pixels():
    encoded, _ = encode(ODD["PNG"], None, Encoding("raw"))
    assert np.array_equal(pixels_of(encoded), PIXELS)


def test_raw_records_stay_raw_or_become_jpegs():
    flat = PIXELS.reshape(-1)
    assert encode(flat, (90, 60), Encoding("raw"))[0].data == PIXELS.tobytes()
    encoded, _ = encode(flat, (90, 60), Encoding("jpg", quality=95))
    assert np.abs(pixels_of(encoded).astype(int) - PIXELS).mean() < 3


def test_orientation_in_exif_is_ignored_as_torchvision_does():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90°
    for settings in (Encoding(), Encoding("raw"), Encoding(max_side_px=45)):
        encoded, _ = encode(stored(PIXELS, exif=exif), None, settings)
        assert encoded.width > encoded.height


@pytest.mark.parametrize(
    ("kind", "share"),
    [(kind, share) for kind in ("JPEG", "PNG", "WEBP") for share in (0.02, 0.3, 0.6, 0.97)] + [("JPEG", 0.9999)],
)
def test_an_image_cut_short_is_found(kind, share):
    data = stored(PIXELS, kind)
    with pytest.raises(UndecodableImage):
        encode(data[: int(len(data) * share)], None, Encoding())


@pytest.mark.parametrize("data", [b"", b"x", b"not an image at all", b"\xff\xd8\xff", bytes(1000)])
def test_what_is_no_image_is_found(data):
    with pytest.raises(UndecodableImage):
        encode(np.frombuffer(data, np.uint8), None, Encoding())


def test_the_histogram_is_exact_beyond_what_float32_counts():
    pixels = np.full((4200, 4200, 3), (7, 7, 255), np.uint8)  # 17.6 million of one value; float32 stops at 16.8
    counts = _histogram(pixels)
    assert counts[0, 7] == counts[1, 7] == counts[2, 255] == 4200 * 4200 and counts.sum() == 3 * 4200 * 4200


@pytest.mark.parametrize("settings", [("bmp",), ("jpg", 0), ("jpg", 70_000), ("jpg", None, 0), ("jpg", None, 101)])
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(FeedrateError, match="give"):
        Encoding(*settings)
