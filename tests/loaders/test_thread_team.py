"""Threads work ahead so far and no further, and hand jobs out in order."""

import gc
import sys
import threading
import time

import numpy as np
import pytest

from loaders.plan import PlanRows
from loaders.thread_team import ThreadTeam


def rows_of(job: int) -> PlanRows:
    return PlanRows(np.full(10, job), np.zeros((10, 4), np.int32), np.zeros(10, np.bool_), 32, (0, 0, 0))


def test_jobs_come_whole_in_order_and_no_further_ahead_than_allowed():
    rows_done = dict.fromkeys(range(12), 0)
    lock = threading.Lock()

    def worker(rows, part):
        assert rows.ids[0] == part.job
        with lock:
            rows_done[part.job] += part.stop - part.start

    with ThreadTeam(rows_of, lambda _: worker, 12, depth=3, chunk=3, num_threads=4) as team:
        for job in range(12):
            assert team.finished(job).ids[0] == job and rows_done[job] == 10
            time.sleep(0.02)
            assert not any(rows_done[later] for later in range(job + 3, 12))
            team.give_back(job)
    assert all(done == 10 for done in rows_done.values())


def test_leaving_early_ends_all_threads_though_they_wait_or_work():
    def worker(rows, part):
        time.sleep(0.01)

    before = threading.active_count()
    with pytest.raises(KeyError), ThreadTeam(rows_of, lambda _: worker, 100, 3, 1, 8) as team:
        team.finished(0)
        raise KeyError
    assert threading.active_count() == before


def test_a_plan_that_fails_is_an_error_for_the_consumer():
    def broken(job):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), ThreadTeam(broken, lambda _: lambda rows, part: None, 3, 2, 4, 2) as team:
        team.finished(0)


@pytest.mark.parametrize("where", ["planning", "working"])
def test_the_collector_may_end_a_forgotten_epoch_in_one_of_its_own_threads(where, monkeypatch):
    """It runs in any thread, and an epoch may be forgotten in a cycle, as the traceback of an error is."""
    teams, problems = [], []
    monkeypatch.setattr(sys, "unraisablehook", problems.append)

    def planned(job):
        if job == 3 and where == "planning":  # under the team's lock
            gc.collect()
        return rows_of(job)

    def worker(rows, part):
        if part.job == 3 and where == "working":
            gc.collect()

    def epoch():
        with ThreadTeam(planned, lambda _: worker, 100, 3, 10, 3) as team:
            teams.append(team)
            yield team.finished(0)

    before = threading.active_count()
    gc.disable()
    try:
        batches = epoch()
        next(batches)
        cycle = [batches]
        cycle.append(cycle)
        del batches, cycle
        threading.Thread(target=teams[0].give_back, args=(0,), daemon=True).start()  # job 3 may begin
        until = time.monotonic() + 60
        while threading.active_count() > before and time.monotonic() < until:
            time.sleep(0.01)
    finally:
        gc.enable()
    assert threading.active_count() == before and not problems
