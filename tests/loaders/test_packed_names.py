"""Names in one buffer: what went in comes out, and ends that were read from somewhere are looked at."""

import pickle

import numpy as np
import pytest

from loaders.packed_names import PackedNames

NAMES = [b"ant/0.jpg", b"", "Äpfel/ä.png".encode(), b"\xff\xfe 2.jpg"]


def test_names_come_out_as_they_went_in():
    names = PackedNames.of(NAMES)
    names.extend(PackedNames.of(NAMES[2:]))
    names.append(b"last")
    expected = [*NAMES, *NAMES[2:], b"last"]
    assert [names[index] for index in range(len(names))] == expected
    assert names == PackedNames.of(expected) != PackedNames.of([b"".join(expected)])
    assert pickle.loads(pickle.dumps(names)) == names and names.are_sound()
    again = PackedNames(bytes(names.joined), np.array(names.ends))
    assert again == names and len(PackedNames()) == 0 and PackedNames().are_sound()


@pytest.mark.parametrize("ends", [[-1, 3], [2, 1, 3], [3, 4], [2], []])
def test_ends_that_are_none_are_told(ends):
    assert not PackedNames(b"abc", np.array(ends, np.int64)).are_sound()
