"""A validation split where the source has none: drawn class by class, and no image on both sides."""

from collections.abc import Sequence
from hashlib import blake2b, sha256

import numpy as np
from numpy.typing import NDArray

from loaders.counter_random import stream_key

from ..progress import Phase
from ..samples import BadSample, Samples, Stored
from .duplicates import duplicate_groups

# notes on what is no sample
_OF_WHAT_IS_IGNORED = ("ignored_suffixes", "num_images_outside_class_folders")


class Subset:
    """Some samples of a split, in the order of `indices` (int64 [n]). Fulfils `converters.samples.Samples`."""

    def __init__(
        self,
        samples: Samples,
        indices: NDArray[np.int64],
        bad: Sequence[BadSample] = (),
        num_ignored: int = 0,
        notes: dict[str, object] | None = None,
    ) -> None:
        self.classes = samples.classes
        self.class_names = samples.class_names
        self.labels = samples.labels[indices]
        self.num_bytes = samples.num_bytes[indices]
        self.bad = bad
        self.num_ignored = num_ignored
        self.notes = {**samples.notes, **(notes or {})}
        if not num_ignored:  # then what the source ignored is told of another subset
            self.notes = {name: note for name, note in self.notes.items() if name not in _OF_WHAT_IS_IGNORED}
        self._samples = samples
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def stored(self, index: int) -> Stored:
        """See `Samples`."""
        return self._samples.stored(int(self._indices[index]))

    def fingerprint(self) -> str:
        """That of the whole, and which samples of it are here."""
        return sha256(self._samples.fingerprint().encode() + self._indices.tobytes()).hexdigest()


def split_off_val(samples: Samples, val_fraction: float, seed: int, phase: Phase) -> dict[str, Samples]:
    """ "train" and "val" of a source that has one split; both keep its order.

    Each class gives round(val_fraction × its samples) to "val", though at least one of two or more, and keeps at least
    one. Byte-identical images stay together, whatever their classes, so a class may give fewer where it consists of
    such. Which ones is a hash of the seed and the sample's name: where files are added or removed, the others stay
    where they were, but for those that a class's share then takes in or gives up. Recorded in `notes["split"]` of both.
    """
    groups = duplicate_groups(samples, phase)
    in_val = _choose(samples.labels, len(samples.classes), groups, val_fraction, _keys(samples, seed))
    notes: dict[str, object] = {
        "split": {
            "val_fraction": val_fraction,
            "seed": seed,
            "num_duplicate_groups": len(groups),
            "num_duplicates": sum(len(group) - 1 for group in groups),
        }
    }
    train, val = np.flatnonzero(~in_val), np.flatnonzero(in_val)
    return {
        "train": Subset(samples, train, samples.bad, samples.num_ignored, notes),  # what is no sample, counted once
        "val": Subset(samples, val, notes=notes),
    }


def _keys(samples: Samples, seed: int) -> NDArray[np.uint64]:
    """uint64 [N], uniform: a sample's depends on the seed and its name alone, not on what lies beside it."""
    stream = stream_key(seed, 0, "validation split").to_bytes(8, "little")
    names = (samples.stored(index).name.encode("utf-8", "surrogateescape") for index in range(len(samples)))
    digests = b"".join(blake2b(name, digest_size=8, key=stream).digest() for name in names)
    return np.frombuffer(digests, "<u8").astype(np.uint64)


def _choose(
    labels: NDArray[np.int64],
    num_classes: int,
    groups: list[list[int]],
    val_fraction: float,
    keys: NDArray[np.uint64],
) -> NDArray[np.bool_]:
    """bool [N]: whether a sample goes to "val". Units, an image with all its copies, are taken in the order of `keys`,
    each by that of its first."""
    num_of = np.bincount(labels, minlength=num_classes)
    wanted = np.floor(val_fraction * num_of + 0.5).astype(np.int64)
    wanted = np.minimum(np.maximum(wanted, 1), np.maximum(num_of - 1, 0))
    in_val = np.zeros(len(labels), np.bool_)
    room = wanted.tolist()
    label_list = labels.tolist()
    unit_of = {group[0]: group for group in groups}
    copies = {index for group in groups for index in group[1:]}
    order = [index for index in np.argsort(keys, kind="stable").tolist() if index not in copies]
    for index in order:
        unit = unit_of.get(index, [index])
        if len(unit) == 1:
            fits = room[label_list[index]] > 0
        else:
            counts = np.bincount(labels[unit], minlength=num_classes)
            fits = bool((counts <= room).all())
        if fits:
            in_val[unit] = True
            for member in unit:
                room[label_list[member]] -= 1
    _fill_empty(labels, in_val, wanted, [unit_of[index] for index in order if index in unit_of])
    return in_val


def _fill_empty(
    labels: NDArray[np.int64], in_val: NDArray[np.bool_], wanted: NDArray[np.int64], units: list[list[int]]
) -> None:
    """Give classes of nothing but copies, whose copies were too many, a place in "val" all the same, if one is left.

    The smallest such unit is taken that leaves every class something to train with.
    """
    left = np.bincount(labels[~in_val], minlength=len(wanted))
    given = np.bincount(labels[in_val], minlength=len(wanted))
    for unit in sorted(units, key=len):
        counts = np.bincount(labels[unit], minlength=len(wanted))
        lacks = (given == 0) & (wanted > 0) & (counts > 0)
        if lacks.any() and not in_val[unit].any() and bool((left - counts >= (counts > 0)).all()):
            in_val[unit] = True
            left -= counts
            given += counts
