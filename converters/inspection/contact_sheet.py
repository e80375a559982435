"""A picture of some samples: each whole, with the rectangle that training cuts, and beside it what training gets."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from loaders.atomic import atomic_file
from loaders.crops import RandomResizedCrop
from loaders.errors import FeedrateError
from loaders.pixels import Decoder, Renderer, load_rgb
from loaders.plan import Plan, PlanRows, Shuffled, View
from loaders.records import Records

from .facts import printable

TRAINING_VIEW = View(RandomResizedCrop(), size_px=224, flip_probability=0.5)  # the engine's defaults
MOST_SAMPLES = 240  # a sheet that can still be looked at

_SIDE = 224  # of the crop, and of the square that the whole picture is fitted into
_PER_ROW = 4
_BETWEEN, _GAP, _MARGIN, _HEAD, _CAPTION = 8, 24, 24, 56, 44  # pixels
_CELL = 2 * _SIDE + _BETWEEN + _GAP, _SIDE + _CAPTION + _GAP
_PAPER, _INK, _GREY, _SHADE, _MARK = "#ffffff", "#1a1a1a", "#6b6b6b", "#ececec", "#ff5a00"


def first_rows(records: Records, num_samples: int, seed: int) -> PlanRows:
    """What a training with this seed gets first: ids, rectangles and flips of `num_samples`, or all if there are fewer.

    Raises FeedrateError for a number that makes no sheet.
    """
    if not 1 <= num_samples <= MOST_SAMPLES:
        raise FeedrateError(f"a sheet of {num_samples} samples cannot be looked at: give 1 … {MOST_SAMPLES}, say 24")
    num_samples = min(num_samples, len(records))
    plan = Plan(records.widths, records.heights, Shuffled(num_samples), TRAINING_VIEW, seed)
    return plan.span(0, 0, num_samples)


def crop_corner(number: int) -> tuple[int, int]:
    """Left and top of the crop of the sheet's picture `number`, in its pixels: `TRAINING_VIEW`'s size, unscaled."""
    row, column = divmod(number, _PER_ROW)
    return _MARGIN + column * _CELL[0] + _SIDE + _BETWEEN, _HEAD + row * _CELL[1]


def draw_sheet(records: Records, class_names: Sequence[str], rows: PlanRows, title: str) -> Image.Image:
    """The sheet, RGB, less than 2000 pixels wide. Raises LoaderError for a sample that cannot be decoded."""
    num_columns, num_rows = min(_PER_ROW, len(rows)), -(-len(rows) // _PER_ROW)
    size = 2 * _MARGIN - _GAP + num_columns * _CELL[0], _HEAD + num_rows * _CELL[1]
    sheet = Image.new("RGB", size, _PAPER)
    pen = ImageDraw.Draw(sheet)
    title_font, name_font, small_font = _font(20), _font(15), _font(12)
    pen.text((_MARGIN, 16), _fitted(title, title_font, size[0] - 2 * _MARGIN), _INK, title_font)
    decode, render = Decoder(), Renderer(rows.size_px, rows.fill, "area")
    crop = np.empty((rows.size_px, rows.size_px, 3), np.uint8)
    for number, (index, rect, flip) in enumerate(
        zip(rows.ids.tolist(), rows.rects.tolist(), rows.flips.tolist(), strict=True)
    ):
        pixels = load_rgb(records, index, decode)
        render(pixels, rect, flip, crop)
        left, top = crop_corner(number)
        _paste_whole(sheet, pixels, rect, (left - _BETWEEN - _SIDE, top))
        pen.rectangle((left - 2, top - 2, left + _SIDE + 1, top + _SIDE + 1), outline=_MARK, width=2)
        sheet.paste(Image.fromarray(crop), (left, top))
        label, (height, width) = int(records.labels[index]), pixels.shape[:2]
        flipped = ", mirrored" if flip else ""
        details = f"sample {index} · class {label} · {width}×{height} px · crop {rect[2]}×{rect[3]}{flipped}"
        at, widest = (left - _BETWEEN - _SIDE, top + _SIDE + 6), 2 * _SIDE + _BETWEEN
        pen.text(at, _fitted(class_names[label], name_font, widest), _INK, name_font)
        pen.text((at[0], at[1] + 20), _fitted(details, small_font, widest), _GREY, small_font)
    return sheet


def write_sheet(sheet: Image.Image, path: Path) -> None:
    """Write it as PNG, whole or not at all. Raises FeedrateError where that is not possible."""
    encoded = io.BytesIO()
    sheet.save(encoded, "PNG", compress_level=6)
    try:
        with atomic_file(path) as file:
            file.write(encoded.getvalue())
    except OSError as error:
        raise FeedrateError(f"{path} cannot be written ({error.strerror}): give another --sheet") from error


def _paste_whole(sheet: Image.Image, pixels: NDArray[np.uint8], rect: Sequence[int], corner: tuple[int, int]) -> None:
    """The whole picture in the middle of its square, what training leaves away a little darker, the rectangle drawn."""
    height, width = pixels.shape[:2]
    scale = _SIDE / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    whole = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    dimmed = Image.blend(whole, Image.new("RGB", size), 0.45)
    left, top = (round(side * scale) for side in rect[:2])
    right = min(size[0], max(left + 1, round((rect[0] + rect[2]) * scale)))
    bottom = min(size[1], max(top + 1, round((rect[1] + rect[3]) * scale)))
    dimmed.paste(whole.crop((left, top, right, bottom)), (left, top))
    ImageDraw.Draw(dimmed).rectangle((left, top, right - 1, bottom - 1), outline=_MARK, width=2)
    ImageDraw.Draw(sheet).rectangle((*corner, corner[0] + _SIDE - 1, corner[1] + _SIDE - 1), fill=_SHADE)
    sheet.paste(dimmed, (corner[0] + (_SIDE - size[0]) // 2, corner[1] + (_SIDE - size[1]) // 2))


def _font(size_px: int) -> ImageFont.FreeTypeFont:
    """The font that matplotlib brings along (Latin, Greek, Cyrillic …), so that a sheet is the same everywhere."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(path, size_px, layout_engine=ImageFont.Layout.BASIC)


def _fitted(text: str, font: ImageFont.FreeTypeFont, width_px: int) -> str:
    """What of the text fits, on one line."""
    text = printable(text)
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(text + "…") > width_px:
        text = text[:-1]
    return text.rstrip() + "…"
