"""Ranks meet in a store that earlier starts have written in, and only those that are alive."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch.distributed as torch_dist
from torch.distributed import HashStore

from engine.dist import is_lost_rank
from engine.meeting import enter_room, lost_machines_need, open_room


def _start(store, num_ranks):
    """All ranks of one start, each in a thread: what each reads that all of them wrote as torch's backends do."""
    everybody = threading.Barrier(num_ranks)

    def take_part(rank):
        room = open_room(store, num_ranks, 20) if rank == 0 else enter_room(store, rank, 20)
        stale = any(room.check([f"address/{other}"]) for other in range(num_ranks))
        everybody.wait(20)
        room.set(f"address/{rank}", str(rank))
        return stale, [room.get(f"address/{other}").decode() for other in range(num_ranks)]

    with ThreadPoolExecutor(num_ranks) as threads:
        return list(threads.map(take_part, range(num_ranks)))


@pytest.mark.parametrize("num_ranks", [1, 2, 5])
def test_each_start_meets_in_a_room_that_none_before_it_has_written_in(num_ranks):
    store = HashStore()
    everyone = [str(rank) for rank in range(num_ranks)]
    for _ in range(3):
        assert _start(store, num_ranks) == [(False, everyone)] * num_ranks


def test_a_rank_that_asked_and_died_before_it_entered_is_not_waited_for():
    """torchrun killed a start while it was meeting: of rank 1 stands a word that nobody will use any more."""
    store = HashStore()
    with pytest.raises(torch_dist.DistStoreError):
        enter_room(store, 1, 0.1)
    assert _start(store, 2) == [(False, ["0", "1"])] * 2


def test_a_rank_asks_its_own_main_rank_even_when_an_earlier_one_has_answered():
    store = HashStore()
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(enter_room, store, 1, 20)
        open_room(store, 2, 20).set("whose", "first")
        assert first.result().get("whose") == b"first"
        second = threads.submit(enter_room, store, 1, 20)  # before its main rank is there
        open_room(store, 2, 20).set("whose", "second")
        assert second.result().get("whose") == b"second"


def test_who_does_not_come_in_time_is_named_and_counts_as_lost():
    store = HashStore()
    with pytest.raises(torch_dist.DistStoreError, match="rank 1 did not come within 0 s") as no_other:
        open_room(store, 3, 0.2)
    with pytest.raises(torch_dist.DistStoreError, match="rank 0 did not come within 0 s") as no_main:
        enter_room(store, 2, 0.2)
    assert is_lost_rank(no_other.value) and is_lost_rank(no_main.value)


def test_several_machines_that_may_restart_are_told_what_torchrun_needs_for_it():
    shared = {"GROUP_WORLD_SIZE": "2", "TORCHELASTIC_MAX_RESTARTS": "3", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    assert "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1" in lost_machines_need(shared)
    for name, harmless in zip(shared, ("1", "0", "False"), strict=True):
        assert lost_machines_need({**shared, name: harmless}) is None
    assert lost_machines_need({}) is None
