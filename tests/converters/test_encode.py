"""What is kept, what is encoded anew, and that broken images are found."""

import struct
import subprocess
import sys
import tempfile
from io import BytesIO

import cv2
import numpy as np
import pytest
import simplejpeg
from commands import REPOSITORY
from pictures import smooth_picture
from PIL import Image, ImageOps

from converters import encode as encoding_module
from converters.encode import Encoding, UndecodableImage, Wanted, _histogram, encode, shrunk_size
from loaders.errors import FeedrateError

PIXELS = smooth_picture(90, 60, seed=4)


def stored(image, kind="JPEG", **options):
    """An image's file, uint8 [size]."""
    buffer = BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return np.frombuffer(buffer.getvalue(), np.uint8)


JPEG, PIXEL, ALL = Wanted(True, False), Wanted(False, True), Wanted(True, True, True)


def decoded(encoded):
    """The pixels of what was encoded as JPEG."""
    return simplejpeg.decode_jpeg(encoded.jpeg, "RGB", strict=True)


def as_pillow(data):
    """What torchvision's own reader of image folders makes of a file."""
    return np.asarray(Image.open(BytesIO(bytes(data))).convert("RGB"))


@pytest.mark.parametrize("check", ["full", "structure"])
@pytest.mark.parametrize(
    "data",
    [
        stored(PIXELS, quality=92),
        stored(PIXELS, quality=92, subsampling=0),
        stored(PIXELS, quality=92, keep_rgb=True),
        stored(PIXELS, quality=92, restart_marker_rows=1),
        stored(Image.fromarray(PIXELS).convert("L")),
        np.append(stored(PIXELS), np.frombuffer(b"trailing bytes", np.uint8)),
    ],
    ids=["baseline", "4:4:4", "RGB", "restarts", "grey", "trailing"],
)
def test_a_baseline_jpeg_keeps_its_bytes(data, check):
    encoded = encode(data, None, Encoding(check=check), JPEG)
    assert encoded.jpeg == data.tobytes() and encoded.is_original and encoded.pixels is None
    assert (encoded.width, encoded.height) == (90, 60) and encoded.histogram is None


def test_a_progressive_jpeg_is_encoded_anew_since_it_decodes_slowly():
    data = stored(PIXELS, quality=92, progressive=True)
    encoded = encode(data, None, Encoding(quality=95), JPEG)
    assert not encoded.is_original
    assert np.abs(decoded(encoded).astype(int) - as_pillow(data)).mean() < 3


def test_a_jpeg_within_the_limit_keeps_its_bytes_and_a_larger_one_shrinks():
    data = stored(PIXELS)
    assert encode(data, None, Encoding(limit_px=90), JPEG).is_original
    assert encode(data, None, Encoding(limit_px=60, limited="shortest"), JPEG).is_original
    encoded = encode(data, None, Encoding(limit_px=89), JPEG)
    assert (encoded.width, encoded.height) == (89, 59) and not encoded.is_original
    assert simplejpeg.decode_jpeg_header(encoded.jpeg)[:2] == (59, 89)


@pytest.mark.parametrize(
    ("size", "limit", "limited", "expected"),
    [
        ((500, 375), 256, "longest", (256, 192)),
        ((500, 375), 256, "shortest", (341, 256)),
        ((375, 500), 256, "shortest", (256, 341)),
        ((3, 900), 30, "longest", (1, 30)),
        ((256, 9000), 256, "shortest", (256, 9000)),
    ],
)
def test_the_limited_side_shrinks_to_the_limit(size, limit, limited, expected):
    assert shrunk_size(*size, Encoding(limit_px=limit, limited=limited)) == expected


@pytest.mark.parametrize("limit", [149, 130, 100, 75, 74, 40, 9, 1])
def test_shrinking_is_antialiased_as_opencvs_area_mode_does_it(limit):
    photo = smooth_picture(150, 110, 7) + np.random.default_rng(0).normal(0, 12, (110, 150, 3))
    photo = np.clip(photo, 0, 255).astype(np.uint8)
    encoded = encode(stored(photo, "PNG"), None, Encoding("raw", limit), PIXEL)
    expected = cv2.resize(photo, (encoded.width, encoded.height), interpolation=cv2.INTER_AREA)
    if limit < 75:  # below half
        assert np.array_equal(encoded.pixels, expected)
    else:
        error = np.mean((encoded.pixels.astype(float) - expected) ** 2)
        assert 10 * np.log10(255**2 / max(error, 1e-9)) > 36  # dB, of a picture full of noise


