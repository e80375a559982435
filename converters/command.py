"""`tools/convert.py`: parse, call, print."""

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from rich.console import Console

from loaders.ending_signals import status_of, unwind_at_signals
from loaders.errors import FeedrateError
from loaders.lost_output import UNSAID, status_and_loss
from loaders.manifest import WORK_FOLDER, PackedSplit
from loaders.records import open_records
from loaders.system_limits import limits_told

from .byte_counts import disk_bytes, readable_bytes
from .encode import holds_jpegs
from .estimate import Estimate
from .generated.photos import write_photos
from .options import DATASETS, NUM_CLASSES, parse, rules_of, settings_of
from .out_folder import BAD_SAMPLES_NAME
from .packing import Packed, pack
from .presets import PRESETS
from .progress import shown_phase
from .samples import Samples
from .sources.opening import SourceOptions, check_apart, open_source

_INSPECTIONS = ("verify", "show")  # commands that print what was asked for, and pack nothing
_MOST_NAMES = 8  # of what is left out, on the screen; the manifest has all
Download = Callable[[str, Path], None]  # (data set, where to): fetches it unless it is there


def main(arguments: Sequence[str], description: str, download: Download) -> int:
    """Run the command; returns its exit status: 0 done, 2 bad input or bad files, 128 + n ended by signal n, which is
    SIGPIPE where who reads what it says is gone, as behind `| head`, and 120 (Python's own for it) where an answer that
    was asked for cannot be written otherwise. Packing goes on then."""
    status, is_lost = status_and_loss(lambda: _run(arguments, description, download))
    asks = not arguments or arguments[0] in _INSPECTIONS or not {"-h", "--help"}.isdisjoint(arguments)
    return status or (UNSAID if asks and is_lost else 0)


def _run(arguments: Sequence[str], description: str, download: Download) -> int:
    chosen = None
    try:
        unwind_at_signals()
        chosen = parse(arguments, description)
        with limits_told():
            if getattr(chosen, "download", False):
                download(chosen.command, chosen.source)
            {"verify": _verify, "show": _show}.get(chosen.command, _pack)(chosen)
    except FeedrateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        begun = chosen is not None and chosen.command in DATASETS and (chosen.out / WORK_FOLDER).exists()
        print(f"interrupted{': the same command goes on where this one stopped' if begun else ''}", file=sys.stderr)
        return status_of(interrupt)
    return 0


def _pack(chosen: argparse.Namespace) -> None:
    settings, remark = settings_of(chosen)
    if remark:
        print(remark)
    check_apart(chosen.source, chosen.out)
    if chosen.command == "synthetic":
        _generate(chosen)
    rules = rules_of(chosen)
    options = SourceOptions(getattr(chosen, "val_fraction", None), chosen.seed, rules)
    splits = open_source(chosen.command, chosen.source, options, shown_phase)
    _tell_of(chosen.source, splits)
    _tell_of_classes(chosen.command, chosen.source, splits)

    def tell(needed: Mapping[str, Estimate]) -> None:
        if chosen.preset:
            print(f"preset {chosen.preset}: {PRESETS[chosen.preset].purpose}")
        for split, cost in needed.items():
            size = readable_bytes(cost.num_bytes, 2 * cost.standard_error)
            print(f"{split}: {len(splits[split]):,} samples will take about {size} (estimated from {cost.num_probed})")

    started_s = time.monotonic()
    source = {"dataset": chosen.command, "path": str(chosen.source.resolve())}
    packed = pack(splits, chosen.out, settings, chosen.workers, rules, source, shown_phase, tell)
    for split in splits:  # what was written must open
        open_records(chosen.out, split).close()
    _report(chosen.out, packed, time.monotonic() - started_s)


def _tell_of(source: Path, splits: Mapping[str, Samples]) -> None:
    """What of the source is not packed."""
    if len(splits) == 1:
        only = next(iter(splits))
        more = " (--val-fraction makes a 'val' split of a part of it)" if only == "train" else ""
        print(f"{source} has only a '{only}' split: packing that alone{more}")
    left_out = next(iter(splits.values())).notes.get("left_out")  # which every split is told
    if left_out:
        names = left_out if isinstance(left_out, list) else [left_out]
        more = f" and {len(names) - _MOST_NAMES:,} more" if len(names) > _MOST_NAMES else ""
        print(f"{source}: left out, since no split has them: {', '.join(map(str, names[:_MOST_NAMES]))}{more}")
    for split, samples in splits.items():
        if samples.num_ignored:
            suffixes = _suffixes(samples.notes.get("ignored_suffixes"))
            print(f"{split}: {samples.num_ignored:,} files ignored, since by their names they are no images{suffixes}")
        if num_outside := samples.notes.get("num_images_outside_class_folders"):
            print(f"{split}: {num_outside:,} images ignored, since they lie in no class folder")


