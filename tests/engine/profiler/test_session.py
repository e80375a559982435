"""What a profile measures of a configuration, and what it says where that is not all or not much."""

from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from short_runs import ONE_RANK, short_config

from engine.config import ExecutionConfig
from engine.optimisation.average import Average, AverageConfig
from engine.optimisation.lookahead import Lookahead
from engine.profiler import session, trials
from engine.profiler.measure import measure
from engine.profiler.session import opened
from engine.profiler.trials import Trial, _experiment
from loaders.turbo_loader import TurboLoader

ELSEWHERE = replace(ONE_RANK, device=torch.device("meta"))  # no pixels there, but batches are copied as to any device


def quiet(text):
    pass


def rates_of(bench, names, seconds=0.0, rounds=2):
    """Measured in whole or in part."""
    wanted = [experiment for experiment in bench.experiments() if experiment.name in names]
    assert len(wanted) == len(names)
    return measure(wanted, ONE_RANK, seconds, rounds, quiet)


def test_a_step_is_fed_from_the_host_where_the_loader_copies_whole_batches_and_there_alone(
    image_folder, tmp_path, monkeypatch
):
    config = short_config(image_folder, tmp_path)
    with opened(config, ELSEWHERE, quiet) as bench:
        found = {experiment.name: experiment for experiment in bench.experiments()}
        assert "fed" in found and bench._notes() == []
        devices = {}
        for name in ("loader 2", "cold", "loop", "loop cold"):
            devices[name] = {batch.images.device.type for batch in found[name].batches(2)}
        assert devices == {"loader 2": {"cpu"}, "cold": {"cpu"}, "loop": {"meta"}, "loop cold": {"meta"}}
    monkeypatch.setattr(TurboLoader, "_batches", TurboLoader._host_batches)  # as one whose pixels are made there
    with opened(config, ELSEWHERE, quiet) as bench:
        assert "fed" not in [experiment.name for experiment in bench.experiments()]
        assert bench._notes() == ["loader 'turbo' copies no whole batches from the host, or does not show it"]


@pytest.fixture
def threads_when_made(monkeypatch):
    """The number of torch's threads at each making of a step."""
    found = []
    ready_step = session.ready_step

    def noting(*words):
        found.append(torch.get_num_threads())
        return ready_step(*words)

    for module in (session, trials):
        monkeypatch.setattr(module, "ready_step", noting)
    before = torch.get_num_threads()
    yield found
    torch.set_num_threads(before)


def test_a_step_is_made_with_the_threads_it_is_measured_with(image_folder, tmp_path, threads_when_made):
    """What is compiled is for a number of threads: with another it would be compiled again, in a turn that counts."""
    config = replace(short_config(image_folder, tmp_path), execution=ExecutionConfig(threads=1))
    torch.set_num_threads(2)
    with opened(config, ONE_RANK, quiet):
        assert threads_when_made == [1]
    torch.set_num_threads(2)
    trials.measure_trials([Trial("as it is", config, "step")], ONE_RANK, 0.0, 2, quiet)
    assert threads_when_made == [1, 1]


def test_turns_of_a_loader_whose_workers_make_a_batch_each_are_whole_bursts_and_short_ones_are_told(
    image_folder, tmp_path
):
    config = short_config(image_folder, tmp_path, loader="torchvision")
    with opened(config, ONE_RANK, quiet) as bench:
        every = {experiment.name: experiment.every for experiment in bench.experiments()}
        assert every == {"step": 1, "loop": 2, "cold": 2, "loop cold": 2} | {
            f"loader {number}": number for number in bench.sweep
        }
        rates = rates_of(bench, ["step", "loader 2", "loop"])
        assert [len(turn.waits_s) for turn in bench._loop.turns] == [2, 2]
        notes = bench.judged(rates, {}).ceilings.notes
        told = "turns of few batches (loader of 2 workers 2, the loop 2) make rates rough"
        assert any(note.startswith(told) and "--minutes" in note for note in notes), notes
        assert "a CPU is not fed from page-locked memory" in notes  # the other reason for what is missing
        bench.forget()
        # ten times the two of the turn before, however slow this machine is: not so many as there would be time for
        rates = rates_of(bench, ["loader 2", "loop"], seconds=3600.0, rounds=1)
        assert min(len(turn.waits_s) for turn in bench._loop.turns) >= 6
        assert bench._of_short_turns() == []


@pytest.mark.parametrize("every", [1, 2])
def test_averages_of_the_weights_are_kept_in_the_loop_and_in_the_step_alone(every, image_folder, tmp_path, monkeypatch):
    added = []
    really_add = Average.add

    def add(average, source):
        added.append(average.num_averaged)
        really_add(average, source)

    monkeypatch.setattr(Average, "add", add)
    plain = short_config(image_folder, tmp_path)
    averaged = replace(plain, average=AverageConfig(ema_decay=0.9, ema_every_updates=every))
    for wanted, config in ((True, averaged), (False, plain)):
        with opened(config, ONE_RANK, quiet) as bench:
            found = {experiment.name: experiment for experiment in bench.experiments()}
            before = len(added)
            for name in ("step", "loop"):
                for batch in found[name].batches(4):
                    found[name].work(batch)
        assert len(added) - before == wanted * (8 // every)
    assert added == list(range(8 // every))  # one average, of all of them


def test_updates_are_those_of_training_at_the_schedules_first_rate(image_folder, tmp_path, monkeypatch):
    updates = []
    monkeypatch.setattr(Lookahead, "after_update", lambda lookahead, update: updates.append(update))
    config = short_config(image_folder, tmp_path)
    config = replace(config, optim=replace(config.optim, accumulate=2))  # five batches an epoch: windows of 2, 2 and 1
    with opened(config, ONE_RANK, quiet) as bench:
        first, rates = bench.step.learning_rate(0), set()
        found = {experiment.name: experiment for experiment in bench.experiments()}
        for batch in found["step"].batches(13):
            found["step"].work(batch)
            rates.add(bench.step.optimizer.param_groups[0]["lr"])
    assert updates == list(range(7))  # beyond the run's two epochs
    assert rates <= {config.optim.learning_rate, first} and bench.step.optimizer.param_groups[0]["lr"] == first


@pytest.mark.parametrize(("loader", "every"), [("turbo", 1), ("torchvision", 2)])
def test_what_is_tried_is_measured_as_a_profile_measures_it(loader, every, image_folder, tmp_path):
    config = short_config(image_folder, tmp_path, loader=loader)
    with ExitStack() as stack:
        train_by_batch = {7: None}
        for kind, device in (("loader", "cpu"), ("loop", "meta")):
            tried = _experiment(Trial("it", config, kind), ELSEWHERE, train_by_batch, stack)
            assert tried.every == every
            assert {batch.images.device.type for batch in tried.batches(2)} == {device}


@pytest.mark.parametrize(
    ("loader", "asked", "taken"),
    [("turbo", "auto", "area"), ("torchvision", "auto", "exact"), ("turbo", "exact", "exact")],
)
def test_what_was_profiled_names_the_mode_of_resizing_that_was_taken(loader, asked, taken, image_folder, tmp_path):
    config = short_config(image_folder, tmp_path, loader=loader)
    config = replace(config, data=replace(config.data, resize=asked))
    with opened(config, ONE_RANK, quiet) as bench:
        assert bench.subject.resize == taken
