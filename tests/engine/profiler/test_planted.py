"""Real runs of small models with a bottleneck put in on purpose: the profile names it. Names are asserted, no times."""

import json
from pathlib import Path

import planted
import pytest
import torch
from commands import run, torchrun
from planted import BUDGET, config_of, slow_forward, slow_optimizer
from short_runs import ONE_RANK

from engine.profiler import session
from engine.profiler.record import STAGES


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def profile_of(config):
    return session.profile(config, ONE_RANK, BUDGET, {}, lambda text: None)


@pytest.mark.parametrize(("plant", "stage"), [(slow_forward, "forward"), (slow_optimizer, "optimizer")])
def test_a_step_that_sleeps_is_named_by_the_stage_that_does(plant, stage, image_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "build_step", plant(session.build_step))
    measured = profile_of(config_of(image_folder, tmp_path))
    assert (measured.verdict.bottleneck, measured.verdict.side) == (stage, "compute"), measured.verdict.sentence
    assert measured.verdict.advice[0].text.startswith(stage) and measured.verdict.advice[0].gain > 1
    told = measured.shown_rank
    assert told.queue.get_block_share < 0.5 < told.stage(stage).critical_share


def test_records_that_sleep_make_it_wait_for_reading(image_folder, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(planted.__file__).parent))
    measured = profile_of(config_of(f"planted:slow_records@{image_folder}", tmp_path, loader="torchvision"))
    assert (measured.verdict.bottleneck, measured.verdict.side) == ("read", "data"), measured.verdict.sentence
    told = measured.shown_rank
    assert told.data_wait_share > 0.5 and told.stage("read").cpu_us < 0.2 * told.stage("read").wall_us
    assert [stage.name for stage in told.stages] == list(STAGES)


def test_what_a_loader_of_ones_own_does_not_show_is_blamed_on_no_stage(image_folder, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(planted.__file__).parent))
    measured = profile_of(config_of(image_folder, tmp_path, loader="planted:SlowLoader"))
    verdict, told = measured.verdict, measured.shown_rank
    assert (verdict.bottleneck, verdict.side) == ("inconclusive", "data"), verdict.sentence
    assert "the only stages which this loader shows (collate) are" in verdict.sentence
    assert verdict.advice[0].text.startswith("unseen: --loader turbo") and "docs/extending.md" in verdict.advice[0].text
    assert told.stage("collate").critical_share < 0.1 and told.stage("unseen").critical_share > 0.5


@pytest.mark.parametrize("stage", ["forward"])
def test_of_two_ranks_the_slow_one_is_named_by_its_own_stage(stage, image_folder, tmp_path):
    program = str(Path(planted.__file__))
    result = run(torchrun(2, program, str(image_folder), str(tmp_path), stage))
    assert result.returncode == 0, result.stderr
    told = [json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert told[0] == told[1]  # all ranks come to the same verdict
    slow_rank, bottleneck, side, sentence = told[0]
    assert (slow_rank, bottleneck, side) == (1, stage, "compute"), sentence
