"""ImageNet as its authors distribute it: ILSVRC2012_img_train.tar (a .tar a class), ILSVRC2012_img_val.tar, the kit."""

import re
from pathlib import Path

from loaders.errors import FeedrateError
from loaders.folder_scan import is_image_name

from ..progress import Advance, Phase
from ..samples import BadSample, Samples
from .class_names import class_names
from .devkit import DEVKIT_NAME, Devkit, read_devkit
from .tar_members import MemberList, TarSamples, tar_members

ARCHIVES = {"train": "ILSVRC2012_img_train.tar", "val": "ILSVRC2012_img_val.tar"}
_CLASS_ARCHIVE = re.compile(r"(n\d{8})\.tar")
_VAL_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+")


def recognise(path: Path) -> str | None:
    """ "imagenet" where one of the two archives is, or lies."""
    return "imagenet" if _found(path) else None


def open_splits(path: Path, phase: Phase) -> dict[str, Samples]:
    """List the archives there are: both splits, or the one.

    Labels, order and names of the training samples are those of `nXXXXXXXX/…` unpacked into class folders, whatever
    the order within the archives; the validation samples come by file name. Labels of the latter need the development
    kit beside. Raises FeedrateError for damaged archives and for those that do not belong together.
    """
    found = _found(path)
    root = path if path.is_dir() else path.parent
    devkit = read_devkit(root)
    if "val" in found and devkit is None:
        raise FeedrateError(
            f"{found['val']} holds images without labels, which are in {DEVKIT_NAME}: download that too, and put it"
            " beside"
        )
    splits: dict[str, Samples] = {}
    if "train" in found:
        with phase("list train", 0) as advance:
            splits["train"] = _list_train(found["train"], devkit, advance)
    if "val" in found and devkit is not None:
        with phase("list val", 0) as advance:
            splits["val"] = _list_val(found["val"], devkit, advance)
    absent = [name for split, name in ARCHIVES.items() if split not in found and path.is_dir()]
    for samples in splits.values():
        samples.notes.update({"archive_not_there": absent[0]} if absent else {})
    return splits


def _found(path: Path) -> dict[str, Path]:
    """The archives by split."""
    if path.is_file():
        return {split: path for split, name in ARCHIVES.items() if path.name == name}
    return {split: path / name for split, name in ARCHIVES.items() if (path / name).is_file()}


def _list_train(path: Path, devkit: Devkit | None, advance: Advance) -> TarSamples:
    """One pass over the headers. One thread, since disks that turn are read fastest from front to back."""
    inner = {}
    num_ignored = 0
    for member in tar_members(path):
        if match := _CLASS_ARCHIVE.fullmatch(member.name.rpartition("/")[2]):
            inner[match[1]] = member
        else:
            num_ignored += 1
    if not inner:
        raise FeedrateError(
            f"{path} holds no archive of a class, such as n01440764.tar: get ImageNet's own {path.name}"
        )
    classes = tuple(sorted(inner)) if devkit is None else tuple(devkit.names)
    if odd := sorted(set(inner) ^ set(classes)):
        raise FeedrateError(
            f"{path} and the {DEVKIT_NAME} beside it differ in their classes ({', '.join(odd[:3])}"
            f"{', …' if len(odd) > 3 else ''}): get both from the same place"
        )
    members, bad = MemberList(), []
    for label, wnid in enumerate(classes):
        num_before = len(members)
        for member in sorted(tar_members(path, inner[wnid].position, inner[wnid].num_bytes)):
            name = f"{wnid}/{member.name}"
            if not is_image_name(name):
                num_ignored += 1
            elif member.is_link:
                bad.append(BadSample(name, f"{path}, {name}", "it is a link inside the archive"))
            else:
                members.add(name, member.position, member.num_bytes, label)
        advance(len(members) - num_before, 0)
    names = class_names(classes, [path.parent]) if devkit is None else tuple(devkit.names.values())
    return TarSamples([path], members, classes, names, bad, num_ignored)


def _list_val(path: Path, devkit: Devkit, advance: Advance) -> TarSamples:
    """The images by file name; image n has the label on line n of the kit's list."""
    label_of = {wnid: label for label, wnid in enumerate(devkit.names)}
    members = MemberList()
    wanted = set(range(1, len(devkit.val_wnids) + 1))
    num_ignored, bad = 0, []
    for member in sorted(tar_members(path)):
        name = member.name.rpartition("/")[2]
        if not is_image_name(name):
            num_ignored += 1
            continue
        match = _VAL_IMAGE.fullmatch(name)
        number = int(match[1]) if match else 0
        if number not in wanted:
            raise FeedrateError(
                f"{path} holds {member.name}, for which {DEVKIT_NAME} has no label (it has {len(devkit.val_wnids):,}):"
                " get both from the same place"
            )
        wanted.remove(number)
        if member.is_link:
            bad.append(BadSample(name, f"{path}, {name}", "it is a link inside the archive"))
        else:
            members.add(name, member.position, member.num_bytes, label_of[devkit.val_wnids[number - 1]])
    for number in sorted(wanted):
        name = f"ILSVRC2012_val_{number:08d}.JPEG"
        bad.append(BadSample(name, f"{path}, {name}", f"{DEVKIT_NAME} has a label for it and it is not there"))
    advance(len(members), 0)
    return TarSamples([path], members, tuple(devkit.names), tuple(devkit.names.values()), bad, num_ignored)
