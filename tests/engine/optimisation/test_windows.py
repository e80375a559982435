import pytest

from engine.optimisation.windows import Windows


@pytest.mark.parametrize("steps_per_epoch", [1, 2, 5, 6, 7])
@pytest.mark.parametrize("accumulate", [1, 2, 3, 5, 9])
def test_windows_are_what_a_plain_walk_over_two_epochs_finds(steps_per_epoch, accumulate):
    windows = Windows(steps_per_epoch, accumulate)
    update, step = 0, 0
    for _ in range(2):
        left = steps_per_epoch
        while left:
            length = min(accumulate, left)
            for place in range(length):
                assert windows.update_of(step) == update
                assert windows.left_at(step) == length - place
                assert windows.closes_at(step) == (place == length - 1)
                step += 1
            left -= length
            update += 1
    assert 2 * windows.updates_per_epoch == update


def test_without_accumulation_every_step_is_an_update():
    windows = Windows()
    assert [(windows.update_of(step), windows.left_at(step), windows.closes_at(step)) for step in (0, 1, 7)] == [
        (0, 1, True),
        (1, 1, True),
        (7, 1, True),
    ]
