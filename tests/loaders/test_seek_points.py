"""Seek points: windows decoded from within a JPEG have the bits of a whole decode, whatever is noted of them."""

import pickle

import numpy as np
import pytest
import simplejpeg
from pictures import smooth_picture
from test_native_kernel import FORMS, jpeg

from loaders.addresses import address_of
from loaders.errors import FeedrateError, LoaderError
from loaders.native import library
from loaders.native.kernel import ROW, Kernel, noted_points
from loaders.seek_points import SeekPoints

pytestmark = pytest.mark.skipif(library.load() is None, reason=f"no native kernel: {library.why_not()}")

WITHOUT = {"restart markers", "a restart marker a row", "progressive", "progressive grey"}
SIDE_PX = 24


def seek_points(data: np.ndarray) -> bytes:
    return noted_points(library.required(), data)


def textured(width: int, height: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-40, 41, (height, width, 3))
    return np.clip(smooth_picture(width, height, seed % 9) + noise, 0, 255).astype(np.uint8)


def painted(data: np.ndarray, noted: bytes, size: tuple[int, int], rects) -> tuple[np.ndarray, np.ndarray]:
    """(images, which are done) of windows of SIDE_PX, which are not resized."""
    table = np.zeros(len(rects), dtype=ROW)
    points = np.frombuffer(noted, np.uint8)
    table["address"], table["num_bytes"] = address_of(data), data.size
    if noted:
        table["seek_address"], table["seek_bytes"] = address_of(points), points.size
    table["width"], table["height"] = size
    table["rect"] = rects
    out = np.zeros((len(rects), SIDE_PX, SIDE_PX, 3), np.uint8)
    return out, Kernel(library.load(), SIDE_PX, (0, 0, 0))(table, out)


class Sought:
    """How many windows are decoded from seek points on within the block, and of how many they are given up."""

    def __enter__(self):
        self._before = library.num_windows_sought(library.load())
        return self

    def __exit__(self, *error):
        after = library.num_windows_sought(library.load())
        self.done, self.given_up = (new - old for new, old in zip(after, self._before, strict=True))


def windows(size: tuple[int, int], count: int) -> list[tuple[int, int, int, int]]:
    rng = np.random.default_rng(count)
    return [(*(int(rng.integers(side - SIDE_PX + 1)) for side in size), SIDE_PX, SIDE_PX) for _ in range(count)]


