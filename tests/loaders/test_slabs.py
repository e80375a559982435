"""Memory of batches: kept while it fits, told in a sentence where there is none."""

import pytest
import torch

from loaders.errors import LoaderError
from loaders.slabs import Slabs, allocate

NOBODY_HAS = 1 << 58


def test_memory_that_cannot_be_had_is_one_sentence_with_size_and_remedy():
    with pytest.raises(LoaderError, match=r"288230.* GB of memory cannot be had: use less$") as told:
        allocate((NOBODY_HAS,), "use less")
    assert "\n" not in str(told.value)


def test_a_batch_too_large_names_its_size():
    with pytest.raises(LoaderError, match="a batch of 1073741824 at 30000 px .* 2 times: use a smaller batch"):
        Slabs(2, pinned=False).of(1 << 30, 30_000)


def test_any_other_failure_stays_what_it_is():
    with pytest.raises(RuntimeError, match="negative") as told:
        allocate((-1,), "use less")
    assert not isinstance(told.value, LoaderError)


def test_slabs_stay_while_the_size_stays():
    slabs = Slabs(3, pinned=False)
    first = [slab.data_ptr() for slab in slabs.of(4, 8)]
    assert len(set(first)) == 3 and [slab.data_ptr() for slab in slabs.of(4, 8)] == first
    assert all(slab.shape == (4, 16, 16, 3) and slab.dtype == torch.uint8 for slab in slabs.of(4, 16))
    slabs.clear()
    assert len(slabs.of(2, 8)) == 3
