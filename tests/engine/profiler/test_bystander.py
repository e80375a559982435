"""What other programs used: of counters that the test moves."""

import pytest
import torch
from moved_clock import MovedClock
from short_runs import ONE_RANK, short_config

from engine.dist import Ranks
from engine.profiler import bystander as module
from engine.profiler import session
from engine.profiler.bystander import Bystander
from engine.profiler.measure import Budget


@pytest.fixture
def machine(monkeypatch):
    """Two processors, which this program may use; `used` by all and by itself, in seconds."""
    clock = MovedClock()
    clock.busy_s, clock.own_s = 100.0, 10.0
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(module, "_busy_s", lambda: clock.busy_s)
    monkeypatch.setattr(module, "_own_s", lambda: clock.own_s)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(module, "available_cpus", lambda: 8)
    return clock


def test_others_used_what_this_program_did_not(machine):
    looked = Bystander(ONE_RANK)
    machine.now += 10
    machine.busy_s += 33
    machine.own_s += 20
    assert looked.others_cpus() == looked.taken_cpus() == pytest.approx(1.3)
    machine.own_s += 100  # counters of both are not read at the same moment
    assert looked.others_cpus() == 0


def test_what_others_use_beside_a_control_groups_share_is_not_taken_from_it(machine, monkeypatch):
    monkeypatch.setattr(module, "available_cpus", lambda: 2)
    looked = Bystander(ONE_RANK)
    machine.now += 10
    machine.busy_s += 50
    assert (looked.others_cpus(), looked.taken_cpus()) == (5, 0)
    machine.busy_s += 20
    assert looked.taken_cpus() == pytest.approx(1)


def test_where_counters_cannot_be_read_it_is_not_0(machine, monkeypatch):
    monkeypatch.setattr(module, "_busy_s", lambda: None)
    looked = Bystander(ONE_RANK)
    assert (looked.others_cpus(), looked.taken_cpus()) == (None, None)


class _TwoMachines(Ranks):
    """The other rank sits elsewhere, where others use half a processor."""

    def gather(self, value):
        return [value, ("elsewhere", 7.0) if isinstance(value, tuple) else 0.5]


def test_each_machine_counts_its_own_ranks_and_the_busiest_is_told(machine):
    looked = Bystander(_TwoMachines(0, 2, 0, 1, torch.device("cpu")))
    machine.now += 10
    machine.busy_s += 33
    machine.own_s += 20
    assert looked.others_cpus() == pytest.approx(1.3)
    machine.own_s += 13
    assert looked.others_cpus() == 0.5


def test_a_profile_tells_what_others_used_while_it_measured(image_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Bystander, "taken_cpus", lambda self: 64.0)
    threads = torch.get_num_threads()
    told = session.profile(short_config(image_folder, tmp_path), ONE_RANK, Budget(0.01, 1), {}, lambda text: None)
    torch.set_num_threads(threads)
    assert told.others_cpus == 64 and "Uncertain: other programs used 64.0 of" in told.verdict.sentence
    assert told.verdict.confidence == 0
