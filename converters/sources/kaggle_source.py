"""ImageNet as Kaggle distributes it: class folders to train with, a flat folder and a table of labels to evaluate."""

import csv
import os
import re
from pathlib import Path

import numpy as np

from loaders.errors import FeedrateError
from loaders.folder_scan import subfolders, walk_class

from ..progress import Advance, Phase
from ..samples import BadSample, Samples
from .class_names import class_names, read_list
from .folder_source import FileSamples, Notices, list_folder

_INSIDE = "ILSVRC/Data/CLS-LOC"
_LABELS = "LOC_val_solution.csv"
_CLASSES = "LOC_synset_mapping.txt"
_VAL_IMAGE = re.compile(r"ILSVRC2012_val_\d{8}\.JPEG")


def recognise(path: Path) -> str | None:
    """ "imagenet" where the tree is, or where validation images lie flat as they do in it."""
    return "imagenet" if _images_folder(path) is not None else None


def open_splits(path: Path, phase: Phase) -> dict[str, Samples]:
    """List the splits there are. Labels are those of the sorted wnids; the validation samples come by file name.

    Raises FeedrateError where the tables are missing or do not fit the images. An image that is in the table only is a
    bad sample.
    """
    images = _images_folder(path)
    assert images is not None, "not recognised"
    tables = _folders_of_tables(path, images)
    if not (images / "train").is_dir() and not (images / "val").is_dir():
        raise FeedrateError(f"{images} holds neither train/ nor val/: unpack Kaggle's archive again")
    splits: dict[str, Samples] = {}
    if (images / "train").is_dir():
        with phase("list train", 0) as advance:
            splits["train"] = list_folder(images / "train", None, advance, tables)
        _check_known(splits["train"].classes, tables, images)
    if (images / "val").is_dir():
        classes = splits["train"].classes if "train" in splits else None
        with phase("list val", 0) as advance:
            if _is_flat(images / "val"):
                splits["val"] = _list_flat(images / "val", classes, tables, advance)
            else:  # somebody has sorted them into class folders, as many scripts do
                splits["val"] = list_folder(images / "val", classes, advance, tables)
    for samples in splits.values():
        samples.notes.update({"left_out": "test/, whose images have no labels"} if (images / "test").is_dir() else {})
    return splits


def _images_folder(path: Path) -> Path | None:
    """The folder that holds `train/` and `val/`."""
    for folder in (path / _INSIDE, path / "Data/CLS-LOC"):
        if folder.is_dir():
            return folder
    resolved = path.resolve()
    is_inside = resolved.parts[-2:] == ("Data", "CLS-LOC") and path.is_dir()
    return path if is_inside or _is_flat(path / "val") else None


def _is_flat(folder: Path) -> bool:
    """Whether validation images lie in it without class folders."""
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(_VAL_IMAGE.fullmatch(entry.name) for entry in entries)


def _folders_of_tables(path: Path, images: Path) -> list[Path]:
    """Where the tables may lie: from where we were sent down to the images, or above."""
    resolved = images.resolve()
    above = list(resolved.parents)[:3] if resolved.parts[-2:] == ("Data", "CLS-LOC") else []
    return list(dict.fromkeys([path, images, images / "val", *above]))


def _find(name: str, folders: list[Path]) -> Path | None:
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _check_known(classes: tuple[str, ...], tables: list[Path], images: Path) -> None:
    mapping = _find(_CLASSES, tables)
    odd = sorted(set(classes) - set(read_list(mapping))) if mapping is not None else []
    if odd:
        raise FeedrateError(
            f"{images / 'train' / odd[0]} is a class that {mapping} does not name: remove it, or add it"
        )


def _list_flat(folder: Path, classes: tuple[str, ...] | None, tables: list[Path], advance: Advance) -> FileSamples:
    """The images of the validation split by file name, with labels from the table. `classes`: of the training split."""
    table = _find(_LABELS, tables)
    if table is None:
        raise FeedrateError(
            f"{folder} holds images without labels, which are in {_LABELS}: put Kaggle's into {tables[0]}, or sort the"
            f" images into {folder}/<class>/"
        )
    if stray := next(subfolders(folder), None):
        raise FeedrateError(
            f"{folder} holds images as well as the folder '{stray}': unpack it again, or sort all images into folders"
        )
    wnid_of = _read_labels(table)
    if classes is None:
        mapping = _find(_CLASSES, tables)
        classes = tuple(sorted(set(wnid_of.values()) if mapping is None else read_list(mapping)))
    label_of = {wnid: label for label, wnid in enumerate(classes)}
    for image, wnid in wnid_of.items():
        if wnid not in label_of:
            raise FeedrateError(
                f"{table} gives {image} the class {wnid}, which is none of the {len(classes):,} known: unpack"
                f" train/ and {_CLASSES} again"
            )
    notices = Notices(folder)
    files = walk_class(folder, "", notices)
    images = [Path(os.fsdecode(files.names[index])).stem for index in range(len(files))]
    if odd := [image for image in images if image not in wnid_of]:
        raise FeedrateError(f"{table} has no line for {odd[0]} ({len(odd):,} such images): get Kaggle's table again")
    seen = {*images, *(Path(bad.name).stem for bad in notices.bad)}
    for image in sorted(set(wnid_of) - seen):
        name = f"{image}.JPEG"
        notices.unusable(f"{folder}/{name}", f"{_LABELS} has a line for it and it is not there")
    labels = np.array([label_of[wnid_of[image]] for image in images], np.int64)
    advance(len(files), 0)
    bad: list[BadSample] = sorted(notices.bad, key=lambda sample: sample.name)
    return FileSamples(
        folder, classes, class_names(classes, tables), labels, files, bad, notices.num_ignored, notices.notes()
    )


def _read_labels(path: Path) -> dict[str, str]:
    """The wnid of each image: the first word of its prediction, behind which stand boxes."""
    wnid_of: dict[str, str] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            for row in rows:
                image, words = row["ImageId"], row["PredictionString"].split()
                if not words or image in wnid_of:
                    raise ValueError(f"line {rows.line_num} names no class or an image that had one")
                wnid_of[image] = words[0]
        if not wnid_of:
            raise ValueError("it has no lines")
    except (OSError, ValueError, KeyError, AttributeError, csv.Error) as error:
        reason = f"it has no column {error}" if isinstance(error, KeyError) else str(error)
        raise FeedrateError(f"{path} is not Kaggle's table of labels ({reason}): get it again") from error
    return wnid_of
