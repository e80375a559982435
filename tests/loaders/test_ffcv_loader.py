"""What loader `ffcv` owes beyond the contract: FFCV's faults stay in FFCV."""

import io
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from packed_by_hand import beton_bytes
from pictures import smooth_picture
from PIL import Image
from stored_samples import plain_image

from loaders import beton_layout as layout
from loaders.beton_records import BetonRecords
from loaders.choose import choose_loader
from loaders.crops import CenterCrop, RandomResizedCrop
from loaders.errors import FeedrateError, LoaderError
from loaders.plan import Sequential, Shuffled, View

try:
    choose_loader("ffcv")
except FeedrateError as error:
    pytest.skip(str(error), allow_module_level=True)

from loaders import ffcv_pipeline
from loaders.ffcv_compiled import decode_rows
from loaders.stage_writer import UNTIMED

ROOT = Path(__file__).parents[2]
EVAL = {"order": Sequential(8), "view": View(CenterCrop(28, 32), 32)}


def encoded(picture: np.ndarray, kind: str = "JPEG", mode: str = "RGB", **options) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).convert(mode).save(out, kind, **options)
    return out.getvalue()


def beton_of(path: Path, images: list[bytes], width: int, height: int) -> BetonRecords:
    """Records of these encoded images, whatever they are, all said to be JPEGs of this size."""
    path.write_bytes(beton_bytes([(data, False, width, height, 0) for data in images], 1 << 16))
    return BetonRecords(path)


@pytest.fixture
def samples(records_of):
    return records_of("beton")


def test_other_records_and_modes_are_refused_with_the_remedy(folder, samples, open_one):
    with pytest.raises(FeedrateError, match=r"tools/convert\.py … --to beton"):
        open_one(folder, "ffcv")
    with pytest.raises(FeedrateError, match="cannot resize in mode 'exact'"):
        open_one(samples, "ffcv", "exact")


def test_a_thread_of_ffcvs_that_is_gone_is_an_error_with_its_remedy(samples, open_one, monkeypatch):
    monkeypatch.setattr(ffcv_pipeline.PlannedEpoch, "run", lambda epoch: None)
    with pytest.raises(LoaderError, match=r"ended after 0 of \d+ batches and gave no reason: .* --loader turbo$"):
        next(open_one(samples, "ffcv").epoch(0))


ODD_IMAGES = {
    "gray": {"mode": "L"},
    "CMYK": {"mode": "CMYK"},
    "progressive": {"progressive": True},
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "with restarts": {"restart_marker_rows": 1},
    "PNG": {"kind": "PNG"},
    "transparent PNG": {"kind": "PNG", "mode": "RGBA"},
    "WebP": {"kind": "WEBP", "lossless": True},
}


def test_odd_images_have_the_pixels_that_other_loaders_give_them(tmp_path, open_one):
    images = [encoded(smooth_picture(61, 47, n), **how) for n, how in enumerate(ODD_IMAGES.values())]
    images.append(images[0].replace(b"\xff\xd9", b"\xff\xd9" + b"\0" * 20))  # padding after the end
    records = beton_of(tmp_path / "odd.beton", images, 61, 47)
    view = View(RandomResizedCrop(), 32, 0.5)
    loader = open_one(records, "ffcv", order=Sequential(len(images)), view=view)
    (batch,) = loader.epoch(0)
    rows = loader._plan.rows(0, 0)
    for row, name in enumerate([*ODD_IMAGES, "padded"]):
        expected = plain_image(records, row, rows.rects[row], rows.flips[row], 32, resize="area")
        assert np.array_equal(batch.images[row].permute(1, 2, 0).numpy(), expected), name


def test_an_image_larger_than_the_scratch_is_made_all_the_same(samples, open_one, monkeypatch):
    def pixels():
        return next(open_one(samples, "ffcv", **EVAL).epoch(0)).images.clone()

    expected = pixels()
    monkeypatch.setattr(ffcv_pipeline, "_SCRATCH_BYTES", 1000)
    assert torch.equal(pixels(), expected)


