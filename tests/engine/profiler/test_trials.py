"""Trials that fail leave the others, measured."""

import itertools

import pytest
import torch
from short_runs import ONE_RANK, short_config

from engine.profiler import trials
from engine.profiler.measure import Experiment
from engine.profiler.trials import Trial, measure_trials
from loaders.api import Batch
from loaders.errors import FeedrateError, LoaderError

NAMES = ("fine", "other", "bad")


def batches(count):
    for number in range(count):
        ids = torch.arange(4) + number
        yield Batch(torch.zeros(4, 3, 2, 2, dtype=torch.uint8), ids, ids, 4)


def raising(error, after=0):
    """Work that does so many batches and then raises."""
    numbers = itertools.count()

    def work(batch):
        if next(numbers) >= after:
            raise error

    return work


@pytest.fixture
def tried(tmp_path, monkeypatch):
    """Measures NAMES, of which `bad` is opened by what is given."""
    config = short_config(tmp_path, tmp_path)
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)

    def run(opened_bad, rounds=3):
        def opened(trial, *_):
            return opened_bad() if trial.name == "bad" else Experiment(trial.name, trial.name, batches, None, 1)

        monkeypatch.setattr(trials, "_experiment", opened)
        said = []
        rates, failed = measure_trials(
            [Trial(name, config, "step") for name in NAMES], ONE_RANK, 0.02, rounds, said.append
        )
        return rates, failed, said

    return run


@pytest.mark.parametrize("after", [0, 6])
@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (LoaderError("sample 3 is no image"), "sample 3 is no image"),
        (
            FeedrateError("out of memory: a batch of 8 does not fit; 4 fit: use less"),
            "out of memory: a batch of 8 does not fit",
        ),
        (torch.OutOfMemoryError("CUDA out of memory"), "out of memory"),
        (MemoryError(), "out of memory"),
    ],
)
def test_one_that_breaks_off_is_left_out_with_its_reason(tried, error, reason, after):
    rates, failed, said = tried(lambda: Experiment("bad", "bad", batches, raising(error, after), 1))
    assert set(rates) == {"fine", "other"} and all(len(rate.rounds) == 3 for rate in rates.values())
    assert failed == {"bad": reason} and f"left out: bad: {reason}" in said


@pytest.mark.parametrize("error", [FeedrateError("it is not installed"), torch.OutOfMemoryError("CUDA out of memory")])
def test_one_that_cannot_be_opened_is_left_out_too(tried, error):
    def fail():
        raise error

    rates, failed, _ = tried(fail)
    assert set(rates) == {"fine", "other"} and failed["bad"] in ("it is not installed", "out of memory")


def test_a_fault_of_the_program_is_none_of_a_trial(tried):
    with pytest.raises(RuntimeError, match="shapes"):
        tried(lambda: Experiment("bad", "bad", batches, raising(RuntimeError("shapes differ")), 1))


def test_where_all_fail_there_is_no_rate(tried, monkeypatch):
    config = short_config("x", "y")
    monkeypatch.setattr(
        trials, "_experiment", lambda trial, *_: Experiment(trial.name, "", batches, raising(MemoryError()), 1)
    )
    rates, failed = measure_trials(
        [Trial(name, config, "step") for name in NAMES], ONE_RANK, 0.01, 1, lambda text: None
    )
    assert rates == {} and set(failed) == set(NAMES)
