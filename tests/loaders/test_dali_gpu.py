"""Loader `dali` on a GPU; on one in name with DALI's operators for processors."""

import numpy as np
import pytest
import torch
from devices import on_each_gpu
from stored_samples import plain_image

from loaders.crops import CenterCrop, PadCrop, RandomResizedCrop
from loaders.plan import Sequential, Shuffled, View

pytest.importorskip("nvidia.dali", reason="DALI is not installed")

CUDA = torch.device("cuda")  # the current one
KINDS = ["folder", "raw", "beton"]  # JPEGs, pixels, both


def kept(batches):
    """Host copies of all batches' images, uint8 [B, S, S, 3]."""
    return [batch.images.permute(0, 2, 3, 1).cpu().numpy() for batch in batches]


@on_each_gpu
@pytest.mark.parametrize("kind", KINDS)
def test_batches_lie_on_the_device_and_their_ids_on_the_host(records_of, kind, open_one, device):
    records = records_of(kind)
    loader = open_one(records, "dali", device=device)
    for number, batch in enumerate(loader.epoch(0)):
        rows = loader._plan.rows(0, number)
        assert batch.images.device.type == batch.labels.device.type == "cuda" and batch.ids.device.type == "cpu"
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.images.shape == (8, 3, 32, 32) and batch.images.dtype == torch.uint8
        assert batch.ids.tolist() == rows.ids.tolist()
        assert batch.labels.tolist() == records.labels[rows.ids].tolist()


@on_each_gpu
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("crop", [RandomResizedCrop(), PadCrop(20), CenterCrop(28, 32)], ids=lambda c: type(c).__name__)
def test_pixels_are_near_pillows_but_for_the_outermost(records_of, kind, crop, open_one, device):
    records = records_of(kind)
    view = View(crop, 32, 0.5, fill=(10, 130, 250))
    loader = open_one(records, "dali", order=Shuffled(37), view=view, device=device)
    (images,) = kept(loader.epoch(1))
    rows = loader._plan.rows(1, 0)
    planned = zip(rows.ids, rows.rects, rows.flips, strict=True)
    expected = np.stack([plain_image(records, int(i), rect, flip, 32, view.fill) for i, rect, flip in planned])
    off = np.abs(images.astype(int) - expected)[:, 1:-1, 1:-1]
    # a GPU's inverse DCT and colours round in their own way, on top of the resizing
    assert off.max() <= 8 and off.mean() < 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_stay_whole_while_the_device_is_busy(folder, open_one):
    quiet = kept(open_one(folder, "dali", device=CUDA).epoch(2))
    work = torch.randn(2048, 2048, device=CUDA)
    copies = []
    for batch in open_one(folder, "dali", device=CUDA).epoch(2):
        for _ in range(20):
            work = torch.tanh(work @ work)
        copies.append(batch.images + (0 * work[0, 0]).to(torch.uint8))  # read long after the next was asked for
        del batch
    assert all(np.array_equal(one, other) for one, other in zip(kept_tensors(copies), quiet, strict=True))


def kept_tensors(images):
    return [tensor.permute(0, 2, 3, 1).cpu().numpy() for tensor in images]


@on_each_gpu
def test_an_epoch_entered_anywhere_is_the_tail_of_the_whole(folder, open_one, device):
    loader = open_one(folder, "dali", device=device)
    whole = kept(loader.epoch(5))
    for start in range(len(loader) + 1):
        tail = kept(loader.epoch(5, start))
        assert len(tail) == len(whole) - start
        assert all(np.array_equal(one, other) for one, other in zip(tail, whole[start:], strict=True))


@on_each_gpu
def test_padding_is_black(folder, open_one, device):
    loader = open_one(folder, "dali", order=Sequential(16), view=View(CenterCrop(28, 32), 32), device=device)
    *_, last = loader.epoch(0)
    assert last.num_valid == 5 and not last.images[5:].any() and last.images[:5].any()


@on_each_gpu
def test_leaving_early_again_and_again_holds_no_device_memory(folder, open_one, device):
    loader = open_one(folder, "dali", device=device)
    free = []
    for turn in range(12):
        batches = loader.epoch(turn)
        next(batches)
        batches.close()
        free.append(torch.cuda.mem_get_info()[0])
    assert free[2] - free[-1] < 64 << 20
