"""Every loader on a GPU: the samples, labels and pixels that it has on the CPU, whatever is done to its batches."""

from contextlib import nullcontext

import pytest
import torch
from devices import CPU, META, OnlySent, keep_busy, no_waiting, on_each_device, on_each_gpu
from nominal_cuda import entered
from stored_samples import LOADERS, READING_LOADERS, LoaderCase, for_each, for_each_over_all_records
from test_device_resize import MOST_LEVELS

from loaders.api import Batch
from loaders.crops import CenterCrop, PadCrop, RandomResizedCrop
from loaders.errors import FeedrateError
from loaders.plan import Sequential, Shuffled, View

_SPOILT = 199
in_both_ways = pytest.mark.parametrize(
    "view",
    [View(PadCrop(20), 32, 0.5, fill=(10, 130, 250)), View(RandomResizedCrop(), 32, 0.5)],
    ids=["past the border", "resized"],
)


def kept(batches) -> list[Batch]:
    return [Batch(b.images.clone(), b.labels.clone(), b.ids.clone(), b.num_valid) for b in batches]


def skip_what_cannot_run(case: LoaderCase, device: torch.device) -> None:
    if device.type == "cuda" and (case.name, case.resize) == ("resident", "area"):
        pytest.skip("resident refuses mode area on a GPU, which a test of its own says")


def assert_same_samples(found: list[Batch], expected: list[Batch], case: LoaderCase, device: torch.device) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one.images.device.type == one.labels.device.type == device.type
        assert one.ids.device.type == "cpu"
        assert one.images.dtype == torch.uint8 and one.images.shape == other.images.shape
        assert one.images.is_contiguous(memory_format=torch.channels_last)
        assert one.num_valid == other.num_valid
        assert one.ids.tolist() == other.ids.tolist() and one.labels.tolist() == other.labels.tolist()
        assert_same_pixels(one.images.cpu(), other.images, case, device)


def assert_same_pixels(found: torch.Tensor, expected: torch.Tensor, case: LoaderCase, device: torch.device) -> None:
    """Of every loader to the bit, but for `dali` on a GPU: its decoding and resizing there round in their own way, and
    at the outermost pixels more. `resident` resizes there as Pillow does from version 13 on."""
    off = (found.int() - expected.int()).abs()
    if device.type == "cuda" and case.name == "dali":
        inner = off[:, :, 1:-1, 1:-1]
        assert inner.max() <= 8 and inner.float().mean() < 1
    else:
        assert off.max() <= (MOST_LEVELS if device.type == "cuda" and case.name == "resident" else 0)


@for_each_over_all_records(LOADERS)
@on_each_device
def test_batches_are_those_of_the_cpu(records, case, device, open_one):
    skip_what_cannot_run(case, device)
    expected = kept(open_one(records, case.name, case.resize).epoch(3))
    found = kept(open_one(records, case.name, case.resize, device=device).epoch(3))
    assert_same_samples(found, expected, case, device)


@for_each(READING_LOADERS)
@on_each_device
def test_what_is_filled_and_padded_is_that_of_the_cpu(samples, case, device, open_one):
    skip_what_cannot_run(case, device)
    pads = View(PadCrop(20), 32, 0.5, fill=(10, 130, 250))
    ends_ragged = View(CenterCrop(28, 32), 32)
    for view, order in ((pads, Shuffled(12)), (ends_ragged, Sequential(16))):
        options = {"view": view, "order": order}
        expected = kept(open_one(samples, case.name, case.resize, **options).epoch(1))
        found = kept(open_one(samples, case.name, case.resize, **options, device=device).epoch(1))
        assert_same_samples(found, expected, case, device)


@for_each(READING_LOADERS)
@on_each_device
def test_an_epoch_entered_anywhere_is_the_tail_of_the_whole(samples, case, device, open_one):
    skip_what_cannot_run(case, device)
    loader = open_one(samples, case.name, case.resize, device=device)
    whole = kept(loader.epoch(5))
    for start in range(len(loader) + 1):
        tail = kept(loader.epoch(5, start))
        assert len(tail) == len(whole) - start
        for one, other in zip(tail, whole[start:], strict=True):
            assert torch.equal(one.images, other.images) and torch.equal(one.ids, other.ids)