def _suffixes(counts: object) -> str:
    """Of the files that were ignored, where they are known: a set of a form that is not read shows by that."""
    if not isinstance(counts, dict):
        return ""
    named = [f"{num:,} {suffix or 'without a suffix'}" for suffix, num in list(counts.items())[:_MOST_NAMES]]
    return f" ({', '.join(named)}{', …' if len(counts) > _MOST_NAMES else ''})"


def _tell_of_classes(dataset: str, source: Path, splits: Mapping[str, Samples]) -> None:
    """Warn where there are not as many as the data set has; it may be a part of it on purpose."""
    expected, num_classes = NUM_CLASSES.get(dataset), len(next(iter(splits.values())).classes)
    if expected not in (None, num_classes):
        print(
            f"warning: {source} has {num_classes:,} classes and {dataset} {expected:,}: packed as it is, which is right"
            " for a part of it alone"
        )


def _generate(chosen: argparse.Namespace) -> None:
    num_photos = {"train": chosen.num_train, "val": chosen.num_val}
    written, kept = write_photos(chosen.source, num_photos, chosen.seed, chosen.classes, chosen.workers, shown_phase)
    print(f"{chosen.source}: {written:,} photos generated, {kept:,} were there already")


def _report(out: Path, packed: Packed, seconds: float) -> None:
    manifest = packed.manifest
    if packed.was_there:
        print(f"{out} holds just that already: nothing to do")
    num_samples = 0
    for name, split in manifest.splits.items():
        num_samples += split.num_samples
        for kind, files in split.formats.items():
            size = disk_bytes(out / file.name for file in files)
            which = files[0].name if len(files) == 1 else f"{files[0].name} … {files[-1].name}"
            print(f"{out / which}: {split.num_samples:,} samples, {readable_bytes(size)} on disk ({kind})")
        if split.seek_points is not None:
            size = disk_bytes([out / split.seek_points.name])
            path = out / split.seek_points.name
            print(f"{path}: where decoding can begin, {readable_bytes(size)} on disk (seek points)")
        if split.num_bad:
            print(f"{name}: {split.num_bad:,} bad samples left out, listed in {out / BAD_SAMPLES_NAME}")
        _tell_of_empty(name, split, manifest.classes)
    statistics = manifest.statistics
    mean, std = (", ".join(f"{value:.2f}" for value in of) for of in (statistics.mean, statistics.std))
    print(f"{len(manifest.classes):,} classes; mean {mean}, std {std} (red, green, blue of '{statistics.split}')")
    formats = {kind for split in manifest.splits.values() for kind in split.formats}
    if holds_jpegs(formats, manifest.settings["write_mode"]):
        print(f"{packed.num_original:,} images kept their bytes, {num_samples - packed.num_original:,} did not")
    if not packed.was_there:
        print(f"{seconds:,.1f} s, {num_samples / seconds:,.0f} img/s")
    _tell_what_to_do(shlex.quote(str(out)), manifest.splits)


def _tell_what_to_do(out: str, splits: Collection[str]) -> None:
    """The command that the set is for. A training needs something to evaluate on, an evaluation nothing else."""
    train = f"python engine/train.py --data.path {out}"
    if "train" not in splits:
        print(f"evaluate on it: python tools/evaluate.py RUN --data.path {out} (RUN: the folder of a run)")
    elif "val" in splits:
        print(f"train with it: {train}")
    else:
        print(f"to train with it there is no 'val' split: pack it with --val-fraction 0.1 --overwrite, then {train}")
        print(f"or train with all of it, evaluated on the very same images: {train} --data.eval-split train")


def _tell_of_empty(name: str, split: PackedSplit, classes: Sequence[str]) -> None:
    """Warn of classes that there is nothing of to train with."""
    empty = [repr(classes[label]) for label, num in enumerate(split.samples_per_class) if not num]
    if name == "train" and empty:
        more = f" and {len(empty) - _MOST_NAMES:,} more" if len(empty) > _MOST_NAMES else ""
        print(f"warning: '{name}' has no sample of {len(empty):,} classes: {', '.join(empty[:_MOST_NAMES])}{more}")


def _verify(chosen: argparse.Namespace) -> None:
    from .inspection.verify import verify

    found = verify(chosen.folder, chosen.workers, shown_phase)
    for remark in found.remarks:
        print(remark)
    for finding in found.findings:
        print(f"wrong: {finding}")
    if not found.looked_inside:
        print(f"{chosen.folder}: for that, no image of it was looked at")
    if found.findings:
        raise FeedrateError(
            f"{chosen.folder} is not what its manifest says ({len(found.findings)} wrong, as above):"
            " mend it or pack it again"
        )
    size = readable_bytes(found.num_bytes)
    print(f"{chosen.folder}: {found.num_samples:,} samples, {size} read: all as the manifest says")


def _show(chosen: argparse.Namespace) -> None:
    from .inspection.show import show  # it imports matplotlib, which takes a while

    sheet = show(chosen.folder, Console(), chosen.sheet, chosen.num_samples, chosen.seed)
    if sheet:
        print(f"samples, with the crops of a training at 224 px: {sheet}")
