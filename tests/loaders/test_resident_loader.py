"""What is `resident`'s own: when it loads, what it refuses, that mere cuts are mere copies."""

import gc
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from devices import on_each_gpu
from stored_samples import plain_image, write_cifar10

from loaders import resident_loader, resident_pixels
from loaders.api import LoaderOptions, prepare
from loaders.choose import open_loader
from loaders.crops import CenterCrop, PadCrop, RandomResizedCrop
from loaders.errors import FeedrateError
from loaders.plan import Plan, Sequential, Shard, Shuffled, View
from loaders.records import open_records
from loaders.sampling import Sampling

PAD_CROP = View(PadCrop(4), 32, 0.5, fill=(10, 130, 250))


@pytest.fixture(scope="module")
def cifar(tmp_path_factory):
    return write_cifar10(tmp_path_factory.mktemp("cifar"))


@pytest.fixture
def train(cifar):
    """37 training samples."""
    return open_records(cifar, "train")


def images(loader, epoch, start=0) -> torch.Tensor:
    return torch.cat([batch.images.clone() for batch in loader.epoch(epoch, start)])


@pytest.mark.parametrize("resize", ["exact", "area", "device"])
def test_pad_crop_flip_is_the_plans_by_copying(train, open_one, resize):
    loader = open_one(train, "resident", resize, view=PAD_CROP, order=Shuffled(12))
    for epoch in range(3):
        for number, batch in enumerate(loader.epoch(epoch)):
            rows = loader._plan.rows(epoch, number)
            assert 0 < rows.flips.sum() < 12 and rows.rects[:, :2].min() < 0 < rows.rects[:, :2].max()
            assert batch.labels.tolist() == train.labels[rows.ids].tolist()
            for row, index in enumerate(rows.ids.tolist()):
                expected = plain_image(train, index, rows.rects[row], rows.flips[row], 32, PAD_CROP.fill)
                assert np.array_equal(batch.images[row].permute(1, 2, 0).numpy(), expected)
    assert loader._copier is not None  # nothing was resized


def test_evaluation_of_cifar_ends_in_padding(cifar, open_one):
    val = open_records(cifar, "val")
    loader = open_one(val, "resident", order=Sequential(9), view=View(CenterCrop(32, 32), 32))
    batches = [replace(batch, images=batch.images.clone()) for batch in loader.epoch(0)]
    assert [batch.num_valid for batch in batches] == [9, 9, 5] and loader._copier is not None
    assert not batches[2].images[5:].any() and batches[2].ids[5:].tolist() == [-1] * 4
    pixels = torch.cat([batch.images[: batch.num_valid] for batch in batches]).permute(0, 2, 3, 1)
    assert np.array_equal(pixels.reshape(23, -1).numpy(), np.stack([val.read(n) for n in range(23)]))
    assert torch.cat([batch.labels for batch in batches])[:23].tolist() == val.labels.tolist()


@pytest.mark.parametrize("view", [PAD_CROP, View(RandomResizedCrop(), 24, 0.5)], ids=["cuts", "resizes"])
def test_an_epoch_may_begin_in_its_middle(train, open_one, view):
    whole = images(open_one(train, "resident", view=view, order=Shuffled(5)), 2)
    assert torch.equal(images(open_one(train, "resident", view=view, order=Shuffled(5)), 2, start=4), whole[20:])


def test_sizes_may_change_to_and_from_that_of_the_samples(train, open_one):
    view = View(PadCrop(4), ((0, 24), (1, 32), (2, 40)), 0.5)
    reference = open_one(train, "turbo", "exact", view=view)
    for resize in ("exact", "device"):
        loader = open_one(train, "resident", resize, view=view)
        for epoch in range(3):
            assert torch.equal(images(loader, epoch), images(reference, epoch))


@pytest.mark.parametrize("resize", ["exact", "device"])
@pytest.mark.parametrize("view", [PAD_CROP, View(RandomResizedCrop(), 24, 0.5)], ids=["cuts", "resizes"])
def test_only_samples_that_take_part_are_held_and_views_of_one_differ(train, view, resize):
    plan = Plan(train.widths, train.heights, Shuffled(8), view, 3, Sampling(np.array([1, 4, 5, 20, 21, 36]), views=2))
    loader = open_loader("resident", train, plan, LoaderOptions(resize=resize, num_workers=2))
    reference = open_loader("turbo", train, plan, LoaderOptions(resize="exact", num_workers=2))
    made = images(loader, 1)
    assert torch.equal(made, images(reference, 1)) and not torch.equal(made[0], made[1])
    side = 32 + 2 * loader._layout.border
    assert loader._num_bytes == loader._pixels.pixels.numel() == 6 * side * side * 3
    loader.close()
    reference.close()


