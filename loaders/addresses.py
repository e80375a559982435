"""Where samples' bytes lie in memory, of many at once.

Asking for one after the other takes microseconds of Python each, under the lock that all threads share: of small images
more than making them takes, and no more with many processors than with one.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

# what keeps the bytes where they are, while it is held; the first byte's address of each sample, and how many there are
Addresses = tuple[list[NDArray[np.uint8]], NDArray[np.int64], NDArray[np.int64]]
AddressesOf = Callable[[NDArray[np.int64]], Addresses]


def addresses_of(stored: object, one_by_one: str = "read") -> AddressesOf | None:
    """`stored.addresses`, from sample numbers int64 [n] to `Addresses` of them; None where each must be asked for.

    stored      records, or something else with a method called `one_by_one` that gives the bytes of one sample

    None, too, where another such method was put over the one that stands beside `addresses`: it may do more.
    """
    owner = next((kind for kind in type(stored).__mro__ if one_by_one in vars(kind)), object)
    if "addresses" not in vars(owner) or one_by_one in getattr(stored, "__dict__", ()):
        return None
    found: AddressesOf = stored.addresses  # type: ignore[attr-defined]
    return found


def address_of(data: NDArray[np.uint8]) -> int:
    """Where an array's bytes begin: `ctypes.data`, sooner."""
    address: int = data.__array_interface__["data"][0]
    return address


def lying_in(memory: NDArray[np.uint8], positions: NDArray[np.int64], sizes: NDArray[np.int64]) -> Addresses:
    """Of what lies at these places in `memory`, which has them all."""
    return [memory], positions + address_of(memory), sizes
