"""What each loader shows of its stages: counted for every image, obeying delays, and changing no pixel."""

import pytest
import torch
from stored_samples import LOADERS, for_each

from loaders.api import num_ready
from loaders.errors import FeedrateError
from loaders.stage_times import Delay, StageTimes

NUM_WORKERS = 2
NUM_IMAGES = 32  # of an epoch: 4 batches of 8 out of 37 samples

every_loader = for_each(LOADERS)


def drained(loader, epoch=0):
    return [(batch.images.clone(), batch.ids.clone()) for batch in loader.epoch(epoch)]


@pytest.fixture
def times():
    return StageTimes(NUM_WORKERS + 1)


@every_loader
def test_noting_what_stages_take_changes_no_pixel(samples, name, resize, times, open_one):
    untimed = drained(open_one(samples, name, resize))
    timed = drained(open_one(samples, name, resize, stage_times=times))
    for (images, ids), (timed_images, timed_ids) in zip(untimed, timed, strict=True):
        assert torch.equal(images, timed_images) and torch.equal(ids, timed_ids)


@every_loader
def test_every_loader_shows_the_assembling_of_batches_in_its_callers_thread(samples, name, resize, times, open_one):
    times.delay("collate", Delay("sleep", 0.003))
    drained(open_one(samples, name, resize, stage_times=times))
    reading = times.read()["collate"]
    assert reading.count == NUM_IMAGES and reading.wall_s >= NUM_IMAGES * 0.003
    assert reading.cpu_s < NUM_IMAGES * 0.003


@every_loader
def test_too_few_rows_are_refused_before_anything_starts(samples, name, resize, open_one):
    with pytest.raises(FeedrateError, match="2 rows are too small for 2 workers"):
        open_one(samples, name, resize, stage_times=StageTimes(2))


def test_a_loader_of_your_own_need_not_count_what_is_ready():
    class Own:
        pass

    assert num_ready(Own()) is None
