"""Run by a test in a process of its own, since FFCV changes torch's and numba's threads: swap files with stock FFCV.

Arguments: a folder with ours-raw.beton and ours-jpg.beton. Writes stock-*.beton beside them, from the pixels in
pixels.npy, and what FFCV's Loader reads of ours as read-*.npz.
"""

import sys
from pathlib import Path

import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import SimpleRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.writer import DatasetWriter


class Pictures:
    def __init__(self, pixels):
        self.pixels = pixels

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        return index % 3, self.pixels[index]


def main(folder):
    pixels = np.load(folder / "pixels.npy")
    for mode in ("raw", "jpg"):
        # the label first and under another name: any order and any names must do
        fields = {"target": IntField(), "picture": RGBImageField(write_mode=mode, jpeg_quality=95)}
        writer = DatasetWriter(str(folder / f"stock-{mode}.beton"), fields, num_workers=2)
        writer.from_indexed_dataset(Pictures(pixels), chunksize=5)
    for mode, from_memory_map in (("raw", False), ("jpg", True)):
        pipelines = {"image": [SimpleRGBImageDecoder()], "label": [IntDecoder()]}
        loader = Loader(
            str(folder / f"ours-{mode}.beton"),
            batch_size=7,
            num_workers=1,
            os_cache=from_memory_map,
            order=OrderOption.SEQUENTIAL,
            drop_last=False,
            pipelines=pipelines,
        )
        batches = [(images.copy(), labels.copy()) for images, labels in loader]
        images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        np.savez(folder / f"read-{mode}.npz", images=images, labels=labels)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
