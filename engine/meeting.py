"""Where the ranks of one start meet: a room of the store that no earlier start has written in."""

import time
import uuid
from datetime import timedelta

import torch.distributed as torch_dist
from torch.distributed import PrefixStore, Store

_LOOK_EVERY_S = 0.05


def meet(timeout_s: float) -> Store:
    """The store by which the ranks that torchrun started together, and they alone, find each other.

    torchrun (2.15) starts ranks again with the store that the ranks before them used. In it they would find the
    addresses of the dead ones and call there until the time is up. So the main rank opens a room with a name of its
    own, and every other rank asks for that name by a word of its own, which nobody that is dead can have answered.

    Raises torch's DistStoreError where a rank does not come within `timeout_s`.
    """
    store, rank, world_size = next(torch_dist.rendezvous("env://", timeout=timedelta(seconds=timeout_s)))
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
