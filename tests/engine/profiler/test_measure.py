"""Turns of experiments: in order, whole batches, warm-up apart, everything that was opened closed again."""

import time
from contextlib import contextmanager

import pytest
import torch
from moved_clock import MovedClock
from short_runs import ONE_RANK

from engine.profiler import measure as measuring
from engine.profiler.measure import Counted, Experiment, Watch, measure
from loaders.api import Batch

IMAGES = 4


class Feed:
    """Counts what is taken of it, and what takes a while to come: of a clock, where there is one."""

    def __init__(self, name, log, seconds=0.0, clock=None):
        self.name, self.log, self.seconds, self.clock = name, log, seconds, clock
        self.asked, self.open = [], 0

    def __call__(self, number):
        self.asked.append(number)
        self.open += 1
        self.log.append(self.name)
        try:
            while True:
                if self.clock is None:
                    time.sleep(self.seconds)
                else:
                    self.clock.now += self.seconds
                yield Batch(torch.zeros(IMAGES, 3, 1, 1), torch.zeros(IMAGES), torch.zeros(IMAGES), IMAGES)
        finally:
            self.open -= 1


class Counting(Watch):
    def __init__(self, worked):
        self.worked, self.turns = worked, []

    def begin(self):
        self.before = len(self.worked)

    def end(self, seconds):
        self.turns.append((self.before, len(self.worked), seconds))


@pytest.fixture
def clock(monkeypatch):
    """What measuring takes for the time."""
    own = MovedClock()
    monkeypatch.setattr(measuring, "time", own)
    return own


def run(experiments, seconds=0.0, rounds=2, tell=lambda text: None):
    return measure(experiments, ONE_RANK, seconds, rounds, tell)


def test_what_takes_longer_than_was_wanted_is_said_before_the_rounds(clock):
    slow = Experiment("slow", "slow", Feed("slow", [], 30.0, clock), None, 1, every=2)
    said = []
    started = clock.now
    run([slow], seconds=60.0, rounds=3, tell=said.append)
    (text,) = [line for line in said if not line.startswith(("once", "round"))]
    assert said.index(text) == 1
    # 3 batches first, and then each round one that no clock sees and two
    assert (clock.now - started) / 60 == 6 and text.startswith("this takes about 6 minutes in place of 1: there are 3")
    said.clear()
    run([slow], seconds=600.0, rounds=3, tell=said.append)
    assert all(line.startswith(("once", "round")) for line in said)


def test_experiments_take_turns_and_all_is_closed():
    log = []
    feeds = [Feed("a", log), Feed("b", log)]
    rates = run([Experiment(feed.name, "", feed, None, 1) for feed in feeds], rounds=3)
    assert log == ["a", "b"] * 4  # the first of each is not counted
    assert [len(rates[name].rounds) for name in "ab"] == [3, 3]
    assert feeds[0].open == feeds[1].open == 0


def test_the_clock_sees_whole_batches_after_the_warm_up_and_nothing_else(clock):
    log, worked = [], []
    watch = Counting(worked)
    feed = Feed("a", log, 0.002, clock)
    rates = run([Experiment("a", "", feed, worked.append, 3, watch=watch)], seconds=0.3, rounds=2)
    taken = 3  # of the uncounted turn: its own warm-up of one, and two
    for (before, after, seconds), asked, rate in zip(watch.turns, feed.asked[1:], rates["a"].rounds, strict=True):
        assert before == taken + 3 and after - taken == asked
        assert rate == pytest.approx(IMAGES * (after - before) / seconds, rel=0.001)
        taken = after


def test_a_turn_takes_at_most_what_there_is_and_bursts_whole(clock):
    log, worked = [], []
    watch = Counting(worked)
    few = Experiment("few", "", Feed("few", log, 0.001, clock), worked.append, 3, most=5, watch=watch)
    run([few], seconds=0.2)
    assert [after - before for before, after, _ in watch.turns] == [2, 2]
    worked.clear()
    watch.turns.clear()
    run(
        [Experiment("burst", "", Feed("burst", log, 0.001, clock), worked.append, 1, every=4, watch=watch)], seconds=0.5
    )
    assert all((after - before) % 4 == 0 for before, after, _ in watch.turns)