def test_samples_are_read_once_when_the_first_batch_is_asked_for(folder, open_one, monkeypatch):
    read: list[int] = []
    one_by_one = folder.read
    monkeypatch.setattr(folder, "read", lambda index: read.append(index) or one_by_one(index))
    loader = open_one(folder, "resident")
    iterator = loader.epoch(0)
    assert not read
    next(iterator)
    assert sorted(read) == list(range(37))
    for epoch in range(3):
        images(loader, epoch)
    assert len(read) == 37


@pytest.mark.parametrize("resize", ["exact", "area", "device"])
def test_closing_gives_the_memory_up(folder, open_one, resize):
    loader = open_one(folder, "resident", resize)
    iterator = loader.epoch(0)
    next(iterator)
    pixels = weakref.ref(loader._pixels)
    loader.close()
    gc.collect()
    assert pixels() is None


def test_pixels_do_not_depend_on_how_much_is_decoded_at_once(folder, open_one, monkeypatch):
    expected = images(open_one(folder, "resident", "device"), 0)
    for at_once in (1, 20_000):
        monkeypatch.setattr(resident_pixels, "_CHUNK_PIXELS", at_once)
        assert torch.equal(images(open_one(folder, "resident", "device", num_workers=3), 0), expected)


def test_loading_that_is_interrupted_leaves_nothing_and_can_begin_again(folder, open_one, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    loader = open_one(folder, "resident")
    before = threading.active_count()
    with monkeypatch.context() as patched:
        patched.setattr(resident_pixels, "load_rgb", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(loader.epoch(0))
    assert loader._pixels is None and threading.active_count() == before
    assert next(loader.epoch(0)).num_valid == 8


def test_prepared_it_has_decoded_all_and_told_how_far_it_was(folder, open_one, monkeypatch):
    monkeypatch.setattr(resident_pixels, "_CHUNK_PIXELS", 20_000)
    loader, told = open_one(folder, "resident", num_workers=2), []
    prepare(loader, lambda *progress: told.append(progress))
    assert told[-1] == (37, 37) and len(told) > 2 and told == sorted(told)
    monkeypatch.setattr(resident_pixels, "load_rgb", None)  # nothing is decoded any more
    assert next(loader.epoch(0)).num_valid == 8
    loader.close()
    with pytest.raises(FeedrateError, match="is closed"):
        prepare(loader, lambda *progress: None)


def test_a_loader_with_nothing_to_prepare_is_left_alone(folder, open_one):
    prepare(open_one(folder, "turbo"), lambda *progress: pytest.fail("it has nothing to tell of"))


def test_what_does_not_fit_is_refused_before_anything_is_read(train, open_one, monkeypatch):
    needed = 37 * 32 * 32 * 3
    monkeypatch.setattr(resident_loader, "available_memory_bytes", lambda: needed)
    with pytest.raises(FeedrateError, match=r"takes 0.00 GB, more than 80% of the 0.00 GB .* use --loader turbo"):
        open_one(train, "resident")
    monkeypatch.setattr(resident_loader, "available_memory_bytes", lambda: 1.3 * needed)
    first = open_one(train, "resident")
    with pytest.raises(FeedrateError, match="with the 1 opened beside it"):  # training's and evaluation's
        open_one(train, "resident")
    first.close()
    with pytest.raises(FeedrateError, match="on 2 ranks"):
        open_one(train, "resident", shard=Shard(0, 2))
    loader = open_one(train, "resident")
    monkeypatch.setattr(resident_loader, "available_memory_bytes", lambda: needed)  # others have taken some since
    with pytest.raises(FeedrateError, match="more than 80%"):
        next(loader.epoch(0))
    monkeypatch.setattr(resident_loader, "available_memory_bytes", lambda: None)  # a system that does not say
    assert next(loader.epoch(0)).num_valid == 8


def test_area_is_for_processors_unless_nothing_is_resized(train, monkeypatch):
    monkeypatch.setattr(resident_loader, "_free_bytes", lambda device: 1 << 30)
    for view, refused in ((View(RandomResizedCrop(), 32), True), (PAD_CROP, False)):
        plan = Plan(train.widths, train.heights, Shuffled(8), view)
        options = LoaderOptions(device=torch.device("cuda"), resize="area")
        if refused:
            with pytest.raises(FeedrateError, match="'area' on cuda, only on the CPU: ask for 'exact'"):
                open_loader("resident", train, plan, options)
        else:
            open_loader("resident", train, plan, options).close()


@on_each_gpu
@pytest.mark.parametrize("view", [PAD_CROP, View(RandomResizedCrop(), 24, 0.5)], ids=["cuts", "resizes"])
def test_a_gpu_has_the_same_bits(train, folder, open_one, view, device):
    for records in (train, folder):
        on_cpu = open_one(records, "resident", "device", view=view)
        on_gpu = open_one(records, "resident", "device", view=view, device=device)
        assert torch.equal(images(on_gpu, 1).cpu(), images(on_cpu, 1))