def test_stripes_too_fine_for_the_result_become_grey_and_do_not_alias():
    stripes = np.zeros((300, 300, 3), np.uint8)
    stripes[:, ::2] = 255
    encoded = encode(stored(stripes, "PNG"), None, Encoding("raw", 170), PIXEL)
    plain = cv2.resize(stripes, (170, 170), interpolation=cv2.INTER_LINEAR)
    area = cv2.resize(stripes, (170, 170), interpolation=cv2.INTER_AREA)
    assert encoded.pixels.std() < 1.1 * area.std() < 0.6 * plain.std()


@pytest.mark.parametrize(("side", "limit"), [(800, 133), (800, 100), (800, 33), (801, 100), (1601, 60)])
def test_decoding_at_a_reduced_scale_looks_as_shrinking_the_whole_does(side, limit):
    photo = smooth_picture(side, side, 3) + np.random.default_rng(0).normal(0, 12, (side, side, 3))
    data = stored(np.clip(photo, 0, 255).astype(np.uint8), quality=95)
    encoded = encode(data, None, Encoding("raw", limit), PIXEL)
    whole = cv2.resize(as_pillow(data), (limit, limit), interpolation=cv2.INTER_AREA)
    error = np.mean((encoded.pixels.astype(float) - whole) ** 2)
    assert 10 * np.log10(255**2 / max(error, 1e-9)) > 40  # dB


def test_much_shrinking_decodes_at_a_reduced_scale_that_leaves_three_times_the_pixels(monkeypatch):
    seen = []
    decode = simplejpeg.decode_jpeg

    def spy(*arguments, **named):
        seen.append(decode(*arguments, **named))
        return seen[-1]

    monkeypatch.setattr(encoding_module.simplejpeg, "decode_jpeg", spy)
    data = stored(smooth_picture(800, 600, 3))
    for limit, width in ((800, 800), (134, 800), (133, 400), (67, 400), (66, 200), (34, 200), (33, 100), (10, 100)):
        encode(data, None, Encoding("raw", limit), PIXEL)
        assert seen.pop().shape[1] == width, limit
    encode(stored(smooth_picture(801, 600, 3)), None, Encoding("raw", 133), PIXEL)
    assert seen.pop().shape[1] == 801  # an eighth of a pixel of the result would be shifted


ODD = {
    "CMYK JPEG": stored(Image.fromarray(PIXELS).convert("CMYK"), quality=95),
    "YCCK JPEG": np.frombuffer(
        simplejpeg.encode_jpeg(np.ascontiguousarray(np.asarray(Image.fromarray(PIXELS).convert("CMYK"))), 95, "CMYK"),
        np.uint8,
    ),
    "PNG": stored(PIXELS, "PNG"),
    "palette": stored(Image.fromarray(PIXELS).quantize(128), "PNG"),
    "alpha": stored(Image.fromarray(PIXELS).convert("RGBA"), "PNG"),
    "grey with alpha": stored(Image.fromarray(PIXELS).convert("LA"), "PNG"),
    "one bit": stored(Image.fromarray(PIXELS).convert("1"), "PNG"),
    "WebP": stored(PIXELS, "WEBP", quality=95),
    "BMP": stored(PIXELS, "BMP"),
    "GIF": stored(Image.fromarray(PIXELS), "GIF"),
}


@pytest.mark.parametrize("kind", ODD)
def test_anything_else_becomes_what_torchvision_reads_of_it(kind):
    encoded = encode(ODD[kind], None, Encoding(quality=95), ALL)
    assert not encoded.is_original
    assert simplejpeg.decode_jpeg_header(encoded.jpeg)[2:] == ("YCbCr", "420")
    assert np.array_equal(encoded.pixels, as_pillow(ODD[kind]))
    reference = [np.bincount(encoded.pixels[..., c].ravel(), minlength=256) for c in range(3)]
    assert np.array_equal(encoded.histogram, reference)


def test_a_ycck_file_is_what_it_is_called():
    assert simplejpeg.decode_jpeg_header(ODD["YCCK JPEG"])[2] == "YCCK"
    assert simplejpeg.decode_jpeg_header(ODD["CMYK JPEG"])[2] == "CMYK"


DEEP = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)


@pytest.mark.parametrize("apply_exif", [False, True])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind, apply_exif):
    encoded = encode(stored(Image.fromarray(DEEP), kind), None, Encoding("raw", apply_exif=apply_exif), PIXEL)
    assert np.array_equal(encoded.pixels[..., 1], DEEP >> 8)


