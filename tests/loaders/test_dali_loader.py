"""What is DALI's own: how near its pixels are, which rows it is not given, and going on after one it cannot read."""

import json
import os
import re
import subprocess
import sys
import weakref
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from devices import CPU, META, OnlySent, on_each_real_device, without_a_gpu
from nominal_cuda import nominal_cuda
from pictures import smooth_picture
from PIL import Image
from settling import at_rest, settled
from stored_samples import plain_image

from loaders.api import Batch
from loaders.crops import CenterCrop, PadCrop, RandomResizedCrop
from loaders.errors import LoaderError
from loaders.native import library
from loaders.native.restart_markers import add_restart_markers
from loaders.plan import Plan, Sequential, Shuffled, View
from loaders.records import open_records
from loaders.stage_writer import UNTIMED

pytest.importorskip("nvidia.dali", reason="DALI is not installed")

from loaders import dali_graph, dali_loader, dali_stream

NEEDS_KERNELS = pytest.mark.skipif(library.load() is None, reason=f"no native kernels: {library.why_not()}")
WHOLE = Sequential(37)
CENTER = View(CenterCrop(28, 32), 32)


def delivered(loader, epoch=0, start=0):
    return [batch.images.permute(0, 2, 3, 1).numpy().copy() for batch in loader.epoch(epoch, start)]


def plain(records, loader, epoch=0, batch=0):
    rows = loader._plan.rows(epoch, batch)
    view, resize = loader._plan.view, loader._resize
    planned = zip(rows.ids, rows.rects, rows.flips, strict=True)
    return np.stack([plain_image(records, int(i), *row, rows.size_px, view.fill, resize) for i, *row in planned])


def as_format(name: str, **options):
    """bytes -> bytes: the same picture stored in another way."""

    def convert(data: bytes) -> bytes:
        encoded = BytesIO()
        Image.open(BytesIO(data)).convert(options.get("mode", "RGB")).save(encoded, name)
        return encoded.getvalue()

    return convert


