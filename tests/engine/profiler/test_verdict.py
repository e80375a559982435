import pytest

from engine.profiler.measure import Measurement, Rate
from engine.profiler.verdict import judge


def _rate(value, spread=0.02):
    return Rate((value * (1 - spread / 2), value, value * (1 + spread / 2)))


@pytest.mark.parametrize(
    ("step", "loader", "together", "shares", "expected"),
    [
        (1000, 400, 395, False, "data"),
        (400, 1000, 395, False, "compute"),
        (400, 1000, 395, True, "compute"),
        (1000, 400, 390, True, "data"),
        (1000, 1000, 500, True, "shared processors"),
        (1000, 2000, 660, True, "shared processors"),
        (1000, 1030, 990, False, "inconclusive"),
    ],
)
def test_the_slower_side_is_named(step, loader, together, shares, expected):
    verdict = judge(Measurement(_rate(step), _rate(loader), _rate(together), 0.3), shares)
    assert verdict.bottleneck == expected
    assert verdict.headroom == pytest.approx(loader / step)
    assert verdict.sentence.count("\n") == 0


def test_rates_that_overlap_in_noise_get_no_name():
    noisy = Measurement(_rate(1000, spread=0.9), _rate(700, spread=0.9), _rate(650, spread=0.9), 0.3)
    assert judge(noisy, shares_processors=False).bottleneck == "inconclusive"


def test_two_equal_costs_on_the_same_cores_leave_half_the_time_to_each():
    verdict = judge(Measurement(_rate(1000), _rate(1000), _rate(500), 0.5), shares_processors=True)
    assert "about 50% of the processor time" in verdict.sentence and "at most 2.00×" in verdict.sentence


def test_the_gain_promised_is_the_steps_own_rate():
    verdict = judge(Measurement(_rate(1000), _rate(400), _rate(400), 0.6), shares_processors=False)
    assert "up to 2.50×" in verdict.sentence
