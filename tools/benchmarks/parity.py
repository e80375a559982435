"""How near the pixels of every loader are to plain code that does the same."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torchvision.transforms.functional import InterpolationMode, hflip, resized_crop

from loaders.api import LoaderOptions, ResizeMode
from loaders.choose import open_loader
from loaders.crops import CenterCrop, RandomResizedCrop
from loaders.errors import FeedrateError
from loaders.pixels import load_image
from loaders.plan import Plan, PlanRows, Sequential, Shard, View
from loaders.records import Records, open_records

from .images import find_photos
from .loading.cases import CASES
from .loading.data import store
from .report import about, row
from .side_by_side import Say

_SIZE_PX = 224
_BATCH = 50
STORED = ("full", "raw256")  # cases of `bench.py load`
VIEWS = {
    "training": View(RandomResizedCrop(), _SIZE_PX, flip_probability=0.5),
    "evaluation": View(CenterCrop(_SIZE_PX, 256), _SIZE_PX),
}
_MODES: dict[str, tuple[ResizeMode, ...]] = {
    "torchvision": ("exact", "bicubic"),
    "turbo": ("exact", "device", "bicubic", "area"),
    "dali": ("exact", "bicubic"),
    "resident": ("exact", "device", "bicubic", "area"),
    "ffcv": ("area",),
}
_REFERENCE = {"exact": "exact", "device": "exact", "bicubic": "bicubic", "area": "area"}

Images = NDArray[np.uint8]  # [N, size, size, 3]


@dataclass(frozen=True)
class Difference:
    """Of two sets of images, in grey levels of 255: mean and largest of all values, and images that are equal."""

    mean: float
    largest: int
    num_equal: int
    num_images: int

    @classmethod
    def between(cls, images: Images, reference: Images) -> "Difference":
        """Raises ValueError where there are not as many."""
        if images.shape != reference.shape:
            raise ValueError(f"{images.shape} is compared with {reference.shape}")
        off = [np.abs(one.astype(np.int16) - other) for one, other in zip(images, reference, strict=True)]
        largest = [int(one.max()) for one in off]
        return cls(float(np.mean([one.mean() for one in off])), max(largest), largest.count(0), len(off))


def measure(source: Path | None, num_workers: int, folder: Path, say: Say) -> dict[str, Any]:
    """Every loader and mode over the same samples, stored in two ways, cut as in training and in evaluation."""
    source = source or find_photos(folder, say)
    rows: list[dict[str, Any]] = []
    for name in STORED:
        packed = store(name, CASES[name], source, 1, folder, say).data["beton"]
        records = open_records(packed, "train")
        for view_name, view in VIEWS.items():
            say(f"{name}, {view_name}")
            for one in _compared(records, view, num_workers):
                rows.append({"stored": name, "view": view_name, **one})
        records.close()
    settings = {"images": source.name, "workers": num_workers, "in_one_go": True}
    return {"settings": settings, "rows": rows}


def _compared(records: Records, view: View, num_workers: int) -> Iterator[dict[str, Any]]:
    plan = Plan(records.widths, records.heights, Sequential(_BATCH), view, seed=0)
    references = {
        "exact": _plain(records, plan, partial(_torchvision, InterpolationMode.BILINEAR)),
        "bicubic": _plain(records, plan, partial(_torchvision, InterpolationMode.BICUBIC)),
        "area": _plain(records, plan, _opencv),
    }
    for name, whose in (("area", "plain OpenCV INTER_AREA"), ("bicubic", "torchvision's own")):
        between = Difference.between(references[name], references["exact"])
        yield {"loader": whose, "resize": name, "reference": "exact", **vars(between)}
    for loader, modes in _MODES.items():
        for resize in modes:
            about_it = {"loader": loader, "resize": resize, "reference": _REFERENCE[resize]}
            try:
                images = _delivered(loader, records, plan, LoaderOptions(num_workers=num_workers, resize=resize))
            except (FeedrateError, ImportError) as error:
                yield {**about_it, "skipped": " ".join(str(error).split())}
                continue
            yield {**about_it, **vars(Difference.between(images, references[_REFERENCE[resize]]))}


def _delivered(name: str, records: Records, plan: Plan, options: LoaderOptions) -> Images:
    loader = open_loader(name, records, plan, options)
    try:
        batches = [batch.images[: batch.num_valid].permute(0, 2, 3, 1).numpy().copy() for batch in loader.epoch(0)]
    finally:
        loader.close()
    return np.concatenate(batches)


def _plain(records: Records, plan: Plan, cut: Callable[[Records, PlanRows, int], Images]) -> Images:
    """One image after the other, by code that is nobody's loader."""
    images = []
    for batch in range(plan.num_batches(1)):
        rows = plan.rows(0, batch, Shard())
        images += [cut(records, rows, place) for place in range(len(rows)) if rows.ids[place] >= 0]
    return np.stack(images)


def _torchvision(how: InterpolationMode, records: Records, rows: PlanRows, place: int) -> Images:
    left, top, width, height = rows.rects[place].tolist()
    image = load_image(records, int(rows.ids[place]))
    image = resized_crop(image, top, left, height, width, [_SIZE_PX, _SIZE_PX], how)
    return np.asarray(hflip(image) if rows.flips[place] else image)


def _opencv(records: Records, rows: PlanRows, place: int) -> Images:
    left, top, width, height = rows.rects[place].tolist()
    part = np.asarray(load_image(records, int(rows.ids[place])))[top : top + height, left : left + width]
    image = cv2.resize(part, (_SIZE_PX, _SIZE_PX), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.flip(image, 1) if rows.flips[place] else image)


def page(measured: Mapping[str, Any]) -> str:
    """The table for people."""
    lines = [
        "# Pixels of every loader",
        "",
        *about(measured),
        f"Images: {measured['settings']['images']}, 224 px, `full` as JPEGs with their own bytes, `raw256` as pixels"
        " with the shorter side 256. The reference for `exact` and `device` is torchvision's `resized_crop` on a Pillow"
        " image, bilinear, and for `bicubic` the same, bicubic; for `area` it is OpenCV's `resize` with INTER_AREA. All"
        " are run here one image after the other. Differences are in grey levels of 255.",
        "",
        row("stored", "view", "loader", "resize", "against", "mean", "largest", "equal images"),
        row(*["---"] * 8),
    ]
    for one in measured["rows"]:
        cells = [one[key] for key in ("stored", "view", "loader", "resize", "reference")]
        if "skipped" in one:
            lines.append(row(*cells, f"skipped: {one['skipped']}", "", ""))
        else:
            equal = f"{one['num_equal']:,} of {one['num_images']:,}"
            lines.append(row(*cells, f"{one['mean']:.4f}", str(one["largest"]), equal))
    return "\n".join(lines) + "\n"