@pytest.mark.parametrize("head", [b"P2\n4 1\n1000\n0 250 500 1000\n", b"P5\n4 1\n1000\n\0\0\0\xfa\1\xf4\3\xe8"])
def test_a_pgm_is_white_at_the_maximum_that_it_tells(head):
    encoded = encode(np.frombuffer(head, np.uint8), None, Encoding("raw"), PIXEL)
    assert encoded.pixels[0, :, 0].tolist() == [0, 64, 128, 255]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_grey_whose_white_nobody_knows_is_not_clipped_but_bad(dtype):
    with pytest.raises(UndecodableImage, match="which is white: save it with 8 or 16 bits"):
        encode(stored(Image.fromarray(DEEP.astype(dtype)), "TIFF"), None, Encoding("raw"), PIXEL)


def test_raw_samples_stay_raw_or_become_jpegs():
    flat = PIXELS.reshape(-1)
    assert np.array_equal(encode(flat, (90, 60), Encoding("raw"), PIXEL).pixels, PIXELS)
    encoded = encode(flat, (90, 60), Encoding("jpg", quality=95), JPEG)
    assert np.abs(decoded(encoded).astype(int) - PIXELS).mean() < 3
    with pytest.raises(UndecodableImage, match="16,199 bytes.*16,200"):
        encode(flat[:-1], (90, 60), Encoding("raw"), PIXEL)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_exif_is_ignored_unless_asked_for(kind, orientation):
    exif = Image.Exif()
    exif[0x010F] = "a maker, so that orientation is not the first entry"
    exif[0x0112] = orientation
    data = stored(PIXELS, kind, exif=exif)
    for settings in (Encoding("raw"), Encoding("raw", 45)):
        encoded = encode(data, None, settings, PIXEL)
        assert encoded.width > encoded.height
    encoded = encode(data, None, Encoding("raw", apply_exif=True), PIXEL)
    assert np.array_equal(encoded.pixels, np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(bytes(data))))))
    upright = encode(data, None, Encoding("raw", 45, apply_exif=True), PIXEL)
    assert (upright.width, upright.height) == ((45, 30) if orientation < 5 else (30, 45))
    kept = encode(data, None, Encoding(apply_exif=True), JPEG)
    assert kept.is_original == (kind == "JPEG" and orientation == 1)


@pytest.mark.parametrize("told", [(6, 1), (1, 6), (3, 8)])
def test_of_two_orientations_in_one_jpeg_the_one_counts_that_pillow_reads(told):
    data = stored(PIXELS).tobytes()
    for orientation in reversed(told):
        exif = Image.Exif()
        exif[0x0112] = orientation
        segment = exif.tobytes()
        data = data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(segment)) + segment + data[2:]
    encoded = encode(np.frombuffer(data, np.uint8), None, Encoding("raw", apply_exif=True), PIXEL)
    assert np.array_equal(encoded.pixels, np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(data)))))


