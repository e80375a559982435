"""Pack a data set once, so that loaders can read it fast.

python tools/convert.py imagenet|cifar10|cifar100|folder|synthetic [--source DIR] [--out DIR] [--option value …]

DIR/train/<class>/… and DIR/val/<class>/… (or CIFAR's python archive) become OUT/train.beton, OUT/val.beton and
OUT/manifest.json. Every image is decoded once, so a broken one is found here and not in the middle of training.
"""

import sys
from pathlib import Path

if __name__ == "__main__" and not sys.flags.safe_path:
    # Python put tools/ first, where `profile.py` hides the standard library's
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import difflib
import signal
import time
from collections.abc import Sequence
from typing import Any, NoReturn

from converters.encode import Encoding
from converters.packing import Packed, check_folder, pack
from converters.photos import check_recipe, write_photos
from converters.progress import shown_phase
from converters.sources import check_apart, open_source
from loaders.cpus import available_cpus
from loaders.errors import FeedrateError
from loaders.records import open_records

DATASETS = {  # name: default of --source, of --out (None: beside the source), of --write-mode, help
    "imagenet": ("data/imagenet", None, "jpg", "ImageNet as a folder of images"),
    "cifar10": ("data/cifar10", None, "raw", "CIFAR-10's python archive, unpacked, or a folder of images"),
    "cifar100": ("data/cifar100", None, "raw", "CIFAR-100's python archive, unpacked, or a folder of images"),
    "folder": (None, None, "jpg", "any folder of images: train/<class>/… and val/<class>/…, or just <class>/…"),
    "synthetic": (None, "data/synthetic", "jpg", "photos of ten things, generated here: no data needed"),
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise FeedrateError(f"{message.removeprefix('argument ')} (see --help)")


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status: 0 done, 2 bad input, 128 + n ended by signal n."""
    ended_by = _catch_signals()
    try:
        _run(parse(arguments))
    except FeedrateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: no packed file was left behind; the same command starts again", file=sys.stderr)
        return 128 + ended_by[0]
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line, with defaults filled in. Raises FeedrateError naming what was probably meant."""
    parser = _Parser(prog="convert.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="dataset", metavar="|".join(DATASETS), required=True)
    options = {name: _add_options(commands, name) for name in DATASETS}
    first = next((word for word in arguments if not word.startswith("-")), None)
    if first is not None and first not in DATASETS:
        raise FeedrateError(f"no data set '{first}': {_did_you_mean(first, DATASETS)}known are {', '.join(DATASETS)}")
    chosen, others = parser.parse_known_args(arguments)
    if others:
        known = options[chosen.dataset]
        name = others[0].split("=")[0]
        raise FeedrateError(f"{chosen.dataset} has no option '{name}': {_did_you_mean(name, known)}see --help")
    if chosen.source is None and chosen.dataset == "folder":
        raise FeedrateError("folder needs --source: give the folder that holds train/<class>/ and val/<class>/")
    if chosen.out is None:
        beside = chosen.source if chosen.source.name not in ("", "..") else chosen.source.resolve()
        chosen.out = beside.parent / f"{beside.name}-packed"
    if chosen.source is None:
        chosen.source = chosen.out / "images"
    return chosen


def _add_options(commands: Any, name: str) -> list[str]:
    """Add the command that packs this data set; return its options."""
    source, out, write_mode, text = DATASETS[name]
    command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    shown = source or ("required" if name == "folder" else "OUT/images")
    command.add_argument("--source", type=Path, default=source and Path(source), help=f"where it is ({shown})")
    command.add_argument(
        "--out", type=Path, default=out and Path(out), help=f"what to write ({out or 'SOURCE-packed'})"
    )
    command.add_argument("--write-mode", type=_mode, default=write_mode, help=f"jpg or raw pixels ({write_mode})")
    command.add_argument("--max-side", type=_whole, metavar="PX", help="shrink images whose longer side exceeds this")
    command.add_argument("--quality", type=_whole, default=90, help="of JPEGs that must be encoded (90)")
    command.add_argument("--workers", type=_whole, default=available_cpus(), help="processes (as many as processors)")
    command.add_argument("--overwrite", action="store_true", help="replace a packed set that is already there")
    if name == "synthetic":
        command.add_argument("--num-train", type=_whole, default=2000, help="photos to train with (2000)")
        command.add_argument("--num-val", type=_whole, default=500, help="photos to evaluate with (500)")
        command.add_argument("--classes", type=_whole, default=10, help="2 … 10 (10)")
        command.add_argument("--seed", type=_whole, default=0, help="another seed gives other photos (0)")
    return [word for action in command._actions for word in action.option_strings]


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of 0 or more")
    return int(text)


def _mode(text: str) -> str:
    if text not in ("jpg", "raw"):
        raise argparse.ArgumentTypeError(
            f"'{text}' is unknown: {_did_you_mean(text, ['jpg', 'raw'])}known are jpg, raw"
        )
    return text


def _did_you_mean(word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]}? " if near else ""


def _catch_signals() -> list[int]:
    """Let the first signal unwind the program and no second one disturb that; returns where its number goes."""
    number = [signal.SIGINT.value]
    caught = [
        item for item in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(item) != signal.SIG_IGN
    ]

    def end(signal_number: int, frame: Any) -> NoReturn:
        number[0] = signal_number
        for item in caught:
            signal.signal(item, signal.SIG_IGN)
        raise KeyboardInterrupt

    for item in caught:
        signal.signal(item, end)
    return number


def _run(chosen: argparse.Namespace) -> None:
    started_s = time.monotonic()
    encoding = Encoding(chosen.write_mode, chosen.max_side, chosen.quality)
    if chosen.workers < 1:
        raise FeedrateError(f"--workers {chosen.workers} cannot work: give 1 or more")
    check_folder(chosen.out, chosen.overwrite)
    if chosen.dataset == "synthetic":
        _generate(chosen)
    else:
        check_apart(chosen.source, chosen.out)
    splits = open_source(chosen.dataset, chosen.source, shown_phase)
    if len(splits) == 1:
        print(f"{chosen.source} has only a '{next(iter(splits))}' split: packing that alone")
    source = {"dataset": chosen.dataset, "path": str(chosen.source.resolve())}
    packed = pack(splits, chosen.out, encoding, chosen.workers, chosen.overwrite, source, shown_phase)
    for split in splits:  # what was written must open
        open_records(chosen.out, split).close()
    _report(chosen.out, packed, time.monotonic() - started_s)


def _generate(chosen: argparse.Namespace) -> None:
    num_photos = {"train": chosen.num_train, "val": chosen.num_val}
    check_recipe(num_photos, chosen.seed, chosen.classes)
    num_written, num_kept = write_photos(
        chosen.source, num_photos, chosen.seed, chosen.classes, chosen.workers, shown_phase
    )
    print(f"{chosen.source}: {num_written:,} photos generated, {num_kept:,} were there already")


def _report(out: Path, packed: Packed, seconds: float) -> None:
    manifest = packed.manifest
    num_samples = 0
    for split in manifest.splits.values():
        num_samples += split.num_samples
        print(f"{out / split.file}: {split.num_samples:,} samples, {split.num_bytes / 1e6:,.1f} MB")
    mean, std = (", ".join(f"{value:.2f}" for value in of) for of in (manifest.channel_mean, manifest.channel_std))
    print(
        f"{len(manifest.classes):,} classes; mean {mean}, std {std} (red, green, blue of '{manifest.statistics_split}')"
    )
    if manifest.settings["write_mode"] == "jpg":
        print(
            f"{packed.num_original:,} images kept their bytes, {num_samples - packed.num_original:,} were encoded anew"
        )
    print(f"{seconds:,.1f} s, {num_samples / seconds:,.0f} img/s")
    print(f"train with it: python engine/train.py --data.path {out}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