def test_even_a_short_turn_takes_a_whole_burst_of_workers_that_make_a_batch_each(clock):
    """Two at once every 40 ms: a single one would seem to come at once, or take the time of two."""
    log, worked = [], []
    watch = Counting(worked)

    class InPairs(Feed):
        def __call__(self, number):
            for index, batch in enumerate(super().__call__(number)):
                clock.now += 0.04 if index % 2 == 0 else 1e-9
                yield batch

    pairs = Experiment("pairs", "", InPairs("pairs", log), worked.append, 5, every=2, watch=watch)
    rates = run([pairs], seconds=1e-6, rounds=4)
    assert [after - before for before, after, _ in watch.turns] == [2] * 4
    assert rates["pairs"].rounds == pytest.approx([2 * IMAGES / 0.04] * 4, rel=1e-6)
    # and a turn that may not take as many takes what it may
    worked.clear()
    watch.turns.clear()
    run([Experiment("few", "", Feed("few", log), worked.append, 1, most=5, every=8, watch=watch)])
    assert [after - before for before, after, _ in watch.turns] == [4, 4]


def test_of_bytes_that_come_for_many_batches_at_once_a_short_turn_sees_whole_bursts(clock):
    log, worked = [], []
    watch = Counting(worked)

    class InBursts(Feed):
        def __call__(self, number):
            for index, batch in enumerate(super().__call__(number)):
                clock.now += 0.04 if index % 8 == 0 else 1e-9
                yield batch

    bursts = Experiment("bursts", "", InBursts("bursts", log), worked.append, 8, every=8, least=8, watch=watch)
    rates = run([bursts], seconds=1e-6, rounds=3)
    assert [after - before for before, after, _ in watch.turns] == [8, 8, 8]
    assert rates["bursts"].median == pytest.approx(8 * IMAGES / 0.04, rel=1e-6)


def test_even_a_budget_that_is_used_up_measures_a_batch_of_each():
    log, worked = [], []
    watch = Counting(worked)
    run([Experiment("a", "", Feed("a", log, 0.01), worked.append, 5, watch=watch)], seconds=1e-6)
    assert [after - before for before, after, _ in watch.turns] == [1, 1]


def test_a_first_turn_that_was_handed_what_was_ready_does_not_promise_the_same_for_ever():
    """Two batches at once and then one in 20 ms: believing the first two, a turn would take thousands."""
    ready = [0, 0, 0]

    def batches(number):
        for _ in range(number):
            if ready:
                ready.pop()
            else:
                time.sleep(0.02)
            yield Batch(torch.zeros(1, 3, 1, 1), torch.zeros(1), torch.zeros(1), 1)

    started = time.perf_counter()
    run([Experiment("a", "", batches, None, 1)], seconds=0.4)
    assert time.perf_counter() - started < 10


def test_batches_of_each_turn_are_counted_without_those_no_clock_sees(clock):
    counted, feed = Counted(), Feed("a", [], 0.001, clock)
    run([Experiment("a", "", feed, None, 2, most=5, watch=counted)], seconds=0.1, rounds=3)
    assert counted.turns == [3, 3, 3] and feed.asked[1:] == [5, 5, 5]


def test_a_turn_runs_in_what_it_asks_for():
    inside = []

    @contextmanager
    def around():
        inside.append("in")
        yield
        inside.append("out")

    worked = []
    run([Experiment("a", "", Feed("a", []), lambda batch: worked.append(inside[-1]), 0, around=around)], rounds=1)
    assert set(worked) == {"in"} and inside == ["in", "out"] * 2


def test_a_feed_that_fails_fails_the_measuring_and_is_closed():
    feed = Feed("a", [])

    def fail(batch):
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        run([Experiment("a", "", feed, fail, 1)])
    assert feed.open == 0
