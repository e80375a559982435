"""The options of `tools/convert.py`, and what they mean to the packer."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from loaders.cpus import available_cpus
from loaders.errors import FeedrateError, did_you_mean
from loaders.home_folder import given_path

from .encode import Encoding, holds_jpegs
from .out_folder import settings_there
from .packing import FORMATS, PackSettings
from .presets import PRESETS
from .restarts import require_kernel, why_no_kernel
from .split_pass import Rules

DATASETS = {  # name: default of --source, of --out (None: beside the source), of --write-mode, help
    "imagenet": ("data/imagenet", None, "jpg", "ImageNet: class folders, Kaggle's tree, the official archives, shards"),
    "cifar10": ("data/cifar10", None, "raw", "CIFAR-10: the python or the binary archive, or a folder of images"),
    "cifar100": ("data/cifar100", None, "raw", "CIFAR-100: the python or the binary archive, or a folder of images"),
    "folder": (
        None,
        None,
        "jpg",
        "any folder of images: train/<class>/… and val/<class>/…, or just <class>/…; or shards",
    ),
    "synthetic": (None, "data/synthetic", "jpg", "photos of ten things, generated here: no data needed"),
}
NUM_CLASSES = {"imagenet": 1000, "cifar10": 10, "cifar100": 100}
READERS = {
    "verify": "read a packed folder again and compare everything with its manifest",
    "show": "tell what a packed folder holds, and draw a sheet of its samples",
}
_MOST_BAD = 100


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise FeedrateError(f"{message.removeprefix('argument ')} (see --help)")


def parse(arguments: Sequence[str], description: str) -> argparse.Namespace:
    """The command line, with defaults filled in. Raises FeedrateError naming what was probably meant."""
    parser = _Parser(prog="convert.py", description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*DATASETS, *READERS]
    commands = parser.add_subparsers(dest="command", metavar="|".join(names), required=True)
    options = {name: _add_packing(commands, name) for name in DATASETS}
    options |= {name: _add_reading(commands, name) for name in READERS}
    first = next(iter(arguments), None)
    if first is not None and first.startswith("-") and first not in ("-h", "--help"):
        known = ", ".join(names)
        raise FeedrateError(f"{first} stands where the command belongs: first one of {known}, then its options")
    if first is not None and not first.startswith("-") and first not in names:
        raise FeedrateError(f"no command '{first}': {did_you_mean(first, names)}known are {', '.join(names)}")
    chosen, others = parser.parse_known_args(arguments)
    if others:
        name = others[0].split("=")[0]
        near = did_you_mean(name, options[chosen.command])
        raise FeedrateError(f"{chosen.command} has no option '{name}': {near}see --help")
    if chosen.command in DATASETS:
        chosen.to = ",".join(chosen.to or ["beton"])
        _fill_in_paths(chosen)
    return chosen


def settings_of(chosen: argparse.Namespace) -> tuple[PackSettings, str]:
    """What to write, from the options, and what is to be said of it, if anything.

    Raises FeedrateError on options that contradict each other.
    """
    if chosen.max_side is not None and chosen.short_side is not None:
        raise FeedrateError("--max-side and --short-side exclude each other: give one")
    encoding = PRESETS[chosen.preset].encoding if chosen.preset else Encoding()
    if chosen.max_side is not None or chosen.short_side is not None:
        if chosen.preset:
            raise FeedrateError(f"--preset {chosen.preset} sets the size itself: leave out --max-side and --short-side")
        limited = "longest" if chosen.short_side is None else "shortest"
        limit_px = chosen.max_side if chosen.short_side is None else chosen.short_side
        encoding = replace(encoding, limit_px=limit_px, limited=limited)
    write_mode = _write_mode(chosen)
    if chosen.jpeg_share is not None and write_mode != "mix":
        raise FeedrateError(f"--jpeg-share goes with --write-mode mix, not {write_mode}")
    seek_points, remark = _seek_points(chosen, write_mode)
    encoding = replace(
        encoding,
        write_mode=write_mode,
        quality=chosen.quality,
        jpeg_share=0.5 if chosen.jpeg_share is None else chosen.jpeg_share,
        apply_exif=chosen.apply_exif,
        check=chosen.check,
        restarts=chosen.restart_markers,
        seek_points=seek_points,
    )
    if encoding.restarts:
        require_kernel("--restart-markers")
    seed = None if chosen.order == "source" else chosen.seed
    return PackSettings(encoding, tuple(chosen.to.split(",")), seed, chosen.shard_mb << 20), remark


def _write_mode(chosen: argparse.Namespace) -> str:
    """The one given, or the data set's own. Raises FeedrateError where it would change nothing."""
    if chosen.write_mode is not None and "beton" not in chosen.to.split(","):
        more = " (raw there is pixels in any case)" if "raw" in chosen.to.split(",") else ""
        raise FeedrateError(
            f"--write-mode {chosen.write_mode} is of .beton, which --to {chosen.to}{more} does not write: leave it out,"
            f" or give --to beton,{chosen.to}"
        )
    return str(chosen.write_mode or DATASETS[chosen.command][2])


