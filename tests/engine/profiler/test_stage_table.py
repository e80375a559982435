"""A rank's record from turns of the loop as they might have been seen."""

import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from engine.profiler.family import Used
from engine.profiler.loop_watch import WatchedTurn
from engine.profiler.record import ROWS, STAGES, ProcessRecord
from engine.profiler.stage_table import IN_WORKERS, Setting, rank_record, stages_in_workers
from engine.profiler.step_clock import StageSpan
from loaders.stage_times import StageReading

CPU = Setting(0, 1, torch.device("cpu"), workers=2, depth=3, images=10)
GPU = replace(CPU, device=torch.device("cuda", 0))
USED = Used(1.0, 1.6, 10**9, None, 5_000_000, 300, None, None, ())


def reading(count, wall_s, cpu_s):
    return StageReading(count, wall_s, count, cpu_s, (0,) * 100 + (count,) + (0,) * 155)


def turn(seconds=1.0, waits_s=(0.3, 0.0), ready=(0, 3), first=(0.5,), **stages):
    """100 images in 10 steps: a second, in which 0.3 s passed waiting and 0.6 s computing."""
    loader = {"read": reading(100, 0.2, 0.02), "decode": reading(100, 0.9, 0.8), "collate": reading(100, 0.01, 0.01)}
    step = {name: StageSpan(10, wall_s, (wall_s / 10,) * 3) for name, wall_s in (("forward", 0.2), ("backward", 0.4))}
    return WatchedTurn(seconds, 100, None, first, waits_s, ready, loader, {**step, **stages}, USED)


def record(*turns, setting=CPU, alone=(), cold=()):
    return rank_record(setting, turns, alone, cold)


@pytest.fixture
def gpu(monkeypatch):
    """What torch tells of a GPU's memory now."""
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 2 * 10**9)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 5 * 10**9)


def test_shares_are_of_the_whole_loop_and_waiting_is_split_by_what_loading_costs():
    rank = record(turn(), turn())
    assert [stage.name for stage in rank.stages] == list(STAGES)
    shares = {stage.name: stage.critical_share for stage in rank.stages}
    assert sum(share or 0 for share in shares.values()) == pytest.approx(1)
    assert (shares["forward"], shares["backward"], shares["other"]) == pytest.approx((0.2, 0.4, 0.1))
    # an image costs 1 and 4.5 ms of two workers, and 0.1 of the loop's thread
    assert shares["decode"] / shares["read"] == pytest.approx(4.5)
    assert shares["decode"] / shares["collate"] == pytest.approx(45)
    assert shares["read"] + shares["decode"] + shares["collate"] == pytest.approx(0.3)


def test_times_are_of_an_image_and_ceilings_at_the_workers_there_are():
    rank = record(turn(), turn())
    decode, forward = rank.stage("decode"), rank.stage("forward")
    assert (decode.wall_us, decode.cpu_us, decode.ceiling) == pytest.approx((9000, 8000, 2 * 1e6 / 9000))
    assert (forward.wall_us, forward.p50_us, forward.ceiling) == pytest.approx((2000, 2000, 500))
    assert decode.rounds_us == pytest.approx((9000, 9000)) and decode.where == "worker"
    # 1.6 s of processor time for 100 images, 8.3 ms each in the loader; what is left is the step's, 1 to 2
    assert forward.cpu_us == pytest.approx((16_000 - 8_300) / 3)


def test_what_was_not_seen_is_none_with_a_reason_and_never_0():
    for stage in record(turn()).stages:
        if stage.name not in ("read", "decode", "collate", "forward", "backward", "other"):
            assert (stage.wall_us, stage.ceiling, stage.critical_share) == (None, None, None)
            assert stage.note


def test_waiting_for_a_loader_that_shows_nothing_is_other_and_said():
    rank = record(replace(turn(), loader={}))
    other = rank.stage("other")
    assert other.critical_share == pytest.approx(0.4) and "shows no stages" in other.note
    assert rank.stage("forward").cpu_us is None  # the loader's processor time cannot be taken off


