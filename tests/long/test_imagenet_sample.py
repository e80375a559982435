"""500 real ImageNet files: every loader delivers each of them, at any batch size on any number of ranks."""

import numpy as np
import pytest
import torch

from loaders.api import LoaderOptions
from loaders.choose import open_loader
from loaders.crops import CenterCrop
from loaders.plan import Plan, Sequential, Shard, View
from loaders.records import open_records

NUM_SAMPLES = 500
VIEW = View(CenterCrop(224, 256), 224)


@pytest.fixture(scope="module")
def packed(packed_from):
    return packed_from("imagenet-sample-500.tar", "imagenet")


@pytest.mark.parametrize("loader", ["torchvision", "turbo", "synthetic"])
@pytest.mark.parametrize(("batch_size", "num_ranks"), [(1, 1), (7, 3), (64, 1), (64, 5), (200, 2), (512, 1), (512, 8)])
def test_every_image_is_evaluated_exactly_once(packed, measured, loader, batch_size, num_ranks):
    records = open_records(packed, "train")
    plan = Plan(records.widths, records.heights, Sequential(batch_size), VIEW)
    seen, lengths = [], set()
    for rank in range(num_ranks):
        options = LoaderOptions(shard=Shard(rank, num_ranks), num_workers=2)
        with_loader = open_loader(loader, records, plan, options)
        lengths.add(len(with_loader))
        for batch in with_loader.epoch(0):
            assert batch.images.shape == (batch_size, 3, 224, 224)
            seen += batch.ids[: batch.num_valid].tolist()
        with_loader.close()
    assert len(lengths) == 1
    assert sorted(seen) == list(range(NUM_SAMPLES))
    measured["num_evaluated"] = len(seen)


def test_loaders_agree_on_real_photos(packed, measured):
    records = open_records(packed, "train")
    plan = Plan(records.widths, records.heights, Sequential(50), VIEW)
    pixels = {}
    for name, resize in (("torchvision", "exact"), ("turbo", "exact"), ("turbo", "area")):
        loader = open_loader(name, records, plan, LoaderOptions(num_workers=2, resize=resize))
        pixels[name, resize] = torch.cat([batch.images.clone() for batch in loader.epoch(0)]).numpy().astype(np.int16)
        loader.close()
    reference = pixels["torchvision", "exact"]
    assert np.array_equal(reference, pixels["turbo", "exact"])
    difference = np.abs(reference - pixels["turbo", "area"])
    measured["area against exact"] = {"mean": round(float(difference.mean()), 3), "max": int(difference.max())}
    assert difference.mean() < 2.0
