"""A run taken up from any batch ends with the bits of one that was never interrupted."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from short_runs import ONE_RANK, outcome, resumed_after, run_to_end, short_config, start_from

from engine.checkpointing.checkpoint import newest_checkpoint, save_checkpoint
from engine.checkpointing.state import restore
from engine.config import Config, DataConfig, ExecutionConfig, OptimConfig
from engine.identity import identity_of
from engine.models.model_config import ModelConfig
from engine.reporting.display import Display
from loaders.errors import FeedrateError
from loaders.records import ChannelStatistics

STEPS = 10


@pytest.mark.parametrize("loader", ["torchvision", "turbo", "synthetic"])
def test_resuming_at_any_batch_ends_with_the_same_bits_and_the_same_log(image_folder, tmp_path, loader):
    config = short_config(image_folder, tmp_path / "whole", loader)
    expected = run_to_end(config)
    assert expected["position"] == [2, 0]
    for step in range(1, STEPS):
        assert resumed_after(config, step) == expected, f"resumed after step {step}"


def test_a_run_may_be_resumed_twice_in_one_epoch(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path / "whole")
    expected = run_to_end(config)
    first = tmp_path / "first"
    start_from(tmp_path / "whole" / "short", 1, first / "short")
    run_to_end(dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(first))))
    start_from(first / "short", 3, tmp_path / "second" / "short")
    second = dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(tmp_path / "second")))
    assert run_to_end(second) == expected


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_resumes_exactly_too(image_folder, tmp_path, precision):
    config = short_config(image_folder, tmp_path / "whole", "synthetic")
    config = dataclasses.replace(config, execution=dataclasses.replace(config.execution, precision=precision))
    expected = run_to_end(config)
    start_from(tmp_path / "whole" / "short", 4, tmp_path / "again" / "short")
    again = dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(tmp_path / "again")))
    assert run_to_end(again) == expected


def test_the_number_of_workers_may_change_and_the_bits_stay(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path / "whole")
    expected = run_to_end(config)
    start_from(tmp_path / "whole" / "short", 3, tmp_path / "again" / "short")
    again = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, workers=1),
        run=dataclasses.replace(config.run, folder=str(tmp_path / "again")),
    )
    assert run_to_end(again) == expected


def test_a_finished_run_started_again_changes_nothing(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path)
    expected = run_to_end(config)
    assert run_to_end(config) == expected


def test_the_ids_trained_on_are_written_once_each_in_order(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path / "whole")
    config = dataclasses.replace(config, run=dataclasses.replace(config.run, log_ids=True))
    run_to_end(config)
    expected = np.fromfile(tmp_path / "whole" / "short" / "ids-rank0.i64", dtype="<i8")
    assert len(expected) == STEPS * 7
    start_from(tmp_path / "whole" / "short", 3, tmp_path / "again" / "short")
    run_to_end(dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(tmp_path / "again"))))
    np.testing.assert_array_equal(np.fromfile(tmp_path / "again" / "short" / "ids-rank0.i64", dtype="<i8"), expected)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"loader": "synthetic"}, "pixels.loader"),
        ({"epochs": 3}, "config.epochs"),
    ],
)
def test_a_checkpoint_of_another_configuration_is_refused_by_name(image_folder, tmp_path, change, named):
    config = short_config(image_folder, tmp_path)
    config = dataclasses.replace(config, epochs=1)
    run_to_end(config)
    changed = dataclasses.replace(config, **change)
    with pytest.raises(FeedrateError, match=named):
        run_to_end(changed)
    before = outcome(tmp_path / "short")
    allowed = dataclasses.replace(
        changed, epochs=2, run=dataclasses.replace(changed.run, allow_change=(named, "config"))
    )
    run_to_end(allowed)
    assert outcome(tmp_path / "short") != before


def test_figures_of_another_evaluation_are_not_compared_unless_that_is_accepted(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path / "whole", "synthetic")
    run_to_end(config)
    larger = dataclasses.replace(config.data, eval_size_px=18, eval_flip=True)
    told = "evaluation.crop_px was 16 and is 18; evaluation.flip was False and is True; evaluation.size_px was 16"
    with pytest.raises(FeedrateError, match=told):
        _taken_up(config, tmp_path, 4, data=larger)
    shutil.rmtree(tmp_path / "changed")
    after, said = _taken_up(config, tmp_path, 4, "evaluation", data=larger)
    assert after["position"] == [2, 0]
    sought = "; sought anew, since figures from before cannot be compared: the best epoch"
    assert any(line.startswith("accepted: evaluation.flip") and line.endswith(sought) for line in said)


def test_after_another_evaluation_is_accepted_the_best_is_one_of_its_own(image_folder, tmp_path):
    """And the plateau's, at the rate it had come to. The figures before would stay the best for ever."""
    optim = OptimConfig(learning_rate=0.05, schedule="plateau", warmup_epochs=0)
    config = short_config(image_folder, tmp_path / "whole", "synthetic", optim=optim)
    run_to_end(config)
    folder = tmp_path / "whole" / "short" / "checkpoints"
    content = torch.load(folder / "step-00000007.pt", weights_only=True)
    content["best"] = {"metric": "eval_top1", "value": 2.0, "epoch": 0, "step": 5}
    content["plateau"] = {"scale": 0.5, "best": -1.0, "num_bad": 3}
    save_checkpoint(folder, 7, content, num_kept=100)
    flips = dataclasses.replace(config.data, eval_flip=True)
    _, said = _taken_up(config, tmp_path, 7, "evaluation", data=flips)
    assert any(line.endswith("cannot be compared: the best epoch, the plateau") for line in said)
    newest = newest_checkpoint(tmp_path / "changed" / "short" / "checkpoints", print)
    assert newest["best"]["epoch"] == 1 and newest["best"]["value"] <= 1
    assert newest["plateau"]["scale"] == 0.5 and newest["plateau"]["best"] > 0 and newest["plateau"]["num_bad"] == 0
    best = json.loads((tmp_path / "changed" / "short" / "best.json").read_text())
    assert (best["epoch"], best["step"]) == (1, 10)


