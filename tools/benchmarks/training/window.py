"""A window of time in the middle of training, the same for every loop: between the ends of two steps."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

_WARM_BATCHES = 2

T = TypeVar("T")


class WindowOver(Exception):
    """Raised where a loop asks for a batch and the window has closed: ends the loop, whatever it is."""


class Window:
    """Stands between a loop and its batches, and measures from one time that the loop asks for a batch to another.

    A loop asks when it is done with the batch before, so everything it does is within: waiting, step, and logging. The
    window opens `warm_s` after the first two batches, by which a GPU's kernels are chosen, and lasts for at least
    `seconds`. Both its ends are after a multiple of `group` batches, because worker processes deliver in groups; on a
    GPU both wait until it is done.

    Of several windows each begins where the one before ended: `each` has the seconds an image of every one, `figures`
    those of all.
    """

    def __init__(
        self,
        warm_s: float,
        seconds: float,
        group: int,
        device: torch.device,
        clock: Callable[[], float] = time.perf_counter,
        num_windows: int = 1,
    ) -> None:
        self._warm_s, self._seconds, self._group = warm_s, seconds, group
        self._device, self._clock = device, clock
        self._begun_s: float | None = None
        self._opened_s: float | None = None
        self._num_batches = self._num_images = self._num_images_before = 0
        self._num_windows = num_windows
        self._wall_s_before = 0.0
        self.each: list[float] = []
        self.figures: dict[str, float] = {}

    def over(self, batches: Iterable[T], num_images: Callable[[T], int]) -> Iterator[T]:
        """The batches, and WindowOver in place of the one after the window. May be called again for another epoch."""
        for batch in batches:
            yield batch
            self._trained_on(num_images(batch))

    def _trained_on(self, num_images: int) -> None:
        self._num_batches += 1
        self._num_images += num_images
        if self._begun_s is None and self._num_batches >= _WARM_BATCHES:
            self._finish()
            self._begun_s = self._clock()
        if self._num_batches % self._group:
            return
        if self._opened_s is None:
            if self._begun_s is not None and self._clock() - self._begun_s >= self._warm_s:
                self._finish()
                self._opened_s, self._num_batches, self._num_images = self._clock(), 0, 0
        elif self._clock() - self._opened_s >= self._seconds:
            self._finish()
            self._close(self._clock())

    def _close(self, now_s: float) -> None:
        """End a window: begin the next at once, or raise WindowOver."""
        assert self._opened_s is not None
        wall_s = now_s - self._opened_s
        self.each.append(wall_s / self._num_images)
        self._wall_s_before += wall_s
        self._num_images_before += self._num_images
        self._opened_s, self._num_batches, self._num_images = now_s, 0, 0
        if len(self.each) == self._num_windows:
            self.figures = {
                "num_images": self._num_images_before,
                "wall_s": self._wall_s_before,
                "s_per_image": self._wall_s_before / self._num_images_before,
            }
            raise WindowOver

    def _finish(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
