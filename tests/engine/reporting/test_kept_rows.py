"""What is kept of very many batches lies in few pieces, and is what was shown."""

import torch

from engine.reporting import kept_rows
from engine.reporting.kept_rows import KeptRows


def test_rows_come_back_in_order_also_where_batches_are_uneven_or_larger_than_a_piece(monkeypatch):
    monkeypatch.setattr(kept_rows, "_PIECE_BYTES", 10 * 2 * 4)
    kept, shown = KeptRows(), []
    for size in (4, 4, 4, 10, 3, 25, 1):
        rows = torch.rand(size, 2)
        shown.append(rows.clone())
        kept.add(rows)
        rows.zero_()  # its memory is the loader's again
    assert torch.equal(kept.read(), torch.cat(shown))


def test_no_tensor_is_kept_of_each_batch(monkeypatch):
    made = []
    new_empty = torch.Tensor.new_empty
    monkeypatch.setattr(torch.Tensor, "new_empty", lambda rows, shape: made.append(shape) or new_empty(rows, shape))
    kept = KeptRows()
    for _ in range(500):
        kept.add(torch.zeros(256, dtype=torch.int64))
    assert len(made) == 1 and len(kept.read()) == 500 * 256


def test_a_piece_is_no_larger_for_long_rows(monkeypatch):
    kept = KeptRows()
    kept.add(torch.zeros(7, 21_841))
    assert len(kept._pieces[0]) == 12  # of 87 kB each
