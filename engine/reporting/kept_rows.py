"""Rows that are kept of very many batches."""

import math

import torch

_PIECE_BYTES = 1 << 20


class KeptRows:
    """Copies of rows, in a few large pieces.

    A small tensor kept of each batch would lie in the memory that the large ones of its forward pass have left, and the
    next batch's would not fit there again: on a CPU an evaluation of 1.28 million images took 10 GB by that.
    """

    def __init__(self) -> None:
        self._pieces: list[torch.Tensor] = []
        self._num_rows = 0  # in the last piece

    def add(self, rows: torch.Tensor) -> None:
        """Keep these, [n, …]: all are to be alike but for n."""
        if not self._pieces or self._num_rows + len(rows) > len(self._pieces[-1]):
            self._end_piece()
            row_bytes = rows.element_size() * math.prod(rows.shape[1:])
            num_rows = max(_PIECE_BYTES // max(1, row_bytes), len(rows))
            self._pieces.append(rows.new_empty((num_rows, *rows.shape[1:])))
            self._num_rows = 0
        self._pieces[-1][self._num_rows : self._num_rows + len(rows)] = rows
        self._num_rows += len(rows)

    def read(self) -> torch.Tensor:
        """All of them, in order."""
        self._end_piece()
        return torch.cat(self._pieces)

    def _end_piece(self) -> None:
        if self._pieces:
            self._pieces[-1] = self._pieces[-1][: self._num_rows]