def test_a_jpeg_that_pillow_would_not_open_for_its_size_is_turned_and_shrunk(monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = stored(PIXELS, exif=exif)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90 * 60 // 2 - 1)
    encoded = encode(data, None, Encoding("raw", 45, apply_exif=True), PIXEL)
    assert (encoded.width, encoded.height) == (30, 45)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_counts_as_upright(kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = stored(PIXELS, kind, exif=exif.tobytes())
    for cut in (b"", b"Exif", exif.tobytes()[:-9], exif.tobytes()[:10] + b"\xff" * 9):
        data = stored(PIXELS, kind, exif=cut)
        expected = encode(data, None, Encoding("raw"), PIXEL).pixels
        assert np.array_equal(encode(data, None, Encoding("raw", apply_exif=True), PIXEL).pixels, expected), cut
    assert encode(whole, None, Encoding("raw", apply_exif=True), PIXEL).height == 90


def test_whatever_pillow_raises_makes_a_bad_sample_but_lack_of_memory_does_not(monkeypatch):
    for error in (struct.error("unpack requires"), IndexError(), KeyError("x"), OverflowError(), RuntimeError("odd")):
        monkeypatch.setattr(encoding_module.Image, "open", Raises(error))
        with pytest.raises(UndecodableImage) as caught:
            encode(stored(PIXELS, "PNG"), None, Encoding(), JPEG)
        assert str(caught.value) in (str(error), repr(error)) and str(caught.value)
    monkeypatch.setattr(encoding_module.Image, "open", Raises(MemoryError()))
    with pytest.raises(MemoryError):
        encode(stored(PIXELS, "PNG"), None, Encoding(), JPEG)


class Raises:
    """Stands for a function that raises this."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, *arguments):
        raise self.error


@pytest.mark.parametrize(
    ("kind", "share"),
    [(kind, share) for kind in ("JPEG", "PNG", "WEBP") for share in (0.02, 0.3, 0.6, 0.97)] + [("JPEG", 0.9999)],
)
def test_an_image_cut_short_is_found(kind, share):
    data = stored(PIXELS, kind)
    for check in ("full", "structure"):
        with pytest.raises(UndecodableImage):
            encode(data[: int(len(data) * share)], None, Encoding(check=check), JPEG)


def test_a_jpeg_overwritten_by_something_else_is_found_by_its_structure():
    data = bytearray(stored(PIXELS, quality=95))
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(stored(PIXELS[:20, :20]))[:400]
    with pytest.raises(UndecodableImage):
        encode(np.frombuffer(bytes(data), np.uint8), None, Encoding(check="structure"), JPEG)


def test_a_bomb_is_refused_before_it_takes_the_memory(monkeypatch):
    monkeypatch.setattr(encoding_module, "_MOST_PIXELS", 90 * 60 - 1)
    for data in (stored(PIXELS), stored(PIXELS, "PNG"), stored(PIXELS, progressive=True)):
        with pytest.raises(UndecodableImage, match="90×60 px"):
            encode(data, None, Encoding(), JPEG)
    assert encode(stored(PIXELS), None, Encoding(limit_px=15), JPEG).width == 15  # decoded at half its size


@pytest.mark.parametrize("write_mode", ["jpg", "raw"])
def test_a_side_beyond_libjpegs_limit_is_bad_unless_it_is_to_be_shrunk(write_mode):
    wanted = PIXEL if write_mode == "raw" else JPEG
    for side in (65_501, 65_535, 70_000):
        data = stored(np.full((2, side, 3), 77, np.uint8), "PNG")
        with pytest.raises(UndecodableImage, match=f"{side}×2 px.*side above 65,500: shrink it"):
            encode(data, None, Encoding(write_mode), wanted)
        assert encode(data, None, Encoding(write_mode, limit_px=500), wanted).width == 500
    at_most = encode(stored(np.full((2, 65_500, 3), 77, np.uint8), "PNG"), None, Encoding(write_mode), wanted)
    assert at_most.width == 65_500


def test_only_jpegs_may_have_more_pixels_than_are_decoded_when_they_are_to_be_shrunk(monkeypatch):
    monkeypatch.setattr(encoding_module, "_MOST_PIXELS", 90 * 60 - 1)
    with pytest.raises(UndecodableImage, match="90×60 px.*no JPEG.*shrink it before packing"):
        encode(stored(PIXELS, "PNG"), None, Encoding(limit_px=15), JPEG)


def test_a_jpeg_of_400_million_pixels_is_shrunk_without_ever_having_them_all():
    script = """
import resource, sys
import numpy as np
from PIL import Image
from converters.encode import Encoding, UndecodableImage, Wanted, encode
Image.new("L", (20_000, 20_000), 77).save(sys.argv[1], quality=50)
stored = np.fromfile(sys.argv[1], np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB; making the image took 400 MB
encoded = encode(stored, None, Encoding(limit_px=500), Wanted(True, True))
assert encoded.pixels.shape == (500, 500, 3) and abs(int(encoded.pixels.mean()) - 77) < 2
assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
try:
    encode(stored, None, Encoding(), Wanted(True, False))
except UndecodableImage as error:
    assert "20000×20000" in str(error)
else:
    raise AssertionError("it was packed")
"""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", script, f"{folder}/bomb.jpg"]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("data", [b"", b"x", b"not an image at all", b"\xff\xd8\xff", bytes(1000)])
def test_what_is_no_image_is_found(data):
    with pytest.raises(UndecodableImage):
        encode(np.frombuffer(data, np.uint8), None, Encoding(), JPEG)


def test_the_histogram_is_exact_beyond_what_float32_counts():
    pixels = np.full((4200, 4200, 3), (7, 7, 255), np.uint8)  # 17.6 million of one value; float32 stops at 16.8
    counts = _histogram(pixels)
    assert counts[0, 7] == counts[1, 7] == counts[2, 255] == 4200 * 4200 and counts.sum() == 3 * 4200 * 4200


@pytest.mark.parametrize(
    "settings",
    [
        {"write_mode": "bmp"},
        {"limit_px": 0},
        {"limit_px": 65_501},
        {"quality": 0},
        {"quality": 101},
        {"write_mode": "mix", "jpeg_share": 1.5},
    ],
)
def test_settings_that_cannot_be_are_refused(settings):
    with pytest.raises(FeedrateError, match="give"):
        Encoding(**settings)
