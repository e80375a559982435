"""Run in a process of its own: FFCV's writer over torchvision's ImageFolder, as FFCV's documentation shows it.

python ffcv_writer.py FOLDER FILE --write-mode jpg|raw [--max-resolution PX] [--quality Q] [--workers W]

Prints one line of JSON: seconds of importing, of listing the folder and of writing. After an error in one of its
workers FFCV's writer waits for ever, so whoever runs this must set a limit.
"""

import time

_STARTED_S = time.perf_counter()

import argparse
import json

from ffcv.fields import IntField, RGBImageField
from ffcv.writer import DatasetWriter
from torchvision.datasets import ImageFolder

_IMPORTED_S = time.perf_counter()


def main() -> None:
    """Pack, and print the times."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("file")
    parser.add_argument("--write-mode", required=True)
    parser.add_argument("--max-resolution", type=int)
    parser.add_argument("--quality", type=int, default=90)
    parser.add_argument("--workers", type=int, required=True)
    chosen = parser.parse_args()
    samples = ImageFolder(chosen.folder)
    listed_s = time.perf_counter()
    image = RGBImageField(
        write_mode=chosen.write_mode, max_resolution=chosen.max_resolution, jpeg_quality=chosen.quality
    )
    writer = DatasetWriter(chosen.file, {"image": image, "label": IntField()}, num_workers=chosen.workers)
    writer.from_indexed_dataset(samples)
    written_s = time.perf_counter()
    times = {
        "import_s": _IMPORTED_S - _STARTED_S,
        "work_s": written_s - _IMPORTED_S,
        "write_s": written_s - listed_s,
    }
    print(json.dumps(times))


if __name__ == "__main__":
    main()
