"""Memory for the pixels of whole batches."""

import math

import torch

from .errors import LoaderError


def allocate(
    shape: tuple[int, ...], remedy: str, device: torch.device | None = None, pinned: bool = False
) -> torch.Tensor:
    """uint8 of that shape, holding anything. Raises LoaderError, a sentence that ends in `remedy`, without memory."""
    try:
        return torch.empty(shape, dtype=torch.uint8, device=device, pin_memory=pinned)
    except RuntimeError as error:  # also torch.OutOfMemoryError; the CPU's allocator raises nothing more precise
        if "memory" not in str(error).lower():
            raise
        where = "pinned memory" if pinned else "memory" if device is None else f"memory of device {device}"
        raise LoaderError(f"{math.prod(shape) / 1e9:.2f} GB of {where} cannot be had: {remedy}") from error


class Slabs:
    """Slabs of one batch each, kept from epoch to epoch while the size stays.

    num     how many are in use at a time;  pinned  whether a GPU copies from them
    """

    def __init__(self, num: int, pinned: bool) -> None:
        self._num = num
        self._pinned = pinned
        self._slabs: list[torch.Tensor] = []

    def of(self, num_rows: int, size_px: int) -> list[torch.Tensor]:
        """uint8 [num_rows, size_px, size_px, 3] each; those of another size are given up."""
        shape = (num_rows, size_px, size_px, 3)
        if not self._slabs or self._slabs[0].shape != shape:
            self._slabs.clear()  # gone before the new ones come, not after
            remedy = f"a batch of {num_rows} at {size_px} px takes that much, {self._num} times: use a smaller batch"
            self._slabs += [allocate(shape, remedy, pinned=self._pinned) for _ in range(self._num)]
        return self._slabs

    def clear(self) -> None:
        """Give all of them up."""
        self._slabs.clear()
