"""How a stored file that is not what it should be is refused: one sentence, naming the first sample that is wrong."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import FeedrateError

PACK_AGAIN = "pack the data set again (python tools/convert.py)"


def one_line(error: Exception) -> str:
    """What another library says, fit to stand inside a sentence."""
    return " ".join(str(error).split()) or type(error).__name__


def refuse_samples(wrong: NDArray[np.bool_], path: Path, complaint: str) -> None:
    """Raise FeedrateError about the first sample marked in `wrong`, bool [N], if any is."""
    if wrong.any():
        first, num = int(wrong.argmax()), int(np.count_nonzero(wrong))
        raise FeedrateError(f"{path}: sample {first} {complaint} ({num:,} such): it is damaged, {PACK_AGAIN}")
