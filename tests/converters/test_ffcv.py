"""Stock FFCV opens our files and we open stock FFCV's."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from pictures import smooth_picture

from converters.encode import Encoded
from converters.formats.beton import BetonOutput
from converters.formats.outputs import ROW, Payload
from loaders.beton_records import BetonRecords

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ffcv") is None, reason="ffcv is not installed")

NUM, SIDE = 20, 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ours written, and FFCV's half of the exchange done."""
    folder = tmp_path_factory.mktemp("exchange")
    pixels = np.stack([smooth_picture(SIDE, SIDE, seed) for seed in range(NUM)])
    np.save(folder / "pixels.npy", pixels)
    for mode in ("raw", "jpg"):
        rows = np.zeros(NUM, ROW)
        rows["width"] = rows["height"] = SIDE
        rows["label"], rows["beton_is_raw"] = np.arange(NUM) % 3, mode == "raw"
        jpegs = [simplejpeg.encode_jpeg(image, 95, "RGB", "420") for image in pixels]
        rows["jpeg_bytes"] = [len(jpeg) for jpeg in jpegs]
        # small pages, so that the samples lie on several; room for more samples than come, as after bad ones
        output = BetonOutput(folder, f"ours-{mode}", NUM + 5, page_bytes=1 << 16)
        output.restore(rows[:0])
        payloads = [
            Payload(Encoded(SIDE, SIDE, jpeg, False, image, None), mode == "raw")
            for jpeg, image in zip(jpegs, pixels, strict=True)
        ]
        output.place(rows, 0).write(payloads)
        output.finish(rows)
    script = Path(__file__).with_name("ffcv_exchange.py")
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.parametrize("mode", ["raw", "jpg"])
def test_stock_ffcv_reads_what_we_write(folder, mode):
    expected = np.load(folder / "pixels.npy")
    read = np.load(folder / f"read-{mode}.npz")
    assert read["labels"].ravel().tolist() == [index % 3 for index in range(NUM)]
    difference = np.abs(read["images"].astype(int) - expected)
    assert difference.max() == 0 if mode == "raw" else difference.mean() < 3


@pytest.mark.parametrize("mode", ["raw", "jpg"])
def test_we_read_what_stock_ffcv_writes(folder, mode):
    expected = np.load(folder / "pixels.npy")
    records = BetonRecords(folder / f"stock-{mode}.beton")
    assert records.labels.tolist() == [index % 3 for index in range(NUM)]
    assert records.classes == ("0", "1", "2")
    assert records.is_raw.all() if mode == "raw" else not records.is_raw.any()
    for index in range(NUM):
        data = records.read(index)
        image = data.reshape(SIDE, SIDE, 3) if mode == "raw" else simplejpeg.decode_jpeg(data, "RGB")
        difference = np.abs(image.astype(int) - expected[index])
        assert difference.max() == 0 if mode == "raw" else difference.mean() < 3
