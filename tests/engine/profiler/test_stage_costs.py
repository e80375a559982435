"""Which stage weighs most, and how sure that is where rounds are known and where they are not."""

import pytest

from engine.profiler.record import StageRecord
from engine.profiler.stage_costs import Choice, _heaviest


def _stage(name, *rounds_us, mean_us=None):
    return StageRecord(name, "worker", wall_us=mean_us or sum(rounds_us) / len(rounds_us), rounds_us=rounds_us)


@pytest.mark.parametrize(("mean_us", "named"), [(106.0, "decode"), (104.0, None)])
def test_of_means_alone_the_clearly_larger_is_named_without_a_confidence_of_its_own(mean_us, named):
    stages = [_stage("augment", mean_us=100.0), _stage("decode", mean_us=mean_us)]
    choice = _heaviest(stages)
    assert choice == Choice(named, "augment", None)
    assert choice.at_most(0.97) == 0.97
    one_known = [_stage("augment", 90.0, 110.0), stages[1]]
    assert _heaviest(one_known) == choice


def test_of_rounds_the_noise_counts_and_lowers_what_is_said_of_all():
    clear = _heaviest([_stage("augment", *[100.0] * 5), _stage("decode", *[120.0] * 5)])
    assert clear == Choice("decode", "augment", 1.0) and clear.at_most(0.97) == 0.97
    noisy = _heaviest([_stage("augment", *[100.0] * 5), _stage("decode", 90.0, 100.0, 108.0, 130.0, 150.0)])
    assert noisy.stage is None and noisy.at_most(0.97) == noisy.confidence < 0.95
