"""What comes in: a data set in whatever form it lies there, its splits as lists of samples, or a helpful sentence."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from loaders.errors import FeedrateError
from loaders.folder_records import refuse_flat

from ..out_folder import may_remove
from ..progress import Phase
from ..samples import Samples
from ..split_pass import Rules, check_bad
from . import archive_source, cifar_source, folder_source, kaggle_source, packed_source, shard_source
from .splitting import split_off_val

_CIFAR = (
    "give --download to fetch it, put https://www.cs.toronto.edu/~kriz/{0}-python.tar.gz there (packed or unpacked), or"
    " name its place"
)
_REMEDIES = {
    "imagenet": (
        "put ImageNet there, as Kaggle's ILSVRC/, as the official ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar"
        " with ILSVRC2012_devkit_t12.tar.gz (https://image-net.org/download), as WebDataset shards, or as"
        " train/<class>/ and val/<class>/, or name its place with --source"
    ),
    "cifar10": _CIFAR.format("cifar-10") + " with --source",
    "cifar100": _CIFAR.format("cifar-100") + " with --source",
    "folder": "give the folder that holds train/<class>/ and val/<class>/ with --source",
    "synthetic": "give another --out",
}
_TITLES = {"imagenet": "ImageNet", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}


class _Form(Protocol):
    """What each `*_source` module offers."""

    def recognise(self, path: Path) -> str | None:
        """The data set that lies at `path` in this form ("any": it could be any), None where it is another form."""
        ...

    def open_splits(self, path: Path, phase: Phase) -> dict[str, Samples]: ...


# the first that recognises a path reads it: those that look for names before those that would take any folder
_FORMS: tuple[_Form, ...] = (
    packed_source,
    kaggle_source,
    archive_source,
    cifar_source,
    shard_source,
    folder_source,
)


@dataclass(frozen=True)
class SourceOptions:
    """What is asked of a source.

    val_fraction  of each class is split off where there is no "val" split; None: nothing is
    seed          of that choice
    rules         how many samples may turn out to be unusable while they are listed
    """

    val_fraction: float | None = None
    seed: int = 0
    rules: Rules = Rules()

    def __post_init__(self) -> None:
        if self.val_fraction is not None and not 0 < self.val_fraction < 1:
            raise FeedrateError(f"--val-fraction {self.val_fraction} is not between 0 and 1: give a part, say 0.1")


def open_source(dataset: str, path: Path, options: SourceOptions, phase: Phase) -> dict[str, Samples]:
    """Every split at `path`, "train" before "val". Listed only: no image is read, but for CIFAR's and to find copies.

    The form is told by looking. `dataset` (a key of the remedies) chooses the sentence where there is nothing, and
    what is recognised as another data set is refused. Raises FeedrateError where there is nothing, an empty split, a
    bad sample that the rules do not bear, or where the splits do not have the same classes.
    """
    try:
        if not path.exists():
            raise FeedrateError(
                f"{path} does not exist: {_REMEDIES[dataset]}; without data, try 'python tools/convert.py synthetic'"
            )
        splits = _recognised(dataset, path).open_splits(path, phase)
    except OSError as error:
        raise FeedrateError(f"{error.filename or path} cannot be read ({error.strerror}): see to it") from error
    _check(path, splits, options.rules)
    if options.val_fraction is not None:
        if list(splits) != ["train"]:
            raise FeedrateError(
                f"{path} has a 'val' split already ({' and '.join(splits)}), and --val-fraction is for sources with"
                " nothing but training images: leave it out"
            )
        splits = split_off_val(splits["train"], options.val_fraction, options.seed, phase)
        if not len(splits["val"]):
            raise FeedrateError(f"{path} has no class with two different images, so none can be split off: add some")
    return splits


def check_apart(source: Path, out: Path) -> None:
    """Refuse to pack into the source, where the packed folder would be taken for a class, and over the source.

    Raises FeedrateError.
    """
    if out.resolve() == source.resolve():
        raise FeedrateError(f"{out} is the source itself, which packing would write into: give another --out")
    if out.resolve().is_relative_to(source.resolve()):
        raise FeedrateError(f"{out} lies inside the source {source}: give an --out outside of it")
    if may_remove(out, source):
        raise FeedrateError(f"packing into {out} would replace the source {source} itself: give another --out")


def _recognised(dataset: str, path: Path) -> _Form:
    """The form that reads what lies at `path`."""
    for form in _FORMS:
        found = form.recognise(path)
        if found is None:
            continue
        if found not in ("any", dataset) and dataset != "folder":
            raise FeedrateError(
                f"{path} holds {_TITLES[found]}, which is not '{dataset}': run"
                f" python tools/convert.py {found} --source {shlex.quote(str(path))}"
            )
        return form
    refuse_flat(path)
    raise FeedrateError(f"{path} holds nothing this reads: {_REMEDIES[dataset]}")


def _check(path: Path, splits: Mapping[str, Samples], rules: Rules) -> None:
    first = next(iter(splits))
    for split, samples in splits.items():
        check_bad(0, samples.bad, rules)
        if len(samples) == 0 and samples.bad:
            bad = samples.bad[0]
            raise FeedrateError(
                f"none of the {len(samples.bad):,} images in the '{split}' split of {path} can be used, the first,"
                f" {bad.where}, since {bad.reason}: mend them, or remove the split"
            )
        if len(samples) == 0:
            raise FeedrateError(f"{path} has no images in its '{split}' split: add some, or remove it")
        if samples.classes != splits[first].classes:
            odd = sorted(set(samples.classes) ^ set(splits[first].classes))
            raise FeedrateError(
                f"{path}: the splits '{first}' and '{split}' differ in their classes ({', '.join(odd[:3])}"
                f"{', …' if len(odd) > 3 else ''}): give both the same class folders"
            )
