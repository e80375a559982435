"""Where a run's time went: by plain sums, and by a clock that the test moves."""

import pytest

from engine.profiler import meter as meter_module
from engine.profiler import time_book as book_module
from engine.profiler.meter import Meter
from engine.profiler.step_clock import NoClock, StageSpan
from engine.profiler.time_book import PARTS, TimeBook, TimeSpent
from loaders.stage_times import StageTimes

NOTHING_AROUND = {"warm-up": 0.0, "evaluation": 0.0, "checkpoint": 0.0}


def spent(**changes):
    """20 s, of which 16 in the loop: 4 without a batch, 10 in the step."""
    figures = {
        "wall_s": 20.0,
        "train_s": 16.0,
        "wait_s": 4.0,
        "first_batch_s": 1.0,
        "loader_s": {"read": 2.0, "decode": 6.0},
        "step_s": {"prepare": 1.0, "forward": 3.0, "backward": 5.0, "optimizer": 1.0},
        "around_s": {"warm-up": 0.0, "evaluation": 2.0, "checkpoint": 1.0},
    }
    return TimeSpent(**{**figures, **changes})


def test_shares_are_of_all_wall_time_and_waiting_is_shared_out_as_the_loaders_stages_took_time():
    shares = spent().shares()
    assert tuple(shares) == PARTS
    expected = {"read": 0.05, "decode": 0.15, "prepare": 0.05, "forward": 0.15, "backward": 0.25, "optimizer": 0.05}
    expected |= {"warm-up": 0.0, "evaluation": 0.1, "checkpoint": 0.05, "other": 0.15}
    seen = {part: share for part, share in shares.items() if share is not None}
    assert seen == pytest.approx(expected)
    assert sum(seen.values()) == pytest.approx(1)


def test_where_the_loader_shows_no_stages_waiting_stands_undivided():
    shares = spent(loader_s={}).shares()
    assert shares["data-wait"] == pytest.approx(0.2) and shares["decode"] is None
    assert sum(share for share in shares.values() if share is not None) == pytest.approx(1)


def test_waiting_that_the_stages_shown_cannot_have_taken_stands_undivided_beside_them():
    shares = spent(loader_s={"collate": 0.2}).shares()
    assert (shares["collate"], shares["data-wait"]) == pytest.approx((0.01, 0.19))
    assert sum(share for share in shares.values() if share is not None) == pytest.approx(1)
    assert spent(loader_s={"collate": 3.0}).shares()["data-wait"] is None  # handing over
    assert spent(loader_s={"decode": 0.2}, first_batch_s=3.5).shares()["data-wait"] is None  # starting workers


def test_waiting_while_a_gpu_computes_costs_nothing():
    # of 16 s it computed 15: at most 1 can have been lost, however long the host waited
    shares = spent(wait_s=12.0, step_s={"forward": 15.0}).shares()
    assert shares["read"] + shares["decode"] == pytest.approx(1 / 20)


def test_what_overlaps_beyond_the_wall_time_still_sums_to_one():
    shares = spent(wall_s=16.0, step_s={"forward": 16.0}).shares()
    assert shares["other"] == 0
    assert sum(share for share in shares.values() if share is not None) == pytest.approx(1)


def test_a_ranks_own_time_is_without_starting_and_without_waiting_for_the_others():
    assert spent().own_s == pytest.approx((4 - 1) + 1 + 3 + 1)


class _Moved:
    """A clock that the test moves, for both modules."""

    def __init__(self):
        self.now = 50.0

    def perf_counter(self):
        return self.now


class _Steps(NoClock):
    def __init__(self):
        self.forward_s = 7.0  # of whoever used it before

    def read(self):
        return {"forward": StageSpan(1, self.forward_s, (0.0, 0.0, 0.0))}


@pytest.fixture
def moved(monkeypatch):
    moved = _Moved()
    monkeypatch.setattr(meter_module, "time", moved)
    monkeypatch.setattr(book_module, "time", moved)
    return moved


class _Batch:
    num_valid = 8


def _train(moved, book, times, steps, num_batches):
    """Each batch: 2 s of waiting, in which two workers decode 3 s each, a step of 5 s, and a checkpoint of 1 s."""

    def batches():
        for _ in range(num_batches):
            moved.now += 2
            for number in (1, 2):
                times.writer(number).stage("decode").record(8, 3 * 10**9, None)
            yield _Batch()

    meter = Meter()
    with book.training(meter):
        for _ in meter.timed(batches()):
            moved.now += 5
            steps.forward_s += 5
            with book.around("checkpoint"):
                moved.now += 1
    return meter


def test_the_book_keeps_the_parts_apart(moved):
    times, steps = StageTimes(3), _Steps()
    book = TimeBook(lambda: steps, times)
    moved.now += 100  # building the rest of the run
    book.begin()
    _train(moved, book, times, steps, 3)
    with book.around("evaluation"):
        moved.now += 4
        times.writer(1).stage("decode").record(8, 10**10, None)  # read again for an average's statistics
    moved.now += 2
    assert book.read() == TimeSpent(
        3 * 8 + 6.0, 3 * 7.0, 6.0, 2.0, {"decode": 9.0}, {"forward": 15.0},
        {"warm-up": 0.0, "evaluation": 4.0, "checkpoint": 3.0},
    )  # fmt: skip


def test_laps_are_what_came_between(moved):
    times, steps = StageTimes(3), _Steps()
    book = TimeBook(lambda: steps, times)
    _train(moved, book, times, steps, 3)
    first = book.lap()
    with book.around("checkpoint"):
        moved.now += 1
    _train(moved, book, times, steps, 1)
    second = book.lap()
    assert (first.wall_s, first.wait_s, first.around_s["checkpoint"]) == (24, 6, 3)
    expected = TimeSpent(9.0, 7.0, 2.0, 2.0, {"decode": 3.0}, {"forward": 5.0}, {**NOTHING_AROUND, "checkpoint": 2.0})
    assert second == expected
    assert book.read().wall_s == 33


def test_a_block_that_ends_in_an_exception_counts(moved):
    book = TimeBook(NoClock, None)
    with pytest.raises(KeyboardInterrupt), book.around("evaluation"):
        moved.now += 3
        raise KeyboardInterrupt
    assert book.read().around_s["evaluation"] == 3
    assert book.loader_s() == {}


def test_what_ranks_need_by_themselves_adds_up():
    book = TimeBook(NoClock, None)
    book.note_ranks([1.0, 2.0])
    book.note_ranks([0.5, 4.0])
    assert book.of_ranks_s == [1.5, 6.0]