@pytest.mark.parametrize("size", [(500, 375), (131, 257), (640, 40), (49, 300), (128, 128), (257, 129)], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_any_window_has_the_bits_of_a_whole_decode(form, size):
    data = FORMS[form](textured(*size))
    noted = seek_points(data)
    if form != "few values":  # of so few that the points would take too much beside them
        assert bool(noted) == (form not in WITHOUT)
    whole = simplejpeg.decode_jpeg(data, "RGB")
    rects = [*windows(size, 40), (0, 0, SIDE_PX, SIDE_PX), (size[0] - SIDE_PX, size[1] - SIDE_PX, SIDE_PX, SIDE_PX)]
    with Sought() as sought:
        images, is_done = painted(data, noted, size, rects)
    assert is_done.all() and (sought.done, sought.given_up) == (len(rects) if noted else 0, 0)
    for image, (left, top, width, height) in zip(images, rects, strict=True):
        assert np.array_equal(image, whole[top : top + height, left : left + width]), (left, top)


@pytest.mark.parametrize("form", ["4:2:0", "4:4:4", "4:2:2", "4:4:0", "grey"])
def test_wide_windows_that_pass_points_have_them_too(form, monkeypatch):
    monkeypatch.setattr(f"{__name__}.SIDE_PX", 290)
    test_any_window_has_the_bits_of_a_whole_decode(form, (500, 375))
    test_any_window_has_the_bits_of_a_whole_decode(form, (290, 290))


def test_what_lies_above_and_beside_a_window_is_not_decoded():
    size = 600, 400
    data = jpeg(textured(*size), quality=95).copy()
    noted = seek_points(data)
    whole = simplejpeg.decode_jpeg(data, "RGB")
    start = next(at for at in range(data.size // 4, data.size) if data[at - 1] != 0xFF and data[at + 199] != 0xFF)
    rect = (300, 300, SIDE_PX, SIDE_PX)
    data[start : start + 200] = 0x55  # no marker is in it or made by it
    with_points, is_done = painted(data, noted, size, [rect])
    assert is_done[0] and np.array_equal(with_points[0], whole[300 : 300 + SIDE_PX, 300 : 300 + SIDE_PX])
    without, is_done = painted(data, b"", size, [rect])
    assert not is_done[0] or not np.array_equal(without[0], with_points[0])


def test_points_that_are_damaged_are_not_used():
    size = 300, 200
    data = jpeg(textured(*size), quality=90)
    noted = seek_points(data)
    rects = windows(size, 3)
    expected, _ = painted(data, b"", size, rects)
    rng = np.random.default_rng(4)
    for at in range(len(noted)):
        wrong = bytearray(noted)
        wrong[at] ^= 1 << int(rng.integers(8))
        with Sought() as sought:
            images, is_done = painted(data, bytes(wrong), size, rects)
        assert is_done.all() and np.array_equal(images, expected) and not sought.done and not sought.given_up, at
    for cut in (0, 1, 13, 14, 15, len(noted) - 1, len(noted) - 10):
        images, is_done = painted(data, noted[:cut], size, rects)
        assert is_done.all() and np.array_equal(images, expected), cut


def test_points_of_another_file_are_not_used():
    size = 300, 200
    data, other = (jpeg(textured(*size, seed=seed), quality=90) for seed in (1, 2))
    rects = windows(size, 20)
    expected, _ = painted(data, b"", size, rects)
    with Sought() as sought:
        images, is_done = painted(data, seek_points(other), size, rects)
    assert is_done.all() and np.array_equal(images, expected) and not sought.done


def signed(noted: bytearray, data: np.ndarray) -> bytes:
    """With the checksum that these points need, as docs/formats.md has it."""
    start = bytes(data).index(b"\xff\xda")
    scan = bytes(data)[start + 2 + int.from_bytes(data[start + 2 : start + 4].tobytes(), "big") :]
    scan = scan[: int.from_bytes(noted[2:6], "little")]
    total = 1
    for part in (noted[:10], noted[14:], scan[:256], scan[-256:]):
        for at in range(0, len(part), 8):
            total = (total ^ int.from_bytes(part[at : at + 8], "little")) * 0x9E3779B97F4A7C15 % (1 << 64)
            total ^= total >> 32
    noted[10:14] = (total % (1 << 32)).to_bytes(4, "little")
    return bytes(noted)


@pytest.mark.parametrize("field", ["position", "coefficient"])
def test_a_stretch_that_does_not_end_where_the_next_point_is_gives_the_points_up(field, monkeypatch):
    size, side = (600, 400), 200
    monkeypatch.setattr(f"{__name__}.SIDE_PX", side)
    data = jpeg(textured(*size), quality=95, subsampling="4:4:4")
    noted = bytearray(seek_points(data))
    assert signed(noted, data) == seek_points(data)
    whole = simplejpeg.decode_jpeg(data, "RGB")
    rect = (200, 100, side, side)  # passes the points at 256 and 384 px; rows of 8 px, five points a row
    noted[14 + 10 * (5 * 20 + 3) + (0 if field == "position" else 4)] ^= 1
    with Sought() as sought:
        images, is_done = painted(data, signed(noted, data), size, [rect])
    assert is_done[0] and (sought.done, sought.given_up) == (0, 1)
    assert np.array_equal(images[0], whole[100 : 100 + side, 200 : 200 + side])


def test_a_file_whose_data_end_in_a_stuffed_byte_keeps_its_points():
    size, found = (160, 120), 0
    for seed in range(400):
        data = jpeg(textured(*size, seed=seed), quality=90)
        if bytes(data[-4:]) != b"\xff\x00\xff\xd9":
            continue
        found += 1
        with Sought() as sought:
            painted(data, seek_points(data), size, [(size[0] - SIDE_PX, size[1] - SIDE_PX, SIDE_PX, SIDE_PX)])
        assert (sought.done, sought.given_up) == (1, 0), seed
    assert found


def test_files_that_are_damaged_have_none():
    data = jpeg(textured(300, 200), quality=90)
    assert seek_points(data) and not seek_points(data[: data.size // 2])
    wrong = data.copy()
    wrong[data.size // 2 : data.size // 2 + 40] = 0xFF
    assert not seek_points(wrong) and not seek_points(data[:3]) and not seek_points(data[:0])
    assert seek_points(np.append(data, np.arange(50, dtype=np.uint8))) == seek_points(data)


def test_they_take_a_small_part_of_the_file_or_there_are_none():
    data = jpeg(textured(500, 375), quality=90)
    assert 0 < len(seek_points(data)) < 0.02 * data.size
    assert not seek_points(jpeg(np.zeros((400, 400, 3), np.uint8)))  # of one colour: soon decoded


def file_of(tmp_path, parts: list[bytes]) -> SeekPoints:
    path = tmp_path / "train.seek"
    path.write_bytes(b"".join(parts))
    return SeekPoints(path, np.array([len(part) for part in parts]), tmp_path / "train.samples.npz")


def test_the_file_gives_each_sample_its_own(tmp_path):
    points = pickle.loads(pickle.dumps(file_of(tmp_path, [b"abc", b"", b"de"])))
    found = [points.of(index) for index in range(3)]
    assert found[0].tobytes() == b"abc" and found[1] is None and found[2].tobytes() == b"de"
    assert file_of(tmp_path, [b"", b""]).of(1) is None


def test_the_file_can_be_read_ahead_and_let_go_of(tmp_path):
    points = file_of(tmp_path, [b"abc", b"", b"de"])
    points.will_be_read()
    assert points.of(2).tobytes() == b"de"
    points.close()
    assert points.of(2) is None
    points.will_be_read()


def test_a_file_that_does_not_fit_its_table_is_refused(tmp_path):
    points = file_of(tmp_path, [b"abc", b"de"])
    with pytest.raises(FeedrateError, match="has 5 bytes and train.samples.npz says 6: it is damaged"):
        SeekPoints(points.path, np.array([3, 3]), tmp_path / "train.samples.npz")
    with pytest.raises(FeedrateError, match="seek points that do not fit into their file"):
        SeekPoints(points.path, np.array([6, -1]), tmp_path / "train.samples.npz")
    with pytest.raises(FeedrateError, match="seek points that do not fit into their file"):
        SeekPoints(points.path, np.array([1 << 62, 1 << 62, 1 << 62, (1 << 62) + 5]), tmp_path / "train.samples.npz")
    points.path.write_bytes(b"changed since")
    with pytest.raises(LoaderError, match="has changed since it was opened"):
        points.of(0)
    points.path.unlink()
    with pytest.raises(FeedrateError, match="cannot be read"):
        SeekPoints(points.path, np.array([3, 2]), tmp_path / "train.samples.npz")
