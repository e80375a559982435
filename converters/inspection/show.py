"""What a packed folder holds, told on a terminal and drawn on a sheet."""

from collections.abc import Iterator
from pathlib import Path

from rich.columns import Columns
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from loaders.cpus import available_cpus
from loaders.errors import FeedrateError
from loaders.manifest import Manifest, read_manifest
from loaders.packed_folder import PREFERRED, open_packed

from ..byte_counts import disk_bytes, readable_bytes
from ..out_folder import require_packed
from .contact_sheet import TRAINING_VIEW, draw_sheet, first_rows, write_sheet
from .facts import facts, printable
from .summary import (
    DECODE_S_PER_PIXEL,
    DECODED_BYTES_PER_S,
    FormatSummary,
    HistogramRows,
    SplitSummary,
    summarise,
)

# What `loaders.choose` knows; a test holds the two together, since asking it would import torch: seconds, for a table.
LOADERS = {
    "torchvision": (("exact", "bicubic"), "processes, Pillow: the reference"),
    "turbo": (("area", "exact", "bicubic", "device"), "threads, libjpeg-turbo: fast without a GPU"),
    "ffcv": (("area",), "FFCV's compiled pipeline"),
    "dali": (("exact", "bicubic"), "decodes on the GPU, where there is one"),
    "resident": (("exact", "area", "bicubic", "device"), "the whole split on the device"),
    "synthetic": (("area", "exact", "bicubic", "device"), "makes its pixels up: the ceiling"),
}
READS_ONLY = {"ffcv": ("beton",)}  # what a loader can read, where that is not everything

_WIDE = 110  # columns from which on the histograms stand side by side
_BAR_WIDTH = 24
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def show(folder: Path, console: Console, sheet: Path | None, num_samples: int = 24, seed: int = 0) -> Path | None:
    """Print a summary of a packed folder and write a contact sheet; returns the sheet's path.

    sheet        a PNG (None: `<folder>-samples.png` beside the folder, which itself holds nothing but what was packed)
    num_samples  on the sheet, the first that a training with `seed` gets; 0: no sheet

    Raises FeedrateError for a folder that is not whole, and for a sheet that cannot be drawn or written.
    """
    require_packed(folder)
    manifest = read_manifest(folder)
    place = sheet_path(folder) if sheet is None else sheet
    if place.resolve().parent == folder.resolve():
        raise FeedrateError(f"{place} lies in the packed folder: give a --sheet outside of it")
    split = "train" if "train" in manifest.splits else next(iter(manifest.splits))
    records = open_packed(folder, split)
    rows = first_rows(records, num_samples, seed) if num_samples else None
    for part in _parts(folder, manifest, summarise(folder, manifest), console.width):
        console.print(part)
        console.print()
    if rows is None:
        return None
    title = (
        f"{folder.resolve().name}: the first {len(rows)} samples of '{split}' in epoch 0 of seed {seed}, whole and as"
        f" training at {TRAINING_VIEW.size_at(0)} px gets them"
    )
    write_sheet(draw_sheet(records, manifest.class_names, rows, title), place)
    records.close()
    return place


def sheet_path(folder: Path) -> Path:
    """Where the sheet goes unless told otherwise."""
    folder = folder.resolve()
    return folder.with_name(f"{folder.name}-samples.png")


def _parts(folder: Path, manifest: Manifest, splits: list[SplitSummary], width: int) -> Iterator[RenderableType]:
    num_bytes = sum(form.disk_bytes for split in splits for form in split.formats)
    num_bytes += disk_bytes(folder / points.name for one in manifest.splits.values() if (points := one.seek_points))
    counts = ", ".join(f"{split.name} {split.num_samples:,}" for split in splits)
    yield Text.assemble(
        (printable(str(folder)), "bold"),
        f"\n{len(manifest.classes):,} classes · samples: {counts} · {readable_bytes(num_bytes)} on disk",
    )
    yield _sizes(splits)
    yield _facts(folder, manifest)
    for split in splits:
        yield _histograms(split, width)
    yield _balance(manifest, splits)
    yield _loaders(splits)
    yield _decoding(splits)