@for_each(READING_LOADERS)
@on_each_device
def test_what_is_written_into_a_batch_reaches_no_later_one(samples, case, device, open_one):
    skip_what_cannot_run(case, device)
    expected = [kept(open_one(samples, case.name, case.resize).epoch(epoch)) for epoch in (0, 1)]
    spoiled = open_one(samples, case.name, case.resize, device=device)
    for epoch in (0, 1):
        copies = []
        batches = spoiled.epoch(epoch)
        for batch in batches:
            keep_busy(device)  # the copies and the writing come long after the host has asked for the next batch
            copies.append(Batch(batch.images.clone(), batch.labels.clone(), batch.ids.clone(), batch.num_valid))
            batch.images.fill_(_SPOILT)
            batch.labels.fill_(-7)
            batch.ids.fill_(-7)
            del batch
        assert_same_samples(copies, expected[epoch], case, device)


@for_each(LOADERS)
@in_both_ways
@on_each_gpu
def test_asking_for_a_batch_does_not_make_the_host_wait_for_the_steps_before(samples, case, view, device, open_one):
    skip_what_cannot_run(case, device)
    loader = open_one(samples, case.name, case.resize, order=Shuffled(4), view=view, device=device)
    for is_first in (True, True, False):  # the same epoch each time: only the first ones meet new kernels and memory
        batches = loader.epoch(0)
        next(batches)  # loads what stays on the device
        for _ in range(1, len(loader)):
            busy = keep_busy(device, 100_000_000)  # a twentieth of a second: no batch of 4 takes as long
            with nullcontext() if is_first else no_waiting(device):
                next(batches)
            has_waited = busy.is_waited_for() if entered() else busy.query()
            assert is_first or not has_waited, "the host waited for all that the device was asked before"
        assert next(batches, None) is None  # an epoch that ends keeps what the next one uses again
        torch.cuda.synchronize(device)


@for_each([case for case in LOADERS if case.name == "synthetic" or case.resize == "device"])
@in_both_ways
def test_what_a_batch_needs_from_the_host_is_sent_without_waiting(samples, case, view, open_one):
    loader = open_one(samples, case.name, case.resize, order=Shuffled(12), view=view, device=META)
    batches = loader.epoch(0)
    next(batches)  # loads what stays on the device
    with OnlySent():
        rest = list(batches)
    assert len(rest) == 2
    assert all(batch.images.device == batch.labels.device == META and batch.ids.device == CPU for batch in rest)


@pytest.mark.parametrize(
    "copy",
    [
        lambda host: host.to(META),
        lambda host: torch.tensor([1, 2], device=META),
        lambda host: torch.zeros(4, device=META).copy_(host),
        lambda host: torch.zeros(4, device=META)[host],
    ],
)
def test_copying_otherwise_would_be_seen(copy):
    with pytest.raises(AssertionError, match="from the host to"), OnlySent():
        copy(torch.arange(4))


def test_writing_into_a_buffer_that_is_shared_would_be_seen():
    """The check of the test above, on a loader that breaks the promise: batches that are views of one another."""
    one = torch.zeros(2, 3, 4, 4, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    batch = Batch(one, torch.zeros(2, dtype=torch.int64), torch.zeros(2, dtype=torch.int64), 2)
    expected = kept([batch, batch])
    copies = []
    for shared in (batch, batch):
        copies += kept([shared])
        shared.images.fill_(_SPOILT)
    with pytest.raises(AssertionError):
        assert_same_samples(copies, expected, LOADERS[0], CPU)


@on_each_gpu
def test_resident_refuses_to_resize_by_area_on_a_gpu(folder, device, open_one):
    with pytest.raises(FeedrateError, match="cannot resize in mode 'area' on cuda"):
        open_one(folder, "resident", "area", device=device)
