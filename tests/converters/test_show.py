"""What `show` tells and draws, against numbers and pictures made another way."""

import dataclasses
import hashlib
import io
import json

import cv2
import numpy as np
import pytest
import simplejpeg
from listed import listed
from PIL import Image
from rich.console import Console

from converters.byte_counts import readable_bytes
from converters.encode import Encoding
from converters.inspection.contact_sheet import MOST_SAMPLES, crop_corner, draw_sheet, first_rows
from converters.inspection.facts import facts
from converters.inspection.show import LOADERS, bar, sheet_path, show
from converters.inspection.summary import class_balance, decode_seconds, ratio_histogram, side_histogram, summarise
from converters.packing import PackSettings, pack
from loaders import choose
from loaders.counter_random import Draws
from loaders.crops import RandomResizedCrop
from loaders.errors import FeedrateError
from loaders.manifest import read_manifest
from loaders.packed_folder import open_packed
from loaders.plan import Shuffled


@pytest.fixture(scope="module")
def folder(image_folder, tmp_path_factory):
    """Packed in all formats with the bytes that the images came with, in the source's order."""
    out = tmp_path_factory.mktemp("shown") / "pictures"
    source = {"dataset": "folder", "path": "/somewhere/[bold]else[/bold]"}
    pack(listed(image_folder), out, PackSettings(Encoding(), ("beton", "shards", "raw"), seed=None), 0, source=source)
    return out


def told(folder, width, **options):
    written = io.StringIO()
    console = Console(file=written, width=width, color_system=None)
    options = {"sheet": None, "num_samples": 0, **options}
    return show(folder, console, **options), written.getvalue()


def test_the_numbers_are_those_of_the_files(folder, image_folder):
    train, val = summarise(folder, read_manifest(folder))
    assert (train.name, train.num_samples, val.name, val.num_samples) == ("train", 37, "val", 23)
    paths = sorted((image_folder / "train").rglob("*.jpg"))
    num_bytes = np.array([path.stat().st_size for path in paths])
    sizes = [Image.open(path).size for path in paths]
    num_pixels = sum(width * height for width, height in sizes)
    beton, shards, raw = train.formats
    for form in (beton, shards):
        assert form.mean_bytes == pytest.approx(num_bytes.mean())
        assert form.median_bytes == np.median(num_bytes) and form.largest_bytes == num_bytes.max()
        assert form.p99_bytes == pytest.approx(np.quantile(num_bytes, 0.99))
        assert form.num_raw == 0
        assert form.decode_s * 37 == pytest.approx(num_bytes.sum() / 125e6 + num_pixels * 1.1e-9)
    assert raw.mean_bytes == pytest.approx(3 * num_pixels / 37) and raw.num_raw == 37 and raw.decode_s == 0
    beton_file = (folder / "train.beton").stat()
    assert beton.disk_bytes == beton_file.st_blocks * 512 < beton_file.st_size, "its pages have holes"
    files = [(folder / f"train-000000.{kind}").stat() for kind in ("tar", "idx")]
    assert shards.disk_bytes == sum(file.st_blocks * 512 for file in files)
    assert (beton.num_files, shards.num_files, raw.num_files) == (1, 2, 1)
    longest = [max(size) for size in sizes]
    side, num = train.common_side
    assert num == longest.count(side) == max(map(longest.count, longest))
    assert sum(num for _, num in train.longest_sides) == sum(num for _, num in train.ratios) == 37
    assert (train.balance.fewest, train.balance.most, train.balance.median) == ((11, 1), (13, 0), 13)


def test_sides_are_counted_between_the_right_borders():
    sides = np.array([3, 16, 23, 24, 499, 500, 500, 511, 512, 65_535], np.int32)
    rows = dict(side_histogram(sides))
    assert next(iter(rows)) == "1–15 px" and list(rows)[-1] == "49152–65535 px"
    assert (rows["1–15 px"], rows["16–23 px"], rows["24–31 px"]) == (1, 2, 1)
    assert (rows["384–511 px"], rows["512–767 px"], rows["256–383 px"]) == (4, 1, 0)
    assert side_histogram(np.array([500, 500])) == [("384–511 px", 2)]


def test_ratios_are_counted_by_the_nearest_in_the_sense_of_their_quotient():
    rng = np.random.default_rng(0)
    widths, heights = rng.integers(1, 2000, (2, 500)).astype(np.int32)
    usual = {"3:4": 3 / 4, "1:1": 1, "4:3": 4 / 3, "3:2": 3 / 2, "16:9": 16 / 9, "2:1": 2}
    rows = dict(ratio_histogram(widths, heights))
    every = [1 / 3, 1 / 2, 9 / 16, 2 / 3, *usual.values(), 3]
    quotients = [[max(w / h / ratio, ratio / (w / h)) for ratio in every] for w, h in zip(widths, heights, strict=True)]
    nearest = [every[int(np.argmin(row))] for row in quotients]
    for label, ratio in usual.items():
        assert rows[label] == nearest.count(ratio)
    assert rows["1:3 or taller"] == nearest.count(1 / 3) and rows["3:1 or wider"] == nearest.count(3)