def changed(image_folder, root, changes):
    """Records over a copy of the training images, some files changed after their sizes were noted."""
    for file in sorted((image_folder / "train").rglob("*.jpg")):
        copy = root / file.relative_to(image_folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    records = open_records(root, "train")
    for index, change in changes.items():
        path = Path(records.where(index))
        path.write_bytes(change(path.read_bytes()))
    return records


@pytest.fixture
def graphs_built(monkeypatch):
    """Grows by one with every pipeline."""
    built = []
    build = dali_graph.Graph.build
    monkeypatch.setattr(dali_graph.Graph, "build", lambda graph: built.append(graph) or build(graph))
    return built


@pytest.mark.parametrize("crop", [RandomResizedCrop(), PadCrop(20), CenterCrop(28, 32)], ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("kind", ["folder", "raw"])
@pytest.mark.parametrize(("resize", "reach"), [("exact", 1), ("bicubic", 2)])
def test_pixels_are_within_rounding_of_pillows_but_for_the_outermost(records_of, kind, crop, resize, reach, open_one):
    records = records_of(kind)
    loader = open_one(records, "dali", resize, order=Shuffled(37), view=View(crop, 32, 0.5, fill=(10, 130, 250)))
    off = np.abs(delivered(loader)[0].astype(int) - plain(records, loader))
    assert off[:, reach:-reach, reach:-reach].max() <= 2 and off.mean() < 0.2
    # beyond a rectangle DALI repeats its last pixel where Pillow cuts the filter short; seen where fill meets picture
    assert off.max() <= (30 if isinstance(crop, PadCrop) else 4)


def test_pixels_that_need_no_resizing_are_not_touched(records_of, open_one):
    for kind in ("cifar", "folder"):
        records = records_of(kind)
        loader = open_one(records, "dali", order=Shuffled(37), view=View(PadCrop(4), 32, 0.5, fill=(9, 99, 200)))
        same_size = (records.widths == 32) & (records.heights == 32)
        if kind == "folder":
            loader = open_one(records, "dali", order=Shuffled(37), view=View(PadCrop(4), 64, 0.5, fill=(9, 99, 200)))
            same_size = (records.widths == 64) & (records.heights == 64)
        rows = loader._plan.rows(0, 0)
        chosen = same_size[rows.ids]
        assert chosen.any() and rows.flips[chosen].any()
        assert np.array_equal(delivered(loader)[0][chosen], plain(records, loader)[chosen])


@pytest.mark.parametrize("kind", ["folder", "raw"])
def test_a_rectangle_that_misses_its_sample_is_all_fill(records_of, kind, open_one):
    records = records_of(kind)
    loader = open_one(records, "dali", order=Shuffled(37), view=View(PadCrop(300), 32, 0.5, fill=(9, 99, 200)))
    images, expected = delivered(loader)[0], plain(records, loader)
    missed = (expected == (9, 99, 200)).all(axis=(1, 2, 3))
    assert 10 < missed.sum() < 37
    assert np.array_equal(images[missed], expected[missed])
    assert np.abs(images.astype(int) - expected)[:, 1:-1, 1:-1].max() <= 2


def test_what_dali_is_not_given_has_the_pixels_of_pillow(image_folder, tmp_path, open_one, graphs_built):
    others = {
        4: as_format("PNG"),
        9: as_format("WEBP"),
        20: as_format("JPEG", mode="CMYK"),
        30: as_format("GIF"),
        36: lambda data: data + b"\0" * 7,  # whole, and more
    }
    records = changed(image_folder, tmp_path, others)
    loader = open_one(records, "dali", order=WHOLE, view=CENTER)
    images, expected = delivered(loader)[0], plain(records, loader)
    for index in others:
        assert np.array_equal(images[index], expected[index]), index
    assert np.abs(images.astype(int) - expected)[:, 1:-1, 1:-1].max() <= 2
    assert len(graphs_built) == 1


def test_raw_samples_among_jpegs_have_the_pixels_of_pillow(records_of, open_one):
    records = records_of("beton")
    assert 0 < records.is_raw.sum() < 37
    loader = open_one(records, "dali", order=Shuffled(37))
    raw = records.is_raw[loader._plan.rows(0, 0).ids]
    assert np.array_equal(delivered(loader)[0][raw], plain(records, loader)[raw])


def test_a_gray_jpeg_is_gray(image_folder, tmp_path, open_one):
    records = changed(image_folder, tmp_path, {7: as_format("JPEG", mode="L")})
    loader = open_one(records, "dali", order=WHOLE, view=CENTER)
    off = np.abs(delivered(loader)[0].astype(int) - plain(records, loader))
    assert off[7].max() <= 12 and off[7, 1:-1, 1:-1].max() <= 2


def test_a_picture_is_not_turned_by_its_exif_data(image_folder, tmp_path, open_one, graphs_built):
    def lying_down(data: bytes) -> bytes:
        image, encoded = Image.open(BytesIO(data)), BytesIO()
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(encoded, "JPEG", quality=92, exif=exif)
        return encoded.getvalue()

    records = changed(image_folder, tmp_path, dict.fromkeys(range(37), lying_down))
    loader = open_one(records, "dali", order=WHOLE, view=View(RandomResizedCrop(), 32))
    assert loader._sample_for_dali(3, [0, 0, 1, 1], UNTIMED) is not None
    assert np.abs(delivered(loader)[0].astype(int) - plain(records, loader))[:, 1:-1, 1:-1].max() <= 2


# Headers tell nearly all of what DALI cannot read. To meet the rest, the look at headers is switched off here; and it
# is not DALI itself that fails, since after a failure of its decoder it may crash the process.


@pytest.fixture
def dali_fails_on_others(monkeypatch):
    """A batch with anything but JPEGs fails as it does in DALI, which is given black pixels instead."""
    monkeypatch.setattr(dali_loader, "_is_plain_jpeg", lambda *_: True)
    real = dali_graph.RunningGraph
    feed, take = real.feed, real.take

    def failing_feed(self, given):
        fails = [sample[:2].tobytes() != b"\xff\xd8" for sample in given.samples]
        self.__dict__.setdefault("failures", []).append(any(fails))
        if any(fails):
            zeros, ones = np.zeros_like(given.window_start), np.ones_like(given.window_shape)
            given = dali_graph.Feed([dali_stream._BLACK_IMAGE] * len(fails), zeros, ones, zeros, ones, given.flips)
        feed(self, given)

    def failing_take(self):
        images = take(self)
        if self.failures.pop(0):
            raise RuntimeError("Error in CPU operator, encountered:\n\nnvImageCodec failure: '#4'\nC++ context")
        return images

    monkeypatch.setattr(real, "feed", failing_feed)
    monkeypatch.setattr(real, "take", failing_take)


@pytest.mark.parametrize("num_ahead", [1, 4])
def test_what_only_dali_cannot_read_is_delivered_and_changes_no_other_row(
    image_folder, tmp_path, open_one, dali_fails_on_others, graphs_built, num_ahead
):
    sound = delivered(open_one(changed(image_folder, tmp_path / "a", {}), "dali", order=Sequential(8), view=CENTER))
    gifs = (10, 14, 33)
    records = changed(image_folder, tmp_path / "b", dict.fromkeys(gifs, as_format("GIF")))
    loader = open_one(records, "dali", order=Sequential(8), view=CENTER, num_ahead=num_ahead)
    graphs_built.clear()
    images = delivered(loader)
    assert len(graphs_built) == 3
    for index in range(37):
        batch, row = divmod(index, 8)
        expected = plain(records, loader, 0, batch)[row] if index in gifs else sound[batch][row]
        assert np.array_equal(images[batch][row], expected), index
    graphs_built.clear()
    again = delivered(loader)  # by now it is known which they are
    assert len(graphs_built) == 1
    assert all(np.array_equal(one, other) for one, other in zip(images, again, strict=True))


def test_what_nobody_can_read_is_named_after_the_batches_before_it(
    image_folder, tmp_path, open_one, dali_fails_on_others
):
    records = changed(image_folder, tmp_path, {21: lambda _: bytes(range(256)) * 20, 23: lambda _: b"noise"})
    batches = open_one(records, "dali", order=Sequential(8), view=CENTER).epoch(0)
    assert [next(batches).ids[0].item() for _ in range(2)] == [0, 8]
    with pytest.raises(LoaderError, match="sample 21 .*cannot identify"):
        next(batches)


def test_what_nobody_can_read_is_substituted_as_the_other_loaders_do(
    image_folder, tmp_path, open_one, dali_fails_on_others
):
    records = changed(image_folder, tmp_path, {21: lambda _: bytes(range(256)) * 20, 5: lambda _: b"noise"})
    options = {"order": Shuffled(9), "view": CENTER, "on_bad": "substitute"}
    found = []
    for name in ("dali", "turbo"):
        batches = list(open_one(records, name, "exact", **options).epoch(0))
        found.append([(b.ids.tolist(), sorted((s.bad_id, s.id) for s in b.substitutions)) for b in batches])
    assert found[0] == found[1]
    assert sorted(bad for _, all_bad in found[0] for bad, _ in all_bad) in ([5, 21], [5], [21])


def test_a_failure_that_is_no_samples_is_an_error_in_one_sentence(folder, open_one, monkeypatch):
    def failing(_):
        raise RuntimeError("Critical error in pipeline:\nin a traceback, encountered:\n\nout of memory\nContext: …")

    monkeypatch.setattr(dali_graph.RunningGraph, "take", failing)
    with pytest.raises(LoaderError, match=r"make no sample \(out of memory\): --loader turbo does without DALI$"):
        next(open_one(folder, "dali").epoch(0))


def test_where_no_row_is_suspect_all_of_the_batch_is_made_by_other_means(
    image_folder, tmp_path, open_one, dali_fails_on_others, monkeypatch
):
    monkeypatch.setattr(dali_loader, "_is_suspect", lambda _: False)
    records = changed(image_folder, tmp_path, {10: as_format("GIF")})
    loader = open_one(records, "dali", order=Sequential(8), view=CENTER)
    with pytest.warns(
        UserWarning, match=r"every sample looks sound \(nvImageCodec failure: '#4'\): loader 'dali' made"
    ):
        images = delivered(loader)
    assert np.array_equal(images[1], plain(records, loader, 0, 1))
    assert not np.array_equal(images[2], plain(records, loader, 0, 2))  # DALI's, a level off here and there


def test_the_batch_mates_of_what_only_dali_cannot_read_are_as_ever_in_the_next_epoch(
    image_folder, tmp_path, open_one, dali_fails_on_others, monkeypatch
):
    """A run that was stopped between has never met them, and must see the same bits."""
    monkeypatch.setattr(dali_loader, "_is_suspect", lambda _: False)
    records = changed(image_folder, tmp_path, {10: as_format("GIF")})
    one, fresh = (open_one(records, "dali", order=Shuffled(9), view=CENTER) for _ in range(2))
    with pytest.warns(UserWarning, match="every sample looks sound"):
        delivered(one, 0)
        pairs = zip(delivered(one, 1), delivered(fresh, 1), strict=True)
    assert all(np.array_equal(ours, expected) for ours, expected in pairs)


class BrokenGpu:
    """A graph, and at work what it builds, on a GPU that fails at each batch."""

    raw, windows, on_gpu = False, False, True

    def build(self):
        return self

    def feed(self, given):
        pass

    def take(self):
        raise RuntimeError("Error in MIXED operator, encountered:\n\nCUDA allocation failed\nC++ context")

    def close(self):
        pass


def test_a_gpu_that_fails_is_an_error_and_not_left_to_the_host(folder):
    """Which would make a batch in the time of a hundred, and say nothing of it."""
    plan = Plan(folder.widths, folder.heights, WHOLE, CENTER)
    batch = dali_stream.Ingredients(plan.rows(0, 0))
    batch.samples = {3: dali_stream._BLACK_IMAGE}
    told = r"every sample looks sound \(CUDA allocation failed\): --loader turbo decodes without the GPU$"
    with dali_stream.Stream(BrokenGpu(), folder, lambda data: False, None) as stream:
        stream.push(batch)
        with pytest.raises(LoaderError, match=told):
            stream.take()


@pytest.mark.parametrize("crop", [RandomResizedCrop(), PadCrop(20), CenterCrop(28, 32)], ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("with_markers", [False, pytest.param(True, marks=NEEDS_KERNELS)])
def test_jpegs_decoded_whole_and_cut_then_have_the_same_bits(
    image_folder, tmp_path, open_one, monkeypatch, crop, with_markers
):
    """As is done on a GPU, which cannot decode parts of them."""

    def marked(data: bytes) -> bytes:
        encoded = BytesIO()
        Image.open(BytesIO(data)).resize((400, 300)).save(encoded, "JPEG", quality=90)
        return add_restart_markers(encoded.getvalue())

    records = changed(image_folder, tmp_path, dict.fromkeys(range(37), marked) if with_markers else {})
    if with_markers:
        records = open_records(tmp_path, "train")  # of their new sizes
    origins = []
    cut, graph = dali_loader._cut, dali_loader.DaliLoader._graph

    def noting(jpeg, batch, row):
        part = cut(jpeg, batch, row)
        origins.extend(batch.origins.get(row, (0, 0)))
        return part

    monkeypatch.setattr(dali_loader, "_cut", noting)
    view = View(crop, 32, 0.5, fill=(10, 130, 250))
    windows = delivered(open_one(records, "dali", order=Shuffled(9), view=view))
    monkeypatch.setattr(dali_loader.DaliLoader, "_graph", lambda *words: replace(graph(*words), whole=True))
    whole = delivered(open_one(records, "dali", order=Shuffled(9), view=view))
    assert all(np.array_equal(one, other) for one, other in zip(windows, whole, strict=True))
    # the others need nearly all, or what lies beyond a border: that is not worth cutting, or cannot be cut
    assert any(origins) is (with_markers and isinstance(crop, RandomResizedCrop))


@pytest.mark.parametrize(("largest", "expected"), [((500, 400), (500, 400)), ((12_000, 9_000), (0, 0))])
def test_memory_is_taken_in_advance_only_where_the_largest_sample_leaves_some(largest, expected):
    graph = dali_graph.Graph(256, 224, (0, 0, 0), False, False, False, True, 4, torch.device("cuda"), largest)
    options = graph._on_gpu_options()
    assert (options["preallocate_width_hint"], options["preallocate_height_hint"]) == expected


def _threads_of_process() -> int:
    """Also those that Python does not know of."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208


class FakeEvent:
    """Of a GPU that is never done with a step until it is waited for."""

    def __init__(self, waited) -> None:
        self._waited = waited

    def record(self, stream) -> None:
        pass

    def query(self) -> bool:
        return False

    def synchronize(self) -> None:
        self._waited()


def test_dalis_memory_is_given_back_only_after_the_steps_that_read_it_have_ended(monkeypatch):
    num_made, alive, alive_when_waited = 8, [], []

    def made():
        for _ in range(num_made):
            images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
            alive.append(weakref.ref(images))
            yield Batch(images, torch.zeros(2), torch.zeros(2), 2)
            del images

    def note():
        alive_when_waited.append([images() is not None for images in alive])

    monkeypatch.setattr(torch.cuda, "Event", lambda blocking: FakeEvent(note))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: FakeEvent(note))
    for _ in dali_loader._held_on_gpu(made(), torch.device("cuda")):
        pass
    *waited, at_the_end = alive_when_waited
    assert len(waited) == num_made - 2  # before batch 4 was made for the first of them, and so on
    for number, is_alive in enumerate(waited):
        assert is_alive == [False] * number + [True] * 3
    assert at_the_end == [False] * (num_made - 2) + [True] * 2


def test_what_dalis_batches_need_from_the_host_is_sent_without_waiting(folder, open_one):
    with OnlySent():
        batches = list(open_one(folder, "dali", device=META)._made_batches(0, 0))
        assert batches and all(batch.labels.device == META for batch in batches)
        painted = dali_stream.Ingredients(Plan(folder.widths, folder.heights, WHOLE, CENTER).rows(0, 0))
        painted.painted = {3: np.zeros((32, 32, 3), np.uint8), 1: np.ones((32, 32, 3), np.uint8)}
        assert painted.finish(torch.zeros(37, 32, 32, 3, dtype=torch.uint8, device=META)).device == META
    images = painted.finish(torch.full((37, 32, 32, 3), 7, dtype=torch.uint8))
    assert images[:5, 0, 0, 0].tolist() == [7, 1, 7, 0, 7]


def test_dalis_own_threads_end_with_the_epoch(folder, open_one):
    list(open_one(folder, "dali").epoch(0))
    before = at_rest(_threads_of_process)
    for turn in range(5):
        loader = open_one(folder, "dali", num_workers=3)
        batches = loader.epoch(turn)
        next(batches)
        assert _threads_of_process() > before
        batches.close()
        assert settled(_threads_of_process, before) == before


def test_where_building_is_dear_a_pipeline_is_kept_from_epoch_to_epoch(folder, open_one, monkeypatch, graphs_built):
    """As on a GPU; and given up where an epoch was left early, where another is needed, and when the loader closes."""
    expected = [delivered(open_one(folder, "dali", num_workers=2), epoch) for epoch in range(4)]
    monkeypatch.setattr(dali_graph.Graph, "outlives_epochs", True)
    before = at_rest(_threads_of_process)
    loader = open_one(folder, "dali", num_workers=2)
    graphs_built.clear()
    for epoch in (0, 1):
        assert all(np.array_equal(*pair) for pair in zip(delivered(loader, epoch), expected[epoch], strict=True))
    assert len(graphs_built) == 1
    batches = loader.epoch(2)
    next(batches)
    batches.close()  # with batches under way
    for epoch in (2, 3):
        assert all(np.array_equal(*pair) for pair in zip(delivered(loader, epoch), expected[epoch], strict=True))
    assert len(graphs_built) == 2 and at_rest(_threads_of_process) > before
    loader.close()
    assert settled(_threads_of_process, before) == before


def test_a_pipeline_of_another_size_is_not_kept(folder, open_one, monkeypatch, graphs_built):
    monkeypatch.setattr(dali_graph.Graph, "outlives_epochs", True)
    view = View(CenterCrop(28, 32), ((0, 32), (1, 48)))
    loader = open_one(folder, "dali", view=view)
    sizes = [delivered(loader, epoch)[0].shape[1] for epoch in (0, 1, 2)]
    assert sizes == [32, 48, 48] and len(graphs_built) == 2


def test_torchs_threads_are_left_alone(folder, open_one):
    before = torch.get_num_threads()
    list(open_one(folder, "dali").epoch(0))
    assert torch.get_num_threads() == before


def test_a_sample_of_one_pixel_and_a_batch_of_one(tmp_path, open_one):
    folder = tmp_path / "train" / "ant"
    folder.mkdir(parents=True)
    Image.fromarray(smooth_picture(1, 1, 3)).save(folder / "one.jpg")
    Image.fromarray(smooth_picture(1, 300, 4)).save(folder / "thin.jpg", quality=95)
    records = open_records(tmp_path, "train")
    loader = open_one(records, "dali", order=Sequential(1), view=CENTER)
    for number, image in enumerate(delivered(loader)):
        assert np.abs(image.astype(int) - plain(records, loader, 0, number)).max() <= 2


@on_each_real_device
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0", "gray"])
def test_jpegs_of_all_usual_kinds_are_decoded_by_the_device_itself(device, subsampling, tmp_path):
    """What a GPU's decoders refuse, nvImageCodec leaves to the processor's, and tells only who asks."""
    for number in range(8):
        path = tmp_path / "train" / "ant" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(smooth_picture(500, 375, number))
        how = {} if subsampling == "gray" else {"subsampling": subsampling}
        (picture.convert("L") if subsampling == "gray" else picture).save(path, quality=92, **how)
    wanted = {"path": str(tmp_path), "loader": "dali", "device": str(device)}
    command = [sys.executable, str(Path(__file__).with_name("limited_run.py")), json.dumps(wanted)]
    asking = {**os.environ, "DALI_NVIMGCODEC_LOG_LEVEL": "3"}
    told = subprocess.run(command, env=asking, capture_output=True, text=True, check=True)
    said = told.stdout + told.stderr
    by_the_processor = re.findall(r"(?:libjpeg_turbo|opencv_jpeg)_decoder process #", said)
    assert "ImageGenericDecoder::decode num_samples=" in said
    assert len(by_the_processor) == (8 if device == CPU else 0)


def test_choosing_a_loader_does_not_import_dali():
    code = "import loaders.choose, sys; loaders.choose.choose_loader('dali'); sys.exit('nvidia.dali' in sys.modules)"
    # finding nvidia.dali imports the namespace around it only
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@without_a_gpu
def test_a_gpu_that_dali_cannot_work_on_is_said_in_one_sentence(folder, open_one):
    with nominal_cuda():
        loader = open_one(folder, "dali", device=torch.device("cuda", 0))
        with pytest.raises(LoaderError, match=r"^DALI cannot work on cuda:0 \(.*\): --loader turbo does without DALI$"):
            next(loader.epoch(0))
