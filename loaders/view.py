"""How one stored sample becomes one image: its crop, its size, its flip."""

from dataclasses import dataclass

from .crops import MAX_SIDE_PX, CenterCrop, Crop
from .errors import FeedrateError, whole_number


@dataclass(frozen=True)
class View:
    """How one stored sample becomes one image.

    `size_px` is the side of the square output, or a schedule of (first epoch, side) pairs, the first at epoch 0.
    `fill` is the value, per channel, of what a rectangle covers beyond the sample's border.
    With `flip_alternates` a sample is flipped in every other epoch, and `flip_probability` is that of its first.
    """

    crop: Crop = CenterCrop()
    size_px: int | tuple[tuple[int, int], ...] = 224
    flip_probability: float = 0.0
    fill: tuple[int, int, int] = (0, 0, 0)
    flip_alternates: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.size_px, tuple | list):
            object.__setattr__(self, "size_px", whole_number("size_px", self.size_px))
        elif not all(isinstance(step, tuple | list) and len(step) == 2 for step in self.size_px):
            raise FeedrateError(
                f"size {self.size_px} must be one side, since images are squares, or pairs (first epoch, side)"
            )
        steps = self._schedule()
        starts = [start for start, _ in steps]
        if not steps or starts[0] != 0 or starts != sorted(set(starts)):
            raise FeedrateError(f"size schedule {self.size_px} must start at epoch 0 and go up")
        if any(not 0 < size <= MAX_SIDE_PX for _, size in steps):
            raise FeedrateError(f"size {self.size_px} must be 1 … {MAX_SIDE_PX} px")
        if not 0 <= self.flip_probability <= 1:
            raise FeedrateError(f"flip probability {self.flip_probability} must lie between 0 and 1")
        if len(self.fill) != 3 or any(not 0 <= value <= 255 for value in self.fill):
            raise FeedrateError(f"fill {self.fill} must be three values of 0 … 255")

    def size_at(self, epoch: int) -> int:
        """Side of the output in pixels in this epoch."""
        return [size for start, size in self._schedule() if start <= epoch][-1]

    def _schedule(self) -> tuple[tuple[int, int], ...]:
        return ((0, self.size_px),) if isinstance(self.size_px, int) else self.size_px


def size_ramp(min_px: int, max_px: int, first_epoch: int, last_epoch: int) -> tuple[tuple[int, int], ...]:
    """Progressive resizing as FFCV's training script has it, as a schedule of (first epoch, side) pairs.

    `min_px` up to epoch `first_epoch`, `max_px` from `last_epoch` on, in a straight line between, rounded to the
    nearest multiple of 32 px (halves to the even one). Epochs count from 0.
    """
    if not 0 <= first_epoch < last_epoch:
        raise FeedrateError(f"a ramp from epoch {first_epoch} to {last_epoch} must begin at 0 or later and then go on")
    if not 32 <= min_px <= max_px or min_px % 32 or max_px % 32:
        raise FeedrateError(f"a ramp from {min_px} to {max_px} px must go up between multiples of 32")
    span = last_epoch - first_epoch
    steps = [(0, min_px)]
    for epoch in range(first_epoch + 1, last_epoch + 1):
        # Fraction-free: (min + rise × share) / 32, with halves to even as Python's and NumPy's round have it
        whole, rest = divmod(min_px * span + (max_px - min_px) * (epoch - first_epoch), 32 * span)
        side = 32 * (whole + (2 * rest > 32 * span or (2 * rest == 32 * span and whole % 2)))
        if side != steps[-1][1]:
            steps.append((epoch, side))
    return tuple(steps)
