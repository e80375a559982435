"""Packing with restart markers: no pixel changes, whatever the images were, and crops decode only what they need."""

import json
from io import BytesIO

import numpy as np
import pytest
import torch
from listed import listed
from pictures import smooth_picture
from PIL import Image

from converters import restarts
from converters.command import main
from converters.encode import Encoding, Wanted, encode
from converters.inspection.verify import verify
from converters.packing import PackSettings, pack
from loaders.api import LoaderOptions
from loaders.choose import LOADER_NAMES, _missing, open_loader
from loaders.crops import RandomResizedCrop
from loaders.errors import FeedrateError
from loaders.native import library
from loaders.orders import Shuffled
from loaders.plan import Plan, View
from loaders.records import open_records

pytestmark = pytest.mark.skipif(library.load() is None, reason=f"no native kernel: {library.why_not()}")

LOADERS = [name for name in LOADER_NAMES if name != "synthetic" and not _missing(name)]
WITH = Encoding(restarts=True)
JPEG = Wanted(True, False)
PICTURE = smooth_picture(300, 200, seed=4)


def stored(image, kind="JPEG", **options):
    """An image's file, uint8 [size]."""
    buffer = BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def pixels_of(jpeg):
    return np.asarray(Image.open(BytesIO(bytes(jpeg))).convert("RGB"))


def has_restarts(jpeg):
    return b"\xff\xdd\x00\x04" in jpeg[:1000]


@pytest.mark.parametrize(
    "data",
    [
        stored(PICTURE, quality=92),
        stored(PICTURE, quality=92, subsampling=0),
        stored(PICTURE, quality=92, keep_rgb=True),
        stored(PICTURE, quality=92, progressive=True),
        stored(PICTURE, quality=92, restart_marker_rows=1),
        stored(Image.fromarray(PICTURE).convert("L")),
        np.append(stored(PICTURE), np.frombuffer(b"trailing bytes", np.uint8)),
    ],
    ids=["baseline", "4:4:4", "RGB", "progressive", "other restarts", "grey", "trailing"],
)
@pytest.mark.parametrize("check", ["full", "structure"])
def test_every_jpeg_gets_markers_and_keeps_its_pixels(data, check):
    encoded = encode(data, None, Encoding(restarts=True, check=check), JPEG)
    assert has_restarts(encoded.jpeg) and not encoded.is_original
    assert np.array_equal(pixels_of(encoded.jpeg), pixels_of(data))


def test_what_has_to_be_encoded_gets_them_too():
    for data, settings in ((stored(PICTURE, "PNG"), WITH), (stored(PICTURE), Encoding(limit_px=100, restarts=True))):
        encoded = encode(data, None, settings, JPEG)
        plain = encode(data, None, Encoding(limit_px=settings.limit_px), JPEG)
        assert has_restarts(encoded.jpeg) and not has_restarts(plain.jpeg)
        assert np.array_equal(pixels_of(encoded.jpeg), pixels_of(plain.jpeg))


def test_raw_samples_need_none():
    encoded = encode(stored(PICTURE), None, Encoding("raw", restarts=True), Wanted(False, True))
    assert encoded.jpeg is None and np.array_equal(encoded.pixels, pixels_of(stored(PICTURE)))


def test_a_packed_set_with_them_delivers_the_same_batches(image_folder, tmp_path):
    batches = {}
    for name, encoding in (("plain", Encoding()), ("with", WITH)):
        pack(listed(image_folder), tmp_path / name, PackSettings(encoding, ("beton", "shards"), seed=3), 0)
        assert not verify(tmp_path / name, 0).findings
        records = open_records(tmp_path / name, "train")
        plan = Plan(records.widths, records.heights, Shuffled(8), View(RandomResizedCrop(), 48, 0.5), seed=1)
        for loader_name in LOADERS:
            loader = open_loader(loader_name, records, plan, LoaderOptions())
            batches[name, loader_name] = [(batch.images.clone(), batch.ids.clone()) for batch in loader.epoch(0)]
            loader.close()
        stored_bytes = [records.read(index).tobytes() for index in range(len(records))]
        assert all(has_restarts(data) for data in stored_bytes) == (name == "with")
    for loader_name in LOADERS:
        for one, other in zip(batches["plain", loader_name], batches["with", loader_name], strict=True):
            assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_manifests_say_whether_there_are_some(image_folder, tmp_path):
    pack(listed(image_folder), tmp_path / "plain", PackSettings(Encoding()), 0)
    pack(listed(image_folder), tmp_path / "with", PackSettings(WITH), 0)
    settings = {
        name: json.loads((tmp_path / name / "manifest.json").read_text())["settings"] for name in ("plain", "with")
    }
    assert (settings["plain"]["restarts"], settings["with"]["restarts"]) == (False, True)
    with pytest.raises(FeedrateError, match="overwrite"):
        pack(listed(image_folder), tmp_path / "plain", PackSettings(WITH), 0)


def test_without_the_kernel_it_says_what_to_install(image_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(library, "load", lambda: None)
    monkeypatch.setattr(library, "why_not", lambda: "there is no C compiler: install gcc")
    with pytest.raises(FeedrateError, match="install gcc"):
        restarts.require_kernel("--restart-markers")
    command = ["folder", "--source", str(image_folder), "--out", str(tmp_path / "out"), "--restart-markers"]
    assert main(command, "", lambda name, path: None) == 2
    assert "install gcc" in capsys.readouterr().err and not (tmp_path / "out").exists()