def _seek_points(chosen: argparse.Namespace, write_mode: str) -> tuple[bool, str]:
    """Whether to note them, and why not where that is to be said: by itself where JPEGs are written, and decoded in any
    case, and have no restart markers.

    What was packed to `--out` before, in whole or in part, decides for the same command: it may have been given on
    another machine.
    """
    has_jpegs = holds_jpegs(chosen.to.split(","), write_mode)
    if chosen.seek_points is None:
        wanted = has_jpegs and chosen.check == "full" and not chosen.restart_markers
        there = None if chosen.overwrite or not wanted else settings_there(chosen.out)
        if there is not None:
            if there.get("seek_points"):
                require_kernel(f"{chosen.out}, which has seek points,")
            return bool(there.get("seek_points")), ""
        if wanted and (reason := why_no_kernel()):
            return False, f"no seek points, with which crops would decode faster: {reason}"
        return wanted, ""
    if chosen.seek_points:
        require_kernel("--seek-points")
        if chosen.restart_markers:
            raise FeedrateError("--seek-points and --restart-markers exclude each other: give one")
        if not has_jpegs:
            raise FeedrateError("--seek-points are of JPEGs, and none are written: leave it out")
    return bool(chosen.seek_points), ""


def rules_of(chosen: argparse.Namespace) -> Rules:
    """What the pass may do, from the options."""
    return Rules(chosen.on_bad == "skip", chosen.max_bad, chosen.overwrite)


def _fill_in_paths(chosen: argparse.Namespace) -> None:
    if chosen.source is None and chosen.command == "folder":
        raise FeedrateError("folder needs --source: give the folder that holds train/<class>/ and val/<class>/")
    if chosen.out is None:
        beside = chosen.source if chosen.source.name not in ("", "..") else chosen.source.resolve()
        chosen.out = beside.parent / f"{beside.name}-packed"
    if chosen.source is None:
        chosen.source = chosen.out.parent / f"{chosen.out.name}-images"


def _add_packing(commands: Any, name: str) -> list[str]:
    """Add the command that packs this data set; return its options."""
    source, out, write_mode, text = DATASETS[name]
    command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    add = command.add_argument
    shown = source or ("required" if name == "folder" else "OUT-images")
    add("--source", type=given_path, default=source and Path(source), help=f"where it is ({shown})")
    add("--out", type=given_path, default=out and Path(out), help=f"what to write ({out or 'SOURCE-packed'})")
    add("--to", type=_formats, action="append", metavar="F,…", help=f"formats to write: {', '.join(FORMATS)} (beton)")
    presets = "; ".join(f"{key}: {preset.purpose}" for key, preset in PRESETS.items())
    add("--preset", type=_one_of(*PRESETS), help=f"sizes by purpose. {presets} (full)")
    add("--max-side", type=_whole, metavar="PX", help="shrink images whose longer side exceeds this")
    add("--short-side", type=_whole, metavar="PX", help="shrink images whose shorter side exceeds this")
    add("--write-mode", type=_one_of("jpg", "raw", "mix"), help=f"in .beton ({write_mode})")
    add("--jpeg-share", type=_share, help="of the images that --write-mode mix writes as JPEG (0.5)")
    add("--quality", type=_whole, default=90, help="of JPEGs that must be encoded (90)")
    add("--restart-markers", action="store_true", help="code JPEGs anew without loss, so that crops decode faster")
    add(
        "--seek-points",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="note beside JPEGs where decoding can begin, so that crops decode faster (yes, with a C compiler)",
    )
    add("--check", type=_one_of("full", "structure"), default="full", help="of kept JPEGs: decode, or only walk (full)")
    add("--apply-exif", action="store_true", help="turn images as EXIF says, as image folders' readers do not")
    add("--order", type=_one_of("shuffled", "source"), default="shuffled", help="in which samples lie (shuffled)")
    add("--seed", type=_whole, default=0, help="of the order, of a split, of --write-mode mix, of generated photos (0)")
    add("--shard-mb", type=_whole, default=256, help="MiB a shard has at most (256)")
    add("--on-bad", type=_one_of("error", "skip"), default="error", help="samples that cannot be used (error)")
    add("--max-bad", type=_whole, default=_MOST_BAD, help=f"how many may be skipped ({_MOST_BAD})")
    add("--workers", type=_one_or_more, default=available_cpus(), help="processes (as many as processors)")
    add("--overwrite", action="store_true", help="replace what is packed there already")
    if name == "synthetic":
        add("--num-train", type=_whole, default=2000, help="photos to train with (2000)")
        add("--num-val", type=_whole, default=500, help="photos to evaluate with (500)")
        add("--classes", type=_whole, default=10, help="2 … 10 (10)")
    else:
        add("--val-fraction", type=_share, help="make a 'val' split of this part of a source that has none")
    if name in ("cifar10", "cifar100"):
        add("--download", action="store_true", help="fetch the python archive to --source if it is not there")
    return [word for action in command._actions for word in action.option_strings]


def _add_reading(commands: Any, name: str) -> list[str]:
    """Add the command that reads a packed folder; return its options."""
    command = commands.add_parser(name, help=READERS[name], description=READERS[name], allow_abbrev=False)
    command.add_argument("folder", type=given_path, help="what an earlier --out named")
    if name == "verify":
        command.add_argument(
            "--workers", type=_one_or_more, default=available_cpus(), help="processes (as many as processors)"
        )
    else:
        command.add_argument("--sheet", type=given_path, help="the PNG to draw (FOLDER-samples.png)")
        command.add_argument("--num-samples", type=_whole, default=24, help="on the sheet (24)")
        command.add_argument("--seed", type=_whole, default=0, help="of the samples chosen and of their crops (0)")
    return [word for action in command._actions for word in action.option_strings]


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 0 or more")
    return int(text)


def _one_or_more(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 1 or more")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not between 0 and 1")
    return value


def _one_of(*known: str) -> Any:
    def check(text: str) -> str:
        if text not in known:
            near = did_you_mean(text, known)
            raise argparse.ArgumentTypeError(f"'{text}' is unknown: {near}known are {', '.join(known)}")
        return text

    return check


def _formats(text: str) -> str:
    for name in text.split(","):
        _one_of(*FORMATS)(name)
    return text
