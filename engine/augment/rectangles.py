"""Rectangles within images: which pixels they cover."""

import numpy as np
import torch
from numpy.typing import NDArray

from .draws import on_device


def inside(boxes: NDArray[np.int64], height: int, width: int, device: torch.device) -> torch.Tensor:
    """bool [B, 1, H, W] for int64 [B, 4] boxes (top, left, bottom, right), the last two exclusive."""
    top, left, bottom, right = on_device(boxes, device)[:, :, None].unbind(1)
    rows = torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    in_rows = (rows >= top) & (rows < bottom)
    in_columns = (columns >= left) & (columns < right)
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