def _table(title: str, *columns: str, left: int = 1) -> Table:
    """A table without frame; its columns are numbers, all but the first `left`."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1), header_style="dim")
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number < left else "right", no_wrap=number >= left)
    return table


def _sizes(splits: list[SplitSummary]) -> Table:
    table = _table("Sizes", "split", "format", "files", "on disk", "a sample", "median", "p99", "largest", left=2)
    for split, form in _formats(splits):
        sizes = (form.disk_bytes, form.mean_bytes, form.median_bytes, form.p99_bytes, form.largest_bytes)
        table.add_row(split.name, _kind(form, split), f"{form.num_files:,}", *(readable_bytes(size) for size in sizes))
    return table


def _facts(folder: Path, manifest: Manifest) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    for name, words in facts(folder, manifest):
        table.add_row(f" {name}", Text(printable(words)))
    return table


def _stacked(*parts: RenderableType) -> Table:
    grid = Table.grid()
    for part in parts:
        grid.add_row(part)
    return grid


def _histograms(split: SplitSummary, width: int) -> RenderableType:
    side, num = split.common_side
    share = f"{num / split.num_samples:.0%}"
    sides = _histogram(f"Longest side, {split.name} ({share} have {side} px)", split.longest_sides)
    ratios = _histogram(f"Width : height, {split.name} (the nearest)", split.ratios)
    if width >= _WIDE:
        return Columns([sides, ratios], padding=(0, 4))
    return _stacked(sides, "", ratios)


def _histogram(title: str, rows: HistogramRows) -> Table:
    table = _table(title, "", "", "", "")
    table.show_header = False
    table.columns[0].justify, table.columns[1].justify = "right", "left"
    table.columns[0].no_wrap = True
    total, most = sum(num for _, num in rows), max(num for _, num in rows)
    for label, num in rows:
        table.add_row(label, Text(bar(num / most, _BAR_WIDTH), "cyan"), f"{num:,}", Text(f"{num / total:.1%}", "dim"))
    return table


def bar(share: float, width: int) -> str:
    """A bar of `share` of `width` letters, in eighths; anything above nothing shows."""
    eighths = max(round(share * width * 8), 1 if share > 0 else 0)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()).ljust(width)


def _balance(manifest: Manifest, splits: list[SplitSummary]) -> Table:
    table = _table("Samples a class", "split", "median", "fewest", "", "most", "", "below half the median")
    for column in (3, 5):
        table.columns[column].justify, table.columns[column].overflow = "left", "ellipsis"
        table.columns[column].max_width = 24
    for split in splits:
        balance = split.balance
        (fewest, fewest_label), (most, most_label) = balance.fewest, balance.most
        names = [printable(manifest.class_names[label]) for label in (fewest_label, most_label)]
        below = f"{balance.num_below_half:,} classes" + (f", {balance.num_empty:,} empty" if balance.num_empty else "")
        ends = f"{fewest:,}", Text(names[0], "dim"), f"{most:,}", Text(names[1], "dim")
        table.add_row(split.name, f"{balance.median:,g}", *ends, below)
    return table


def _loaders(splits: list[SplitSummary]) -> RenderableType:
    forms = {name: [pair for pair in _formats(splits) if pair[1].name == name] for name in PREFERRED}
    stored = {name: _reading(forms[name]) for name in PREFERRED if forms[name]}
    table = _table("Loaders", "loader", *stored, "resizing", "how", left=9)
    for name, (resizes, how) in LOADERS.items():
        cells = [_cell(name, form, reading) for form, reading in stored.items()]
        table.add_row(name, *cells, ", ".join(resizes), how)
    first = next(iter(stored))
    return _stacked(table, Text(f" training opens {first}, the first of {', '.join(PREFERRED)} that is there", "dim"))


def _cell(loader: str, form: str, reading: str) -> str:
    if form not in READS_ONLY.get(loader, (form,)):
        return "–"
    return "labels" if loader == "synthetic" else reading


def _reading(forms: list[tuple[SplitSummary, FormatSummary]]) -> str:
    """What a loader does with the samples of one format."""
    num_raw = sum(form.num_raw for _, form in forms)
    if num_raw == 0:
        return "decodes"
    return "takes pixels" if num_raw == sum(split.num_samples for split, _ in forms) else "decodes some"


def _decoding(splits: list[SplitSummary]) -> RenderableType:
    num_cpus = available_cpus()
    table = _table("Decoding, estimated", "split", "format", "a sample", "one core", f"{num_cpus} cores", left=2)
    for split, form in _formats(splits):
        if form.num_raw == split.num_samples:
            table.add_row(split.name, _kind(form, split), "nothing to decode", "", "")
        else:
            rates = (f"{num / form.decode_s:,.0f} img/s" for num in (1, num_cpus))
            table.add_row(split.name, _kind(form, split), f"{form.decode_s * 1e3:.2f} ms", *rates)
    model = f"JPEG bytes / {DECODED_BYTES_PER_S / 1e6:g} MB/s + {DECODE_S_PER_PIXEL * 1e9:g} ns a pixel"
    source = f" a model, not a measurement: {model} on one core (docs/LOG.md); resizing comes on top"
    return _stacked(table, Text(source, "dim"))


def _formats(splits: list[SplitSummary]) -> Iterator[tuple[SplitSummary, FormatSummary]]:
    return ((split, form) for split in splits for form in split.formats)


def _kind(form: FormatSummary, split: SplitSummary) -> str:
    """The format, and what its samples are where that is not plain."""
    if form.name != "beton":
        return form.name
    return {0: "beton, JPEG", split.num_samples: "beton, pixels"}.get(form.num_raw, "beton, mixed")
