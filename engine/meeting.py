"""Where the ranks of one start meet: a room of the store that no earlier start has written in."""

import time
import uuid
from collections.abc import Mapping
from datetime import timedelta

import torch.distributed as torch_dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

_LOOK_EVERY_S = 0.05


def meet(timeout_s: float) -> Store:
    """The store by which the ranks that torchrun started together, and they alone, find each other.

    torchrun (2.15) starts ranks again with the store that the ranks before them used. In it they would find the
    addresses of the dead ones and call there until the time is up. So the main rank opens a room with a name of its
    own, and every other rank asks for that name by a word of its own, which nobody that is dead can have answered.

    Raises torch's DistStoreError where a rank does not come within `timeout_s`.
    """
    store, rank, world_size = next(rendezvous("env://", timeout=timedelta(seconds=timeout_s)))
    return open_room(store, world_size, timeout_s) if rank == 0 else enter_room(store, rank, timeout_s)


def open_room(store: Store, world_size: int, timeout_s: float) -> Store:
    """The main rank's part: answer whoever asks, dead or alive, until all the others have entered."""
    name = uuid.uuid4().hex
    room = PrefixStore(f"feedrate/room/{name}", store)
    missing, answered = set(range(1, world_size)), set()
    deadline = time.monotonic() + timeout_s
    while missing:
        for rank in sorted(missing):
            if room.check([_entered(rank)]):
                missing.discard(rank)
            elif store.check([_asks(rank)]):
                word = store.get(_asks(rank)).decode()
                if word not in answered:
                    store.set(_answer(word), name)
                    answered.add(word)
        if missing:
            _nap(deadline, f"rank {min(missing)} did not come within {timeout_s:.0f} s")
    return room


def enter_room(store: Store, rank: int, timeout_s: float) -> Store:
    """Every other rank's part: ask, and enter the room that is named."""
    word = uuid.uuid4().hex
    store.set(_asks(rank), word)
    deadline = time.monotonic() + timeout_s
    while not store.check([_answer(word)]):
        _nap(deadline, f"rank 0 did not come within {timeout_s:.0f} s")
    room = PrefixStore(f"feedrate/room/{store.get(_answer(word)).decode()}", store)
    room.set(_entered(rank), "1")
    return room


def lost_machines_need(environment: Mapping[str, str]) -> str | None:
    """What torchrun was started without and needs to take a lost machine back; None where nothing is missing.

    While it shares its own store with the ranks (torch 2.15), where that store is is said in its first round alone: a
    launcher that comes in a later one waits 60 s for the word and ends, and then the others end too.
    """
    several_machines = int(environment.get("GROUP_WORLD_SIZE", "1")) > 1
    may_restart = int(environment.get("TORCHELASTIC_MAX_RESTARTS", "0")) > 0
    if not (several_machines and may_restart and environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"):
        return None
    return (
        "a machine that is lost could not come back: torchrun needs TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its"
        " environment for that, on every machine"
    )


def _nap(deadline: float, or_else: str) -> None:
    """In Python, not in the store's own waiting: so a signal is heard at once."""
    if time.monotonic() > deadline:
        raise torch_dist.DistStoreError(or_else)
    time.sleep(_LOOK_EVERY_S)


def _asks(rank: int) -> str:
    return f"feedrate/asks/{rank}"


def _answer(word: str) -> str:
    return f"feedrate/answer/{word}"


def _entered(rank: int) -> str:
    return f"entered/{rank}"