def test_waiting_that_the_stages_shown_cannot_have_taken_is_no_stages():
    """A loader that sleeps for what it does not show, and notes how it assembles a batch."""
    hidden = replace(turn(), loader={"collate": reading(100, 0.01, 0.01)}, seen_s={"collate": 0.01})
    rank = record(hidden, hidden)
    unseen, collate = rank.stage("unseen"), rank.stage("collate")
    assert (unseen.critical_share, collate.critical_share) == pytest.approx((0.29, 0.01))
    assert unseen.wall_us is None and "(collate)" in unseen.note
    assert [stage.name for stage in rank.stages] == list(ROWS)
    assert sum(stage.critical_share or 0 for stage in rank.stages) == pytest.approx(1)
    assert rank.stage("forward").cpu_us is None  # the loader's processor time cannot be taken off
    assert rank.seen_us == pytest.approx(100)
    # such as a worker that was ahead, and read only half of the images while the clock ran
    ahead = {"read": reading(50, 0.2, 0.1), "collate": reading(100, 0.01, 0.01)}
    assert record(replace(turn(), loader=ahead, seen_s={"read": 0.1, "collate": 0.01})).seen_us == pytest.approx(2100)
    # epochs that start within the turn: what their first batches wait for is workers that start
    assert record(replace(hidden, first_batches_s=(0.5, 0.28))).stage("unseen") is None
    # two workers at 1.11 s each of 2 make all that is waited for: nothing is unseen, whatever else they do
    assert record(replace(turn(), seen_s={"read": 0.1, "decode": 0.45, "collate": 0.01})).stage("unseen") is None


def test_quantiles_of_what_happens_once_for_several_batches_are_of_an_image_of_all_of_them():
    """Where five batches make an update there are two in ten."""
    rank = record(turn(optimizer=StageSpan(2, 0.02, (0.01, 0.01, 0.02))))
    optimizer = rank.stage("optimizer")
    assert (optimizer.wall_us, optimizer.p50_us, optimizer.p99_us) == pytest.approx((200, 200, 400))


def test_on_a_gpu_waiting_that_hides_behind_computing_costs_nothing(gpu):
    """The host runs ahead: it stands still for data while the device works."""
    busy = replace(turn(), step={"forward": StageSpan(10, 0.9, (0.09,) * 3)})
    rank = record(busy, setting=GPU)
    shares = {stage.name: stage.critical_share or 0 for stage in rank.stages}
    assert shares["forward"] == pytest.approx(0.9) and sum(shares.values()) == pytest.approx(1)
    assert shares["read"] + shares["decode"] + shares["collate"] == pytest.approx(0.1)
    assert rank.data_wait_share == pytest.approx(0.1) and rank.queue.get_block_share == pytest.approx(0.1)
    assert rank.queue.get_block_p50_ms == pytest.approx(150)  # a wait of the host is as long as it is
    assert record(turn()).data_wait_share == pytest.approx(0.3)


def test_copying_is_in_the_device_and_no_part_of_what_it_computes(gpu):
    copying = {"copy": reading(100, 0.05, 0.001)}
    rank = record(replace(turn(), loader=copying, copied_bytes=50 * 10**6), setting=GPU)
    assert rank.stage("copy").where == "device" and rank.stage("copy").critical_share == pytest.approx(0.3)
    assert rank.resources.copy_mb_per_s == pytest.approx(50)
    assert rank.resources.device_busy_share == pytest.approx(0.6)
    other_pixels = record(replace(turn(), loader=copying), setting=GPU)
    assert other_pixels.resources.copy_mb_per_s is None
    assert other_pixels.stage("copy").wall_us == pytest.approx(500) and "rectangles" in other_pixels.stage("copy").note


def test_the_peak_of_a_gpus_memory_is_that_of_the_loops_turns(gpu):
    rank = record(*(replace(turn(), peak_bytes=peak) for peak in (3 * 10**9, 4 * 10**9)), setting=GPU)
    assert rank.resources.gpu_memory_peak_bytes == 4 * 10**9


def test_the_exchange_is_what_the_loop_takes_longer_with_it():
    two = replace(CPU, world_size=2)
    rank = record(turn(seconds=2.0), setting=two, alone=(turn(), turn()))
    sync = rank.stage("sync")
    assert (rank.own_us, sync.wall_us, sync.critical_share) == pytest.approx((10_000, 10_000, 0.5))
    assert sum(stage.critical_share or 0 for stage in rank.stages) == pytest.approx(1)
    assert rank.own_rounds_us == pytest.approx((10_000, 10_000))
    assert record(turn()).stage("sync").wall_us is None


