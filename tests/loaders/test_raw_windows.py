"""Mode `device` of `turbo`: rectangles of raw samples are copied, and resized where the batch is used."""

import weakref

import numpy as np
import pytest
import torch
from devices import on_each_gpu
from packed_by_hand import samples_of, write_packed
from PIL import Image
from stored_samples import write_cifar10

from loaders import raw_windows
from loaders.choose import _is_installed
from loaders.crops import PadCrop, RandomResizedCrop
from loaders.errors import FeedrateError, LoaderError
from loaders.native import library
from loaders.plan import Sequential, Shuffled, View
from loaders.records import open_records
from loaders.stage_times import StageTimes


@pytest.fixture(scope="module")
def raw_path(image_folder, tmp_path_factory):
    return write_packed(tmp_path_factory.mktemp("packed"), {"train": samples_of(image_folder, "train")}, ("raw",))


@pytest.fixture(params=["native", "NumPy"], autouse=True)
def copied_by(request, monkeypatch):
    if request.param == "NumPy":
        monkeypatch.setenv("FEEDRATE_NATIVE", "0")
    elif library.load() is None:
        pytest.skip(library.why_not())
    return request.param


@pytest.fixture
def raw(raw_path):
    """37 raw samples of different sizes."""
    return open_records(raw_path, "train")


def images(loader, epoch) -> torch.Tensor:
    return torch.cat([batch.images.clone() for batch in loader.epoch(epoch)])


def test_encoded_samples_are_refused(folder, open_one):
    with pytest.raises(FeedrateError, match=r"37 of 37 are encoded: pack the set anew with --to raw, or"):
        open_one(folder, "turbo", "device")


def test_one_encoded_sample_is_enough_to_refuse(raw, open_one):
    raw.is_raw[3] = False
    with pytest.raises(FeedrateError, match=r"1 of 37 are encoded"):
        open_one(raw, "turbo", "device")


@pytest.mark.parametrize("crop", [RandomResizedCrop(), PadCrop(30)], ids=["within", "past the border"])
def test_what_crosses_are_the_rectangles_and_no_more(raw, open_one, crop):
    loader = open_one(raw, "turbo", "device", view=View(crop, 24, 0.5, fill=(10, 130, 250)), order=Shuffled(12))
    for number, batch in enumerate(loader._host_batches(0, 0)):
        rows = loader._plan.rows(0, number)
        areas = rows.rects[:, 2].astype(int) * rows.rects[:, 3]
        assert batch.images.shape == (areas.sum(), 3) and batch.images.is_contiguous()
        for row, index in enumerate(rows.ids.tolist()):
            left, top, width, height = rows.rects[row].tolist()
            start = int(batch.cuts.starts[row])
            window = batch.images[start : start + width * height].reshape(height, width, 3).numpy()
            sample = Image.fromarray(raw.read(index).reshape(raw.heights[index], raw.widths[index], 3))
            expected = Image.new("RGB", (width, height), (10, 130, 250))
            expected.paste(sample, (-left, -top))
            assert np.array_equal(window, np.asarray(expected))
    reference = open_one(raw, "turbo", "exact", view=loader._plan.view, order=Shuffled(12))
    assert torch.equal(images(loader, 1), images(reference, 1))


def test_memory_is_that_of_the_rectangles_not_of_the_largest_sample(raw, open_one):
    loader = open_one(raw, "turbo", "device", view=View(RandomResizedCrop((0.08, 0.1)), 24), num_ahead=2)
    largest = max(len(batch.images) for epoch in range(4) for batch in loader._host_batches(epoch, 0))
    held = [len(slab._memory) for slab in loader._product._slabs]
    assert len(held) == 3 and max(held) <= 1.25 * largest
    assert largest < 0.2 * 8 * int((raw.widths * raw.heights).max())


def test_slabs_are_used_again(raw, open_one):
    loader = open_one(raw, "turbo", "device", order=Sequential(37), num_ahead=1, view=View(PadCrop(2), 24))
    places = [batch.images.data_ptr() for _ in range(4) for batch in loader._host_batches(0, 0)]
    assert len(set(places)) == 1