def test_the_balance_of_classes():
    balance = class_balance(np.array([10, 4, 0, 12, 10, 5, 30]))
    assert balance.median == 10 and balance.fewest == (0, 2) and balance.most == (30, 6)
    assert balance.num_below_half == 2 and balance.num_empty == 1  # 5 is just half


def test_the_model_of_decoding():
    assert decode_seconds(125_000_000, 0) == pytest.approx(1)
    assert decode_seconds(0, 10**9) == pytest.approx(1.1)


@pytest.mark.parametrize("width", [80, 120])
def test_what_is_printed_fits_the_terminal_and_tells_what_matters(folder, width):
    path, text = told(folder, width)
    assert path is None
    assert max(map(len, text.splitlines())) <= width
    flat = " ".join(text.split())
    for expected in (
        "3 classes · samples: train 37, val 23",
        "folder, /somewhere/[bold]else[/bold]",
        "kept, train 37 JPEGs as they came, to the byte (100.0%)",
        "as they came",
        "the source's own",
        "beton, JPEG",
        "nothing to decode",
        "0 classes",
        "training opens beton",
        "a model, not a measurement",
        readable_bytes((folder / "train.npy").stat().st_blocks * 512),
    ):
        assert expected in flat, expected
    assert f"{read_manifest(folder).statistics.mean[0]:.2f}" in flat


def test_nothing_is_said_of_jpegs_where_there_are_none(image_folder, tmp_path):
    pack(listed(image_folder), tmp_path / "out", PackSettings(Encoding(), ("raw",)), 0)
    text = told(tmp_path / "out", 100)[1]
    assert "JPEGs" not in text and "quality" not in text and "in .beton" not in text
    assert "training opens raw" in text


def test_it_knows_the_loaders_that_there_are():
    assert tuple(LOADERS) == choose.LOADER_NAMES
    for name, (resizes, _) in LOADERS.items():
        known = choose._LOADERS[name]
        if not choose._missing(name):
            loader = getattr(__import__(f"loaders.{known.module}", fromlist=[known.class_name]), known.class_name)
            assert resizes == loader.resize_modes


