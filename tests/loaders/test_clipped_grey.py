"""Grey of 16 bits keeps torchvision's pixels, which are nearly all white, but not without a word."""

import numpy as np
import pytest
from commands import python
from PIL import Image

_PROGRAM = """
import sys
import torch
from loaders.api import LoaderOptions
from loaders.choose import open_loader
from loaders.crops import CenterCrop
from loaders.plan import Plan, Sequential, View
from loaders.records import open_records

records = open_records(sys.argv[2], "train")
plan = Plan(records.widths, records.heights, Sequential(4), View(CenterCrop(16, 16), 16), 0)
loader = open_loader(sys.argv[1], records, plan, LoaderOptions(device=torch.device("cpu"), num_workers=4))
for epoch in range(2):
    for batch in loader.epoch(epoch):
        pass
print(len(records), int(batch.images[0].min()))
loader.close()
"""


def _folder(root, dtype):
    for name in ("ant", "bee"):
        (root / name).mkdir(parents=True)
        for number in range(12):
            grey = np.linspace(300, 60_000, 40 * 30).reshape(30, 40).astype(dtype)
            grey = grey if dtype is np.uint16 else (grey / 256).astype(np.uint8)
            Image.fromarray(grey).save(root / name / f"{number}.png")
    return root


@pytest.mark.parametrize("loader", ["turbo", "torchvision", "resident"])
def test_each_loader_warns_once_and_names_the_image_and_what_helps(tmp_path, loader):
    done = python("-c", _PROGRAM, loader, str(_folder(tmp_path / "set", np.uint16)))
    assert done.returncode == 0 and done.stdout == "24 255\n", done.stderr
    (told,) = [line for line in done.stderr.splitlines() if "is grey of more than 8 bits" in line]
    assert f"UserWarning: {tmp_path / 'set'}/" in told and ".png is grey" in told and "python tools/convert.py" in told


def test_grey_of_8_bits_is_read_without_a_word(tmp_path):
    done = python("-c", _PROGRAM, "turbo", str(_folder(tmp_path / "set", np.uint8)))
    assert done.returncode == 0 and "grey" not in done.stderr, done.stderr
