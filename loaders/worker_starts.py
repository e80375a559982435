"""Starting torch's worker processes: whether all came to life, and what is done where one could not be started."""

import time
import traceback
from collections.abc import Sequence
from multiprocessing.process import BaseProcess

from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from .worker_board import Board

_LOOK_FOR_LIFE_S = 0.001


def came_to_life(workers: Sequence[BaseProcess], board: Board, patience_s: float) -> bool:
    """Whether all of them run, or did so before they died, within that time."""
    deadline_s = time.monotonic() + patience_s
    while not all(board.is_born(number) or worker.exitcode is not None for number, worker in enumerate(workers)):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_LOOK_FOR_LIFE_S)
    return True


def end_half_begun(error: OSError) -> None:
    """End the workers that ran when another could not be started, and have torch's half-made iterator say nothing."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        half = frame.f_locals.get("self")
        if isinstance(half, _MultiProcessingDataLoaderIter):
            for worker in getattr(half, "_workers", ()):
                worker.kill()
                worker.join()
            half._shutdown = True