@pytest.mark.parametrize(("device", "where"), [("cpu", "loop"), ("cuda", "device")])
def test_cutting_that_no_worker_does_is_not_shared_among_them(device, where):
    """As in loader `resident`: on a GPU its one stream does it, else the loop's thread."""
    cutting = turn()
    cutting.loader["augment"] = reading(100, 0.4, 0.1)
    setting = replace(CPU, device=torch.device(device), in_workers=IN_WORKERS - {"augment"})
    stage = record(cutting, setting=setting).stage("augment")
    assert (stage.where, stage.ceiling) == (where, pytest.approx(250))
    shared = record(cutting, setting=replace(setting, in_workers=IN_WORKERS)).stage("augment")
    assert (shared.where, shared.ceiling) == ("worker", pytest.approx(500))


@pytest.mark.parametrize(
    ("told", "does"),
    [
        ({}, {"read", "decode", "augment"}),
        ({"augments_in_workers": False}, {"read", "decode"}),
        ({"collates_in_workers": True}, {"read", "decode", "augment", "collate"}),
        ({"augments_in_workers": False, "collates_in_workers": True}, {"read", "decode", "collate"}),
    ],
)
def test_a_loader_tells_what_its_workers_do(told, does):
    assert stages_in_workers(SimpleNamespace(**told)) == does


def test_the_queue_tells_how_often_it_was_empty_and_full():
    queue = record(turn(first=(0.4, 0.6)), turn(ready=(3, 3), waits_s=(0.0, 0.1))).queue
    assert queue.ready == (0, 3, 3, 3)
    assert (queue.mean_ready, queue.empty_share, queue.full_share) == (2.25, 0.25, 0.75)
    assert queue.get_block_share == pytest.approx(0.2)
    # a batch of 10 images at 11 ms in two workers takes 55 ms
    assert (queue.first_batch_s, queue.worker_start_s) == pytest.approx((0.5, 0.445))
    # where workers make whole batches one alone makes the first, which takes 111 ms with assembling it
    whole = record(turn(), setting=replace(CPU, in_workers=IN_WORKERS | {"collate"})).queue
    assert whole.worker_start_s == pytest.approx(0.389)
    # an image takes the loop 10 ms, and two workers 11 ms of the 20 that they have for it
    assert queue.put_block_share == pytest.approx(0.45)
    further = record(turn(ready=(4, 3))).queue  # such as a batch a worker, where that is more than was asked for
    assert (further.depth, further.full_share) == (4, 0.5)
    unseen = record(turn(ready=(None, None))).queue
    assert (unseen.ready, unseen.mean_ready, unseen.empty_share) == (None, None, None) and unseen.note


def test_where_the_making_of_pixels_is_not_seen_nobody_can_tell_how_long_workers_start_or_are_idle():
    opaque = turn()
    del opaque.loader["decode"]
    queue = record(opaque).queue
    assert queue.first_batch_s == 0.5 and (queue.worker_start_s, queue.put_block_share) == (None, None)


def test_the_first_batches_are_of_the_loop_and_not_seen_where_no_turn_began_an_epoch():
    unseen = record(turn(first=())).queue
    assert (unseen.first_batch_s, unseen.worker_start_s) == (None, None)
    alone = record(turn(first=(9.0,)), setting=replace(CPU, world_size=2), alone=(turn(),))
    assert alone.queue.first_batch_s == 0.5


def test_the_ranks_own_process_stands_first_however_busy_its_workers_are():
    pids = (os.getpid() + 1, os.getpid(), os.getpid() + 2)
    busiest_first = tuple(ProcessRecord(pid, "python", 1.0, 10**9, None, None, None, None) for pid in pids)
    used = replace(USED, processes=busiest_first)
    processes = record(replace(turn(), used=used)).resources.processes
    assert [process.pid for process in processes] == [pids[1], pids[0], pids[2]]


def test_resources_are_a_second_and_none_where_they_were_not_read():
    used = record(turn(), cold=(turn(seconds=1.0),)).resources
    assert (used.cpus_used, used.read_mb_per_s, used.reads_per_s, used.cold_read_mb_per_s) == pytest.approx(
        (1.6, 5, 300, 5)
    )
    assert (used.copy_mb_per_s, used.gpu_share, used.gpu_memory_peak_bytes) == (None, None, None)
    unread = record(replace(turn(), used=replace(USED, read_bytes=None, reads=None))).resources
    assert (unread.read_mb_per_s, unread.reads_per_s, unread.cold_read_mb_per_s) == (None, None, None)