def test_a_substitute_may_be_larger_than_what_it_stands_for(raw, open_one, monkeypatch):
    bad = set(np.argsort(raw.widths * raw.heights)[:12].tolist())  # the smallest
    intact = raw.read

    def read(index: int):
        if index in bad:
            raise LoaderError(f"sample {index} ({raw.where(index)}) cannot be delivered: it is gone")
        return intact(index)

    monkeypatch.setattr(raw, "read", read)
    kept = [list(open_one(raw, "turbo", mode, on_bad="substitute").epoch(0)) for mode in ("device", "exact")]
    assert sum(len(batch.substitutions) for batch in kept[0]) > 5
    for ours, reference in zip(*kept, strict=True):
        assert ours.ids.tolist() == reference.ids.tolist()
        assert sorted(ours.substitutions, key=str) == sorted(reference.substitutions, key=str)
    loaders = [open_one(raw, "turbo", mode, on_bad="substitute") for mode in ("device", "exact")]
    assert torch.equal(images(loaders[0], 0), images(loaders[1], 0))
    with pytest.raises(LoaderError, match="it is gone"):
        images(open_one(raw, "turbo", "device"), 0)


def test_outgrown_memory_is_gone_before_the_new_comes(raw, open_one, monkeypatch):
    loader = open_one(raw, "turbo", "device", num_ahead=1)
    slab, rows = raw_windows._Slab(10, pinned=False), loader._plan.rows(0, 0)
    slab.make_room(rows)
    outgrown, make, still_there = weakref.ref(slab._array), torch.empty, []
    monkeypatch.setattr(
        torch, "empty", lambda shape, **how: still_there.append(outgrown() is not None) or make(shape, **how)
    )
    slab._least = 10_000
    slab.make_room(rows)
    assert len(slab[0]) == 10_000 and still_there[-1] is False


def test_memory_that_cannot_be_had_is_an_error_in_one_sentence(raw, open_one):
    loader = open_one(raw, "turbo", "device")
    with pytest.raises(LoaderError, match="use a smaller batch"):
        raw_windows._Slab(1 << 50, pinned=False).make_room(loader._plan.rows(0, 0))


def test_a_sample_that_has_not_the_recorded_size_is_named(raw, open_one, monkeypatch):
    """As people's own records may be wrong."""
    intact = raw.read
    monkeypatch.setattr(raw, "read", lambda index: intact(index)[:-3] if index == 5 else intact(index))
    for name, mode in (("turbo", "device"), ("turbo", "exact"), ("dali", "exact"), ("torchvision", "exact")):
        if name == "dali" and not _is_installed("nvidia.dali"):
            continue
        with pytest.raises(LoaderError, match="sample 5 "):
            images(open_one(raw, name, mode, order=Shuffled(37)), 0)


def test_the_kernel_copies_all_that_is_in_order(raw, open_one, monkeypatch, copied_by):
    copied, copy = [], raw_windows._copy
    monkeypatch.setattr(raw_windows, "_copy", lambda *arguments: copied.append(copy(*arguments)))
    loader = open_one(raw, "turbo", "device", order=Sequential(8), view=View(PadCrop(5), 24, 0.5))
    assert sum(batch.num_valid for batch in loader.epoch(0)) == 37
    assert len(copied) == (37 if copied_by == "NumPy" else 0)


def test_samples_that_give_way_to_others_are_read_and_counted_once(raw, open_one, monkeypatch):
    intact, times = raw.read, StageTimes(3)
    monkeypatch.setattr(raw, "read", lambda index: intact(index)[:-3] if index == 5 else intact(index))
    options = {"on_bad": "substitute", "stage_times": times, "num_workers": 2, "order": Shuffled(37)}
    (batch,) = open_one(raw, "turbo", "device", **options).epoch(0)
    assert len(batch.substitutions) == 1
    counts = {stage: figures.count for stage, figures in times.read().items()}
    assert counts == {"read": 38, "augment": 37, "collate": 37, "hand-off": 37}


def test_a_rectangle_larger_than_its_room_is_an_error_and_nobodys_memory():
    out = np.zeros((5, 3), np.uint8)
    raw_windows._copy(np.ones((1, 4, 3), np.uint8), out)
    assert out.tolist() == [[1, 1, 1]] * 4 + [[0, 0, 0]]
    with pytest.raises(LoaderError, match="2×3 px is larger than there is room for"):
        raw_windows._copy(np.ones((3, 2, 3), np.uint8), out)


@on_each_gpu
def test_a_gpu_has_the_same_bits(raw_path, tmp_path, open_one, device):
    for path in (raw_path, write_cifar10(tmp_path)):
        records = open_records(path, "train")
        on_gpu = open_one(records, "turbo", "device", device=device)
        assert torch.equal(images(on_gpu, 1).cpu(), images(open_one(records, "turbo", "device"), 1))
        used = [slab._memory for slab in on_gpu._product._slabs if len(slab._memory)]
        assert used and all(memory.is_pinned() for memory in used)