def test_scratch_is_each_threads_and_not_the_largest_images(samples, open_one):
    rows = open_one(samples, "ffcv")._plan.rows(0, 0)
    decoder = ffcv_pipeline.PlannedDecoder(rows, 20_000 * 20_000, 2, lambda *_: None, lambda _: UNTIMED)
    assert decoder._scratch_bytes <= (16 << 20) + 3 * 32 * 32
    decoder.close()


def test_memory_of_the_batches_is_kept_from_epoch_to_epoch(samples, open_one):
    loader = open_one(samples, "ffcv", num_ahead=2)
    places = [{batch.images.data_ptr() for batch in loader.epoch(epoch)} for epoch in range(3)]
    assert len(places[0]) == 3 and places[0] == places[1] == places[2]


def test_a_bad_sample_is_substituted_as_the_plan_says(tmp_path, open_one):
    images = [encoded(smooth_picture(50, 40, n)) for n in range(12)]
    images[7] = images[7][: len(images[7]) // 2]
    records = beton_of(tmp_path / "bad.beton", images, 50, 40)
    loaders = [
        open_one(records, name, "area", order=Shuffled(12), on_bad="substitute", num_workers=n)
        for name, n in (("ffcv", 1), ("ffcv", 3), ("turbo", 1))
    ]
    batches = [next(loader.epoch(0)) for loader in loaders]
    assert [s.bad_id for s in batches[0].substitutions] == [7]
    for other in batches[1:]:
        assert torch.equal(batches[0].images, other.images) and torch.equal(batches[0].ids, other.ids)
        assert batches[0].substitutions == other.substitutions


def threads_now() -> int:
    return threading.active_count()


@pytest.mark.parametrize("part", ["decode_rows", "_Means", "PlannedBatch.take", "PlannedEpoch.run_pipeline"])
def test_an_error_anywhere_in_the_pipeline_reaches_the_consumer(samples, open_one, monkeypatch, part):
    def broken(*_args):
        raise ZeroDivisionError("a bug")

    before = threads_now()
    loader = open_one(samples, "ffcv", **EVAL)
    monkeypatch.setattr(f"loaders.ffcv_pipeline.{part}", broken)
    started = time.monotonic()
    with pytest.raises(ZeroDivisionError, match="a bug"):
        next(loader.epoch(0))
    assert time.monotonic() - started < 60 and threads_now() == before


def test_two_threads_that_see_the_same_idle_means_do_not_fail(samples, open_one, monkeypatch):
    class Seen(list):
        """Idle means that another thread takes between a look and a grasp."""

        def __bool__(self):
            return True

    make = ffcv_pipeline.PlannedDecoder.__init__

    def with_a_race(self, *arguments):
        make(self, *arguments)
        self._idle = Seen()

    expected = next(open_one(samples, "ffcv", **EVAL).epoch(0)).images.clone()
    monkeypatch.setattr(ffcv_pipeline.PlannedDecoder, "__init__", with_a_race)
    monkeypatch.setattr(ffcv_pipeline.PlannedDecoder, "close", lambda self: self._threads.shutdown())
    assert torch.equal(next(open_one(samples, "ffcv", **EVAL).epoch(0)).images, expected)


def test_a_thread_of_ffcvs_that_ends_early_is_an_error_and_no_short_epoch(samples, open_one, monkeypatch):
    monkeypatch.setattr(ffcv_pipeline.PlannedEpoch, "run", lambda self: None)
    with pytest.raises(LoaderError, match="after 0 of 5 batches"):
        next(open_one(samples, "ffcv", **EVAL).epoch(0))


def test_fifty_early_exits_leave_no_thread(samples, open_one):
    loader = open_one(samples, "ffcv", order=Shuffled(4), num_workers=3)
    before = threads_now()
    for turn in range(50):
        for batch in loader.epoch(turn):
            del batch
            break
    assert threads_now() == before


SECOND_START = """
import sys
import numba, numba.typed, torch
import numpy as np
sys.path.insert(0, {root!r})
torch.set_num_threads(2)
numba.typeof(np.empty(1, np.uint8)).mutable = False  # as a stock Loader leaves it
typed, set_numba = numba.typed.Dict, numba.set_num_threads
from loaders.api import LoaderOptions
from loaders.beton_records import BetonRecords
from loaders.choose import open_loader
from loaders.plan import Plan, Shuffled, View
assert "ffcv" not in sys.modules
from pathlib import Path
records = BetonRecords(Path({path!r}))
plan = Plan(records.widths, records.heights, Shuffled(4), View(size_px=32))
loader = open_loader("ffcv", records, plan, LoaderOptions())
batches = loader.epoch(0)
next(batches)
assert torch.get_num_threads() == 2
assert numba.typed.Dict is typed and numba.set_num_threads is set_numba
import ffcv.pipeline.compiler
assert ffcv.pipeline.compiler.set_num_threads is set_numba
assert ffcv.pipeline.compiler.Compiler.is_enabled
from loaders.ffcv_compiled import decode_rows
print(sum(decode_rows.stats.cache_hits.values()), sum(decode_rows.stats.cache_misses.values()))
"""


def test_a_second_start_compiles_nothing_changes_nothing_and_ends_with_an_epoch_under_way(samples, open_one):
    next(open_one(samples, "ffcv").epoch(0))
    assert list(Path(decode_rows.stats.cache_path).glob("ffcv_compiled.decode_rows-*.nbc"))
    program = SECOND_START.format(root=str(ROOT), path=str(samples.path))
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["1", "0"] and not ended.stderr


def write_sparse(path: Path, num_samples: int, side: int = 8) -> None:
    """Raw images of `side` × `side` black pixels, which take no room on the disk."""
    record = layout.metadata_dtype([layout.TYPE_IMAGE, layout.TYPE_INT])
    page, size = 1 << 21, 3 * side * side
    first = layout.round_up(layout.metadata_start(2) + num_samples * record.itemsize, page)
    numbers = np.arange(num_samples, dtype=np.uint64)
    positions = first + numbers // (page // size) * page + numbers % (page // size) * size
    end = layout.round_up(int(positions[-1]) + size, page)
    fields = np.zeros(2, layout.FIELD)
    fields["type_id"] = layout.TYPE_IMAGE, layout.TYPE_INT
    metadata = np.zeros(num_samples, record)
    metadata["f0"]["mode"], metadata["f0"]["data_ptr"] = layout.MODE_RAW, positions
    metadata["f0"]["width"] = metadata["f0"]["height"] = side
    table = np.zeros(num_samples, layout.ALLOCATION)
    table["sample_id"], table["ptr"], table["size"] = numbers, positions, size
    with open(path, "wb") as file:
        file.write(np.array([(layout.VERSION, 2, page, num_samples, end)], layout.HEADER).tobytes())
        file.write(fields.tobytes() + metadata.tobytes())
        file.seek(end)
        file.write(table.tobytes())


def test_opening_1_28_million_samples_costs_no_time_and_no_memory_of_its_own(tmp_path, samples, open_one):
    next(open_one(samples, "ffcv", **EVAL).epoch(0))  # what is compiled and imported once
    write_sparse(tmp_path / "large.beton", 1_280_000)
    started = time.process_time()
    records = BetonRecords(tmp_path / "large.beton")
    loader = open_one(records, "ffcv", order=Sequential(8), view=View(CenterCrop(8, 8), 8))
    opened = time.process_time()
    batch = next(loader.epoch(0, 100_000))
    assert batch.ids.tolist() == list(range(800_000, 800_008)) and not batch.images.any()
    assert opened - started < 5 and time.process_time() - opened < 5
    held = [value.nbytes for value in vars(loader).values() if isinstance(value, np.ndarray)]
    assert not held