def test_bad_samples_are_told_with_their_reasons(image_folder, folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).hardlink_to(path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["splits"]["val"]["num_bad"] = 3
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    reasons = ["it is empty", "its format is unknown", "it is empty"]
    lines = [json.dumps({"split": "val", "name": "x", "where": "y", "reason": reason}) for reason in reasons]
    (tmp_path / "bad_samples.jsonl").write_text("\n".join(lines))
    flat = " ".join(told(tmp_path, 120)[1].split())
    assert "bad, val 3 left out: 2 × it is empty; 1 × its format is unknown (all in bad_samples.jsonl)" in flat


def test_what_listing_noted_is_told_in_plain_words(folder):
    noted = {
        "ignored_suffixes": {".db": 1, "": 1200},
        "left_out": ["test/", "old/"],
        "split": {"val_fraction": 0.1, "num_duplicates": 3},
        "num_images_outside_class_folders": 2,
    }
    manifest = dataclasses.replace(read_manifest(folder), source={"notes": {"train": noted}})
    notes = [words for name, words in facts(folder, manifest) if name == "note, train"]
    assert notes == [
        "ignored suffixes: 1 .db, 1,200 without a suffix",
        "left out: test/, old/",
        "split: val fraction 0.1, duplicates 3",
        "images outside class folders: 2",
    ]


def expected_crop(image_folder, records, index, seed):
    """What training at 224 px sees of a sample, from the image's file and the crop's own formula; and if mirrored."""
    path = sorted((image_folder / "train").rglob("*.jpg"))[index]
    pixels = simplejpeg.decode_jpeg(path.read_bytes(), "RGB")
    ids, draws = np.array([index]), Draws(seed, 0)
    height, width = (np.array([side]) for side in pixels.shape[:2])
    left, top, wide, high = RandomResizedCrop().rects(width, height, ids, draws)[0].tolist()
    part = cv2.resize(pixels[top : top + high, left : left + wide], (224, 224), interpolation=cv2.INTER_AREA)
    flipped = int(draws("flip", ids)[0]) >> 32 < 2**31
    return (part[:, ::-1] if flipped else part), flipped


@pytest.mark.parametrize("seed", [0, 7])
def test_the_sheet_shows_the_first_samples_of_the_epoch_with_the_crops_of_the_plan(
    folder, image_folder, tmp_path, seed
):
    path, _ = told(folder, 80, sheet=tmp_path / "sheet.png", num_samples=10, seed=seed)
    sheet = np.asarray(Image.open(path))
    assert sheet.shape[1] <= 2000 and sheet.shape == (56 + 3 * (224 + 44 + 24), 24 + 4 * 480, 3)
    ids = Shuffled(8).ids(37, Draws(seed, 0))[:10]
    records = open_packed(folder, "train")
    some_flipped = []
    for number, index in enumerate(ids.tolist()):
        left, top = crop_corner(number)
        crop, flipped = expected_crop(image_folder, records, index, seed)
        assert np.array_equal(sheet[top : top + 224, left : left + 224], crop)
        some_flipped.append(flipped)
    assert True in some_flipped and False in some_flipped


def test_the_rectangle_on_the_whole_picture_is_the_plan_s(folder):
    records = open_packed(folder, "train")
    rows = first_rows(records, 37, 0)
    sheet = np.asarray(draw_sheet(records, ["a", "b", "c"], rows, "title"))
    for number, (index, rect) in enumerate(zip(rows.ids, rows.rects.tolist(), strict=True)):
        left, top = crop_corner(number)
        whole = sheet[top : top + 224, left - 232 : left - 8]
        marked = np.argwhere((whole == (255, 90, 0)).all(axis=2))
        width, height = int(records.widths[index]), int(records.heights[index])
        scale = 224 / max(width, height)
        start = (224 - round(height * scale)) // 2, (224 - round(width * scale)) // 2
        first = start[0] + rect[1] * scale, start[1] + rect[0] * scale
        last = first[0] + rect[3] * scale - 1, first[1] + rect[2] * scale - 1
        assert np.abs(marked.min(axis=0) - first).max() <= 1
        assert np.abs(marked.max(axis=0) - last).max() <= 1


def test_the_same_folder_and_seed_give_the_same_bytes(folder, tmp_path):
    digests = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        path, _ = told(folder, 80, sheet=tmp_path / f"{name}.png", num_samples=5, seed=seed)
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    "name",
    ["Κάστορας, бобр, bjørn", "猫, いぬ", "حصان", "🦊 fox", "a\udcffb\n\tc\0", "[red]x[/red] [/]", "long " * 100, ""],
)
def test_any_class_name_can_be_told_and_drawn(folder, tmp_path, name):
    for path in folder.iterdir():
        (tmp_path / path.name).hardlink_to(path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["class_names"] = [name] * 3
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    path, text = told(tmp_path, 80, sheet=tmp_path.with_suffix(".png"), num_samples=3)
    assert Image.open(path).size == (24 + 3 * 480, 56 + 292)
    text.encode()
    assert max(map(len, text.splitlines())) <= 80
    if name.startswith("[red]"):
        assert "[red]x[/red]" in text


def test_the_sheet_lies_beside_the_folder_and_never_in_it(folder):
    assert sheet_path(folder) == folder.parent / "pictures-samples.png"
    path, _ = told(folder, 80, num_samples=40)
    assert path == folder.parent / "pictures-samples.png"
    assert Image.open(path).size[1] == 56 + 10 * 292  # 37 samples are all there are
    with pytest.raises(FeedrateError, match="lies in the packed folder"):
        told(folder, 80, sheet=folder / "sheet.png", num_samples=3)
    with pytest.raises(FeedrateError, match=f"1 … {MOST_SAMPLES}"):
        told(folder, 80, num_samples=MOST_SAMPLES + 1)
    with pytest.raises(FeedrateError, match="give another --sheet"):
        told(folder, 80, sheet=folder / "no" / "sheet.png", num_samples=1)


def test_numbers_for_people():
    sizes = (0, 999, 999.7, 12_345, 999_960, 4.5e9, 2.25e15)
    assert [readable_bytes(size) for size in sizes] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "12.3 kB",
        "1.0 MB",
        "4.5 GB",
        "2,250.0 TB",
    ]
    asked = ((20.5e6, 1.26e6), (20.5e6, 40e3), (410, 3.0), (999.96e9, 2e9))
    assert [readable_bytes(*sizes) for sizes in asked] == ["20.5 ± 1.3 MB", "20.5 MB", "410 ± 3 B", "1.0 TB"]
    assert [bar(share, 4) for share in (0, 0.001, 0.5, 0.53125, 1)] == ["    ", "▏   ", "██  ", "██▏ ", "████"]
