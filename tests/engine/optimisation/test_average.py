"""Averages of weights against their definitions written out plainly."""

import copy
import dataclasses

import pytest
import torch
from commands import TRAIN, run, short_options, torchrun
from devices import no_waiting, on_each_gpu
from short_runs import ONE_RANK, outcome, resumed_after, run_to_end, short_config, start_from
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from engine.augment.augment_config import AugmentConfig
from engine.build import build_run
from engine.config import Config
from engine.evaluate import evaluate
from engine.loop import train
from engine.optimisation.average import Average, AverageConfig, Averages, estimate_statistics
from engine.optimisation.windows import Windows
from engine.reporting.display import Display
from engine.safeguards.interrupt import StopRequest
from engine.step import Precision, TrainStep
from loaders.errors import FeedrateError

EXACT = Precision("fp32", torch.device("cpu")).autocast
RELATIVE_TOLERANCE = 1e-6


def _model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(4 * 36, 5)
    )


def _move(model, seed):
    """Weights and statistics as after some step."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator))
            else:
                tensor.fill_(seed)


def _state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _inputs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(6, 3, 8, 8, generator=generator) for _ in range(4)]


@pytest.mark.parametrize("warmup", [False, True])
@pytest.mark.parametrize("decay", [0.5, 0.99])
def test_ema_is_its_recurrence(decay, warmup):
    model = _model()
    config = AverageConfig(ema_decay=decay, ema_warmup=warmup)
    averages = Averages(model, config, Windows())
    assert averages.models() == {}
    expected = None
    for step in range(30):
        _move(model, step)
        averages.after_step(step)
        kept = min(decay, (1 + step) / (10 + step)) if warmup else decay
        now = {name: tensor.double() for name, tensor in model.state_dict().items()}
        if expected is None:
            expected = now
        else:
            expected = {name: kept * old + (1 - kept) * now[name] for name, old in expected.items()}
    averaged = averages.models()["ema"].state_dict()
    assert averaged.pop("1.num_batches_tracked") == 29  # counted, not averaged
    for name, tensor in averaged.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=RELATIVE_TOLERANCE, atol=1e-7)


def test_ema_takes_every_kth_update_and_an_update_may_be_several_batches():
    model = _model()
    windows = Windows(steps_per_epoch=5, accumulate=2)  # updates end at steps 1, 3, 4 of each epoch
    averages = Averages(model, AverageConfig(ema_decay=0.9, ema_every_updates=2), windows)
    taken = []
    for step in range(10):
        _move(model, step)
        before = averages.state_dict()["ema"]["num_averaged"]
        averages.after_step(step)
        if averages.state_dict()["ema"]["num_averaged"] > before:
            taken.append(step)
    assert taken == [3, 6, 9]


def test_swa_is_the_mean_of_the_weights_at_the_ends_of_its_epochs_as_torchs_averaged_model():
    model = _model()
    averages = Averages(model, AverageConfig(swa_start_epoch=2), Windows())
    theirs = AveragedModel(model, use_buffers=False)
    ends = []
    for epoch in range(6):
        _move(model, epoch)
        averages.after_epoch(epoch, _inputs(epoch), EXACT, ONE_RANK)
        assert bool(averages.models()) == (epoch >= 2)
        if epoch >= 2:
            theirs.update_parameters(model)
            ends.append({name: parameter.detach().double().clone() for name, parameter in model.named_parameters()})
    for name, parameter in averages.models()["swa"].named_parameters():
        mean = sum(end[name] for end in ends) / 4
        torch.testing.assert_close(parameter.double(), mean, rtol=RELATIVE_TOLERANCE, atol=1e-7)
        torch.testing.assert_close(parameter, theirs.module.get_parameter(name), rtol=RELATIVE_TOLERANCE, atol=1e-7)


def test_an_epochs_end_that_is_met_again_counts_once():
    model = _model()
    averages = Averages(model, AverageConfig(swa_start_epoch=1), Windows())
    _move(model, 1)
    averages.after_epoch(1, _inputs(), EXACT, ONE_RANK)
    once = _state(averages.models()["swa"])
    averages.after_epoch(1, _inputs(), EXACT, ONE_RANK)  # a signal came in the evaluation, and the run goes on
    assert averages.state_dict()["swa"]["num_averaged"] == 1
    assert all(torch.equal(once[name], tensor) for name, tensor in averages.models()["swa"].state_dict().items())


@pytest.mark.parametrize(
    ("start_before", "start", "expected"),
    [(0, 5, [5, 6]), (0, 4, [4, 5, 6]), (2, 0, [2, 3, 4, 5, 6]), (-1, 1, [4, 5, 6]), (3, 3, [3, 4, 5, 6])],
)
def test_swa_that_goes_on_with_another_start_is_of_the_epochs_from_that_on(start_before, start, expected):
    model = _model()
    before = Averages(model, AverageConfig(swa_start_epoch=start_before), Windows())
    ends = {}
    averages = before
    for epoch in range(7):
        if epoch == 4:
            averages = Averages(model, AverageConfig(swa_start_epoch=start), Windows())
            averages.load_state_dict(copy.deepcopy(before.state_dict()))
        _move(model, epoch)
        ends[epoch] = model[0].weight.detach().double().clone()
        for _ in range(2):  # its end is met again
            averages.after_epoch(epoch, _inputs(epoch), EXACT, ONE_RANK)
    swa = averages.models()["swa"]
    assert averages.state_dict()["swa"]["num_averaged"] == len(expected)
    mean = sum(ends[epoch] for epoch in expected) / len(expected)
    torch.testing.assert_close(swa[0].weight.double(), mean, rtol=RELATIVE_TOLERANCE, atol=1e-7)


def test_statistics_are_the_plain_means_over_the_batches_and_nothing_else_moves():
    model = _model()
    _move(model, 3)
    before = _state(model)
    torch.manual_seed(5)
    generator = torch.get_rng_state()
    estimate_statistics(model, _inputs(), EXACT, ONE_RANK)
    assert torch.equal(torch.get_rng_state(), generator), "dropout was on"
    assert not any(module.training for module in model.modules())
    assert model[1].momentum == 0.1
    outputs = [nn.functional.conv2d(images, before["0.weight"], before["0.bias"]) for images in _inputs()]
    means = torch.stack([output.double().mean(dim=(0, 2, 3)) for output in outputs]).mean(dim=0)
    variances = torch.stack([output.double().var(dim=(0, 2, 3)) for output in outputs]).mean(dim=0)
    torch.testing.assert_close(model[1].running_mean.double(), means, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model[1].running_var.double(), variances, rtol=1e-5, atol=1e-6)
    for name, tensor in model.state_dict().items():
        if name not in ("1.running_mean", "1.running_var", "1.num_batches_tracked"):
            assert torch.equal(tensor, before[name]), name
    again = _model()
    again.load_state_dict(before)
    estimate_statistics(again, _inputs(), EXACT, ONE_RANK)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())
    theirs = nn.Sequential(*(_model()[i] for i in (0, 1, 2, 4, 5)))  # torch's has dropout on
    theirs.load_state_dict({name.replace("5.", "4."): tensor for name, tensor in before.items()})
    update_bn(_inputs(), theirs)
    torch.testing.assert_close(theirs[1].running_var, model[1].running_var)


def _norm_used_twice():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    return nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), norm, nn.Flatten(), nn.Linear(4 * 36, 5))


@pytest.mark.parametrize("build", [_model, _norm_used_twice])
def test_statistics_have_the_bits_of_torchs_plain_mean(build):
    expected, model = build().eval(), build()
    expected[1].train().reset_running_stats()
    expected[1].momentum = None
    for images in _inputs():
        with torch.no_grad():
            expected(images)
    estimate_statistics(model, _inputs(), EXACT, ONE_RANK)
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in expected.state_dict().items())
    assert model[1].num_batches_tracked == 4 * sum(module is model[1] for module in model)


def test_momenta_are_as_before_even_when_a_batch_cannot_be_made():
    def failing():
        yield from _inputs()
        raise FeedrateError("sample 7 is gone")

    model = _model()
    with pytest.raises(FeedrateError, match="sample 7"):
        estimate_statistics(model, failing(), EXACT, ONE_RANK)
    model.train()(_inputs()[0])
    assert model[1].momentum == 0.1 and not model[1]._forward_pre_hooks


@on_each_gpu
def test_estimating_statistics_reads_nothing_from_the_device(device):
    model, inputs = _model().to(device), [images.to(device) for images in _inputs()]
    with torch.no_grad():
        model(inputs[0])  # loads kernels
    with no_waiting(device):
        estimate_statistics(model, inputs, EXACT, ONE_RANK)
    assert not model[1].training


def test_a_model_without_batch_norm_reads_no_batch():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))

    def unread():
        raise AssertionError("a batch was asked for")
        yield

    estimate_statistics(model, unread(), EXACT, ONE_RANK)


def test_the_model_itself_is_never_touched():
    model = _model()
    model.train()
    averages = Averages(model, AverageConfig(ema_decay=0.9, swa_start_epoch=0), Windows())
    _move(model, 1)
    before = _state(model)
    averages.after_step(0)
    averages.after_epoch(0, _inputs(), EXACT, ONE_RANK)
    assert model.training and model[1].momentum == 0.1
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_an_average_goes_on_from_its_state_to_the_bit():
    def moved(average, model, seeds):
        for seed in seeds:
            _move(model, seed)
            average.add(model)

    model = _model()
    weight_of = AverageConfig(ema_decay=0.9).ema_weight
    whole, first, second = (Average(model, weight_of) for _ in range(3))
    moved(whole, model, range(6))
    moved(first, model, range(3))
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    moved(second, model, range(3, 6))
    assert second.num_averaged == 6
    assert all(
        torch.equal(tensor, second.model.state_dict()[name]) for name, tensor in whole.model.state_dict().items()
    )


def test_swa_has_a_constant_rate_from_its_first_epoch_on():
    config = AverageConfig(swa_start_epoch=2, swa_learning_rate=0.3)
    schedule = config.schedule(lambda update: float(update), updates_per_epoch=3)
    assert [schedule(update) for update in range(9)] == [0, 1, 2, 3, 4, 5, 0.3, 0.3, 0.3]
    assert [AverageConfig().schedule(float, 3)(update) for update in range(9)] == list(range(9))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"ema_decay": 1.5}, "ema_decay is 1.5: it must lie between 0 and 1"),
        ({"ema_every_updates": 0}, "ema_every_updates is 0: it must be 1 or more"),
        ({"swa_start_epoch": -2}, "swa_start_epoch is -2: it must be -1 or more"),
        ({"swa_learning_rate": 0.0}, "swa_learning_rate is 0.0: it must be above 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(change, sentence):
    with pytest.raises(FeedrateError, match=sentence):
        AverageConfig(**change)


def test_swa_that_would_never_start_is_refused():
    with pytest.raises(FeedrateError, match="swa_start_epoch is 4 and the last of 4 epochs is 3"):
        Config(epochs=4, average=AverageConfig(swa_start_epoch=4))


def test_ema_that_would_take_in_nothing_is_refused(image_folder, tmp_path):
    AverageConfig(ema_decay=0.9, ema_every_updates=14).refuse_idle_ema(14)
    AverageConfig(ema_every_updates=15).refuse_idle_ema(14)  # it is off
    config = short_config(image_folder, tmp_path, epochs=1)
    config = dataclasses.replace(config, average=AverageConfig(ema_decay=0.9, ema_every_updates=1000))
    with pytest.raises(FeedrateError, match="ema_every_updates is 1000 and the run makes [0-9]+ updates: nothing"):
        run_to_end(config)


AVERAGED = AverageConfig(ema_decay=0.9, ema_every_updates=2, swa_start_epoch=1, swa_learning_rate=0.02)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_with_both_resumed_at_any_batch_ends_with_the_same_bits(image_folder, tmp_path, accumulate):
    config = short_config(image_folder, tmp_path / "whole")
    optim = dataclasses.replace(config.optim, accumulate=accumulate)
    config = dataclasses.replace(config, epochs=3, average=AVERAGED, optim=optim)
    expected = run_to_end(config)
    for step in range(1, 15, 1 if accumulate == 1 else 3):
        assert resumed_after(config, step) == expected, f"resumed after step {step}"


def test_swas_batch_statistics_are_of_the_inputs_trained_on_augmented_and_all_and_resume_to_the_bit(
    image_folder, tmp_path, monkeypatch
):
    augment = AugmentConfig(brightness=0.5, policy="trivial", erase_probability=0.5, mixup_alpha=0.4)
    average = AverageConfig(swa_start_epoch=0, swa_learning_rate=0.02)
    config = dataclasses.replace(short_config(image_folder, tmp_path / "whole"), augment=augment, average=average)
    trained_on, forward = [], TrainStep._forward

    def noted(step, model, inputs, targets):
        trained_on.append(inputs.clone())
        return forward(step, model, inputs, targets)

    with monkeypatch.context() as patch:
        patch.setattr(TrainStep, "_forward", noted)
        expected = run_to_end(config)
    assert len(trained_on) == 10
    stored = torch.load(tmp_path / "whole" / "short" / "checkpoints" / "step-00000010.pt", weights_only=True)
    swa = stored["averages"]["swa"]["model"]
    of_batches = [nn.functional.conv2d(inputs, swa["conv.weight"], padding=1) for inputs in trained_on[5:]]
    plain_mean = torch.stack([maps.mean((0, 2, 3)) for maps in of_batches]).mean(0)
    plain_var = torch.stack([maps.var((0, 2, 3)) for maps in of_batches]).mean(0)
    torch.testing.assert_close(swa["norm.running_mean"], plain_mean, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(swa["norm.running_var"], plain_var, rtol=1e-4, atol=1e-6)

    start_from(tmp_path / "whole" / "short", 7, tmp_path / "again" / "short")
    again = dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(tmp_path / "again")))
    assert run_to_end(again) == expected


def test_ema_alone_changes_no_bit_of_the_run_it_watches(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path)
    with_ema = dataclasses.replace(config, name="ema", average=AverageConfig(ema_decay=0.9))
    plain, watched = run_to_end(config), run_to_end(with_ema)
    states = [
        torch.load(tmp_path / name / "checkpoints" / "step-00000010.pt", weights_only=True) for name in ("short", "ema")
    ]
    assert all(torch.equal(tensor, states[1]["model"][name]) for name, tensor in states[0]["model"].items())
    without = [{k: v for k, v in line.items() if not k.startswith("eval_ema")} for line in watched["metrics"]]
    assert without == plain["metrics"]
    assert watched["metrics"] != plain["metrics"]


def test_both_are_evaluated_beside_the_weights_and_their_figures_are_of_the_stored_averages(image_folder, tmp_path):
    config = dataclasses.replace(short_config(image_folder, tmp_path), epochs=3, average=AVERAGED)
    metrics = run_to_end(config)["metrics"]
    epochs = [line for line in metrics if line["kind"] == "epoch"]
    assert [{name[:8] for name in line if name.startswith(("eval_ema", "eval_swa"))} for line in epochs] == [
        {"eval_ema"},
        {"eval_ema", "eval_swa"},
        {"eval_ema", "eval_swa"},
    ]
    rates = {line["step"]: line["learning_rate"] for line in metrics if line["kind"] == "step"}
    assert all((rate == 0.02) == (step >= 5) for step, rate in rates.items())
    stored = torch.load(tmp_path / "short" / "checkpoints" / "step-00000015.pt", weights_only=True)["averages"]
    stop = StopRequest()
    try:
        with build_run(config, ONE_RANK, Display(is_main=False), stop) as built:
            for name in ("ema", "swa"):
                model = copy.deepcopy(built.step.module)
                model.load_state_dict(stored[name]["model"])
                found = evaluate(model, built.data.evaluation, built.step.normalize, built.step.precision, ONE_RANK)
                assert (found.loss, found.top1) == (epochs[-1][f"eval_{name}_loss"], epochs[-1][f"eval_{name}_top1"])
            assert train(built)
    finally:
        stop.restore()


def test_two_ranks_average_alike_with_slow_weights_too_and_resume_to_the_bit(image_folder, tmp_path):
    options = {
        "optim.lookahead-every-updates": 5,
        "epochs": 2,
        "average.ema-decay": 0.9,
        "average.swa-start-epoch": 0,
        "average.swa-learning-rate": 0.02,
        "average.swa-statistics-batches": 3,
    }
    whole = run(torchrun(2, TRAIN, *short_options(image_folder, tmp_path / "whole", **options)))
    assert whole.returncode == 0, whole.stderr
    assert "ema top-1" in whole.stdout and "swa top-1" in whole.stdout
    expected = outcome(tmp_path / "whole" / "ddp")
    start_from(tmp_path / "whole" / "ddp", 8, tmp_path / "killed" / "ddp")
    again = run(torchrun(2, TRAIN, *short_options(image_folder, tmp_path / "killed", **options)))
    assert again.returncode == 0, again.stderr
    assert outcome(tmp_path / "killed" / "ddp") == expected