def test_which_subset_is_evaluated_is_told_by_its_seed_where_there_is_one():
    assert DataConfig(eval_subset=0.5, subset_seed=3).evaluation() != DataConfig(eval_subset=0.5).evaluation()
    assert DataConfig(subset_seed=3).evaluation() == DataConfig().evaluation()
    assert DataConfig(eval_shift_px=1).evaluation() != DataConfig().evaluation()
    assert DataConfig(eval_crop_px=224).evaluation() == DataConfig().evaluation()


def test_on_cuda_alone_a_checkpoint_is_marked_with_whether_kernels_are_deterministic():
    train = SimpleNamespace(identity=lambda: {"stream": {}, "pixels": {}})
    data = SimpleNamespace(train=train, channels=ChannelStatistics((0.0,) * 3, (1.0,) * 3, "this test"))
    cuda = dataclasses.replace(ONE_RANK, device=torch.device("cuda", 0))
    for deterministic in (False, True):
        config = Config(execution=ExecutionConfig(deterministic=deterministic))
        assert identity_of(config, cuda, data)["execution"]["deterministic"] is deterministic
        assert "deterministic" not in identity_of(config, ONE_RANK, data)["execution"]


def _taken_up(config, folder, step, *allowed, **changes):
    """What comes of a run of `config` that goes on after `step` with accepted changes, and all it said."""
    start_from(folder / "whole" / "short", step, folder / "changed" / "short")
    run = dataclasses.replace(config.run, folder=str(folder / "changed"), allow_change=allowed)
    display, said = Display(is_main=False), []
    display.say = said.append
    return run_to_end(dataclasses.replace(config, run=run, **changes), display), said


def test_an_accepted_change_of_the_optimizer_is_what_it_trains_with(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path / "whole", "synthetic")
    before = run_to_end(config)
    optim = dataclasses.replace(config.optim, weight_decay=0.25)
    after, said = _taken_up(config, tmp_path, 4, "config.optim.weight_decay", optim=optim)
    assert after["state_sha256"] != before["state_sha256"]
    newest = torch.load(tmp_path / "changed" / "short" / "checkpoints" / "step-00000010.pt", weights_only=True)
    assert [group["weight_decay"] for group in newest["optimizer"]["param_groups"]] == [0.25, 0.0]
    assert any("accepted: config.optim.weight_decay was 5e-05 and is 0.25" in line for line in said)
    assert not any("anew" in line for line in said)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_may_go_on_in_fp16_whose_scale_no_checkpoint_holds(image_folder, tmp_path, precision):
    config = short_config(image_folder, tmp_path / "whole", "synthetic")
    config = dataclasses.replace(config, execution=dataclasses.replace(config.execution, precision=precision))
    run_to_end(config)
    fp16 = dataclasses.replace(config.execution, precision="fp16")
    after, _ = _taken_up(config, tmp_path, 4, "config.precision", execution=fp16)
    assert after["position"] == [2, 0]


def test_an_accepted_optimizer_of_another_name_starts_anew_and_says_so(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path / "whole", "synthetic")
    run_to_end(config)
    optim = dataclasses.replace(config.optim, name="adamw", learning_rate=1e-3)
    after, said = _taken_up(config, tmp_path, 4, "config.optim", optim=optim)
    assert after["position"] == [2, 0]
    assert "the optimizer was sgd and is adamw: it starts anew" in said


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (ModelConfig("resnet18"), r"holds for model does not fit \(Error\(s\) in loading state_dict"),
        # nothing is read of the weights: the checkpoint's stand in their place
        (ModelConfig("cifar_resnet20", "none.pt", freeze_backbone=True), "holds for optimizer does not fit"),
    ],
)
def test_an_accepted_model_that_the_checkpoint_does_not_fit_is_refused_in_one_sentence(
    image_folder, tmp_path, model, told
):
    config = short_config(image_folder, tmp_path / "whole", "synthetic")
    run_to_end(config)
    with pytest.raises(FeedrateError, match=told) as refused:
        _taken_up(config, tmp_path, 4, "config.model", model=model)
    sentence = str(refused.value)
    assert "take back what was changed (config.model" in sentence and "\n" not in sentence and len(sentence) < 400


