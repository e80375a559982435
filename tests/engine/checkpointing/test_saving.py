"""What a run leaves: checkpoints when they are due, the best one, and weights that are of use without the run."""

import dataclasses
import json
import shutil

import pytest
import torch
from drawn_models import build_model
from safetensors import safe_open
from safetensors.torch import load_file
from short_runs import ONE_RANK, run_to_end, short_config

from engine.build import build_run
from engine.checkpointing.checkpoint import checkpoints_by_step, fault_of, path_of
from engine.checkpointing.saving import Saver
from engine.loop import train
from engine.reporting.display import Display
from engine.reporting.run_folder import RunFolder
from engine.safeguards.interrupt import StopRequest
from loaders.errors import FeedrateError


def _config(images, folder, **run):
    config = short_config(images, folder, epochs=4)
    return dataclasses.replace(config, run=dataclasses.replace(config.run, checkpoint_every_steps=0, **run))


def _epochs(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "epoch"]


def _steps(folder):
    return sorted(int(path.stem.split("-")[1]) for path in (folder / "checkpoints").glob("*.pt"))


@pytest.mark.parametrize(("every", "expected"), [(1, [5, 10, 15, 20]), (2, [10, 20]), (3, [15, 20]), (0, [20])])
def test_checkpoints_come_after_so_many_epochs_and_after_the_last(image_folder, tmp_path, every, expected):
    run_to_end(_config(image_folder, tmp_path, checkpoint_every_epochs=every, best_metric="none"))
    assert _steps(tmp_path / "short") == expected


def test_they_come_after_so_much_time(image_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Saver, "is_due_by_time", property(lambda saver: saver.num_steps in (3, 13)))
    run_to_end(_config(image_folder, tmp_path, checkpoint_every_epochs=0, best_metric="none"))
    assert _steps(tmp_path / "short") == [3, 13, 20]


@pytest.mark.parametrize(("metric", "sign"), [("eval_top1", -1), ("eval_loss", 1)])
def test_the_best_epoch_is_kept_with_its_weights_and_told(image_folder, tmp_path, metric, sign):
    config = _config(image_folder, tmp_path, checkpoint_every_epochs=0, checkpoints_kept=1, best_metric=metric)
    run_to_end(config)
    folder = tmp_path / "short"
    values = [sign * epoch[metric] for epoch in _epochs(folder)]
    epoch = values.index(min(values))
    told = json.loads((folder / "best.json").read_text())
    name = path_of(folder / "checkpoints", 5 * (epoch + 1)).name
    assert told == {"metric": metric, "value": sign * min(values), "epoch": epoch, "step": 5 * epoch + 5} | {
        "checkpoint": name
    }
    kept = folder / "checkpoints" / name
    assert fault_of(kept) is None
    assert set(_steps(folder)) == {5 * epoch + 5, 20}
    model = torch.load(kept, weights_only=True)["model"]
    best = load_file(folder / "weights-best.safetensors")
    assert model.keys() == best.keys() and all(torch.equal(model[key], best[key]) for key in best)


def test_the_best_survives_an_interruption_and_no_fallback_loses_it(image_folder, tmp_path):
    """Taken up from any checkpoint that is kept, the best it knows is still there."""
    config = _config(image_folder, tmp_path / "whole", checkpoints_kept=2)
    expected = run_to_end(config)
    whole = tmp_path / "whole" / "short"
    for step in _steps(whole):
        again = tmp_path / f"from{step}"
        shutil.copytree(whole, again / "short")
        for later in _steps(whole):
            if later > step:
                path_of(again / "short" / "checkpoints", later).unlink()
        known = torch.load(path_of(whole / "checkpoints", step), weights_only=True)["best"]["step"]
        assert fault_of(path_of(again / "short" / "checkpoints", known)) is None
        resumed = run_to_end(dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(again))))
        assert resumed == expected


def test_of_no_best_there_is_no_best_json_and_a_damaged_checkpoint_is_not_called_sound(image_folder, tmp_path):
    run_to_end(_config(image_folder, tmp_path, checkpoint_every_epochs=1, checkpoints_kept=2))
    folder = RunFolder(tmp_path / "short", writes=True)
    newest = checkpoints_by_step(folder.checkpoints)[0]
    assert folder.newest_sound() == newest
    newest.write_bytes(newest.read_bytes()[:-1])
    assert folder.newest_sound() not in (None, newest)
    for path in checkpoints_by_step(folder.checkpoints):
        path.write_bytes(b"")
    assert folder.newest_sound() is None
    best = tmp_path / "short" / "best.json"
    assert best.exists()
    for _ in range(2):
        folder.write_best({})
        assert not best.exists()


def test_final_weights_are_the_models_under_their_plain_names_and_say_what_they_are(image_folder, tmp_path):
    config = _config(image_folder, tmp_path)
    run_to_end(config)
    path = tmp_path / "short" / "weights.safetensors"
    model = build_model("cifar_resnet20", 3, seed=1)
    model.load_state_dict(load_file(path))
    final = torch.load(path_of(tmp_path / "short" / "checkpoints", 20), weights_only=True)["model"]
    assert all(torch.equal(value, final[name]) for name, value in model.state_dict().items())
    with safe_open(path, "pt") as file:
        about = file.metadata()
    assert about["model"] == "cifar_resnet20" and json.loads(about["classes"]) == ["ant", "bee", "cat"]
    assert json.loads(about["normalize"])["mean"] == [123.675, 116.28, 103.53]
    assert about["eval_size_px"] == "16" and len(about["config_sha256"]) == 64


def test_a_run_may_add_state_of_its_own_and_finds_it_again(image_folder, tmp_path):
    """Any holder of state in `saver.states` is saved and restored; one the checkpoint does not know is told."""

    class Count:
        value = 0

        def state_dict(self):
            return {"value": self.value}

        def load_state_dict(self, state_dict):
            self.value = state_dict["value"]

    from engine import build

    config = _config(image_folder, tmp_path)
    stop, count, said = StopRequest(), Count(), []
    display = Display(is_main=False)
    display.say = said.append
    states_of = build.TrainStep.states
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build.TrainStep, "states", lambda step: {**states_of(step), "count": count})
        with build_run(dataclasses.replace(config, epochs=1), ONE_RANK, display, stop) as run:
            count.value = 7
            assert train(run)
        count.value = 0
        with build_run(dataclasses.replace(config, epochs=1), ONE_RANK, display, stop):
            assert count.value == 7
        patch.setattr(build.TrainStep, "states", lambda step: {**states_of(step), "other": count})
        with build_run(dataclasses.replace(config, epochs=1), ONE_RANK, display, stop):
            assert "the checkpoint holds nothing for other: it starts anew" in said
    stop.restore()


def test_weights_that_cannot_be_written_are_one_sentence(image_folder, tmp_path):
    config = _config(image_folder, tmp_path, best_metric="none")
    (tmp_path / "short" / "weights.safetensors").mkdir(parents=True)
    with pytest.raises(FeedrateError, match="weights .* cannot be written: .*; checkpoints are untouched"):
        run_to_end(config)
    assert fault_of(path_of(tmp_path / "short" / "checkpoints", 20)) is None