def test_a_state_that_does_not_fit_though_nothing_was_changed_is_a_bug_and_keeps_its_traceback():
    class Unfit:
        def state_dict(self):
            return {}

        def load_state_dict(self, state_dict, /):
            raise RuntimeError("not mine")

    with pytest.raises(RuntimeError, match="not mine"):
        restore({"it": Unfit()}, {"it": {}}, print)
    with pytest.raises(FeedrateError, match=r"holds for it does not fit \(not mine\): .* \(config.epochs\)"):
        restore({"it": Unfit()}, {"it": {}}, print, {"config.epochs": "it was 1 and is 2"})


def test_a_checkpoint_of_another_stream_is_refused_and_left_as_it_was(image_folder, tmp_path):
    config = dataclasses.replace(short_config(image_folder, tmp_path), epochs=1)
    before = run_to_end(config)
    with pytest.raises(FeedrateError, match=r"stream.seed \(--seed\) was 3 and is 4"):
        run_to_end(dataclasses.replace(config, seed=4))
    assert run_to_end(config) == before


def test_never_resuming_refuses_a_folder_that_holds_a_run(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path)
    run_to_end(config)
    with pytest.raises(FeedrateError, match="another --name"):
        run_to_end(dataclasses.replace(config, run=dataclasses.replace(config.run, resume="never")))


def _with_ids(config, asked=True):
    return dataclasses.replace(config, run=dataclasses.replace(config.run, log_ids=asked))


def test_ids_are_not_made_up_where_their_file_begins_too_late(image_folder, tmp_path):
    """Asked for at the start, not in between, and again: what was not written down cannot be added."""
    config = short_config(image_folder, tmp_path / "whole")
    run_to_end(_with_ids(config))
    file = "ids-rank0.i64"
    for logged, words in (
        (3, "holds 21 sample ids and"),
        (None, "is not there and"),
    ):
        folder = tmp_path / f"after{logged}"
        start_from(tmp_path / "whole" / "short", 4, folder / "short")
        ids = folder / "short" / file
        before = ids.read_bytes()[: 8 * 7 * (logged or 0)]
        ids.write_bytes(before)
        if logged is None:
            ids.unlink()
        again = dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(folder)))
        with pytest.raises(
            FeedrateError, match=f"{file} {words} the run stands after 28, .*: go on without --run.log-ids, or"
        ):
            run_to_end(_with_ids(again))
        assert logged is None or ids.read_bytes() == before
        run_to_end(again)


def test_ids_of_a_run_that_ended_before_its_first_checkpoint_are_forgotten(image_folder, tmp_path):
    config = _with_ids(short_config(image_folder, tmp_path / "whole"))
    run_to_end(config)
    whole = (tmp_path / "whole" / "short" / "ids-rank0.i64").read_bytes()
    start_from(tmp_path / "whole" / "short", 0, tmp_path / "again" / "short")
    run_to_end(dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(tmp_path / "again"))))
    assert (tmp_path / "again" / "short" / "ids-rank0.i64").read_bytes() == whole


def test_ids_are_on_the_disk_before_a_checkpoint_counts_on_them(image_folder, tmp_path, monkeypatch):
    """A power cut may take what was not flushed, and a file that is too short is refused."""
    synced, really = [], os.fsync

    def fsync(descriptor):
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    run_to_end(_with_ids(short_config(image_folder, tmp_path, epochs=1)))
    kept = [name for name in synced if name.startswith("ids-") or name.endswith(".pt.partial")]
    assert kept == [name for step in range(1, 6) for name in ("ids-rank0.i64", f"step-{step:08d}.pt.partial")] + [
        "ids-rank0.i64",
        "step-00000005.pt.partial",
    ]


def test_a_run_may_take_up_rate_factors_by_starting_its_optimizer_anew(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path / "whole")
    run_to_end(config)
    optim = dataclasses.replace(config.optim, rate_factors=(("classifier.*", 10.0),))
    named = "config.optim.rate_factors"
    with pytest.raises(FeedrateError, match=rf"{named} was \[\] and is"):
        _taken_up(config, tmp_path, 4, optim=optim)
    shutil.rmtree(tmp_path / "changed")
    assert _taken_up(config, tmp_path, 4, named, optim=optim)[0]["position"] == [2, 0]
