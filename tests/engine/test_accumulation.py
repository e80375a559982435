"""N batches that make one update, against one batch that is N times as large."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from commands import TRAIN, python, run, short_options, torchrun
from short_runs import ONE_RANK, outcome, resumed_after, run_to_end, short_config, start_from
from torch import nn

from engine.augment import Normalize
from engine.build import build_run
from engine.config import Config, OptimConfig
from engine.loop import train
from engine.optimisation.optim import build_optimizer
from engine.optimisation.windows import Windows
from engine.reporting.display import Display
from engine.safeguards.interrupt import StopRequest
from engine.step import TrainStep
from loaders.records import ChannelStatistics

CHANNELS = ChannelStatistics((120.0, 110.0, 100.0), (60.0, 50.0, 40.0), "this test")
LOSSES = str(Path(__file__).with_name("ddp_losses.py"))
RELATIVE_TOLERANCE = 1e-5  # float32 sums in another order
ROWS, STEPS_PER_EPOCH = 4, 5
EMPTY = {"ranks": [], "num_batches": 0, "length": 0}


def _model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


def _batch(number):
    generator = torch.Generator().manual_seed(number)
    images = torch.randint(0, 256, (ROWS, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return images, torch.randint(0, 5, (ROWS,), generator=generator), torch.arange(ROWS)


def _rate(update):
    return 0.05 * (update + 1)


def _accumulating(optim):
    model = _model()
    config = Config(optim=optim)
    normalize = Normalize(CHANNELS, torch.device("cpu"), channels_last=False)
    windows = Windows(STEPS_PER_EPOCH, optim.accumulate)
    return TrainStep(model, build_optimizer(optim, model), _rate, normalize, config, ONE_RANK, windows)


def _plain_update(model, optim, momentum_buffers, numbers, update):
    """SGD with momentum, decay and clipping by norm on all the batches `numbers` as one, from the definitions."""
    images, labels, _ = (torch.cat(parts) for parts in zip(*map(_batch, numbers), strict=True))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CHANNELS.mean, CHANNELS.std))
    loss = nn.functional.cross_entropy(model((images.float() - mean) / std), labels)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    norm = torch.sqrt(sum((gradient**2).sum() for gradient in gradients))
    scale = min(1.0, optim.clip_norm / norm.item())
    with torch.no_grad():
        for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            moved = gradient * scale + (optim.weight_decay * parameter if parameter.ndim > 1 else 0)
            momentum_buffers[i] = moved if i not in momentum_buffers else optim.momentum * momentum_buffers[i] + moved
            parameter -= _rate(update) * momentum_buffers[i]
    return scale


@pytest.mark.parametrize("accumulate", [1, 2, 3, 5, 8])
def test_a_window_moves_the_weights_as_one_large_batch_also_the_ragged_last_of_an_epoch(accumulate):
    optim = OptimConfig(weight_decay=0.01, label_smoothing=0.0, clip_norm=0.5, accumulate=accumulate)
    step, plain, buffers, update, scales = _accumulating(optim), _model(), {}, 0, []
    for epoch in range(2):
        first = epoch * STEPS_PER_EPOCH
        for start_of_window in range(first, first + STEPS_PER_EPOCH, accumulate):
            numbers = range(start_of_window, min(start_of_window + accumulate, first + STEPS_PER_EPOCH))
            for number in numbers:
                before = [parameter.detach().clone() for parameter in step.module.parameters()]
                assert step.learning_rate(number) == _rate(update)
                step(*_batch(number), number)
                moved = any(not torch.equal(*pair) for pair in zip(before, step.module.parameters(), strict=True))
                assert moved == (number == numbers[-1])
            scales.append(_plain_update(plain, optim, buffers, numbers, update))
            update += 1
            for ours, theirs in zip(step.module.parameters(), plain.parameters(), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=RELATIVE_TOLERANCE, atol=1e-6)
    assert min(scales) < 1, "clipping was never needed: the test says nothing about it"


def test_half_precision_scales_and_clips_the_whole_window_once():
    weights = []
    for precision in ("fp32", "fp16", "bf16"):
        step = _accumulating(OptimConfig(clip_norm=0.5, accumulate=3))
        config = Config(optim=OptimConfig(clip_norm=0.5, accumulate=3))
        config = dataclasses.replace(config, execution=dataclasses.replace(config.execution, precision=precision))
        step = TrainStep(
            step.module, step.optimizer, _rate, step.normalize, config, ONE_RANK, Windows(STEPS_PER_EPOCH, 3)
        )
        for number in range(STEPS_PER_EPOCH):
            step(*_batch(number), number)
        weights.append([parameter.detach() for parameter in step.module.parameters()])
    for exact, fp16, bf16 in zip(*weights, strict=True):
        torch.testing.assert_close(fp16, exact, rtol=0.01, atol=1e-3)
        torch.testing.assert_close(bf16, exact, rtol=0.05, atol=1e-2)


def test_the_gradients_of_an_open_window_survive_to_the_bit():
    optim = OptimConfig(clip_norm=0.5, accumulate=3)
    whole, before = _accumulating(optim), _accumulating(optim)
    for number in range(STEPS_PER_EPOCH):
        whole(*_batch(number), number)
    assert before.gradients.state_dict() == EMPTY
    for number in range(2):
        before(*_batch(number), number)
    stored = before.gradients.state_dict()
    after = _accumulating(optim)
    after.gradients.load_state_dict(stored)
    for number in range(2, STEPS_PER_EPOCH):
        after(*_batch(number), number)
    assert after.gradients.state_dict() == EMPTY
    for ours, theirs in zip(after.module.parameters(), whole.module.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_on_another_number_of_ranks_an_open_window_goes_on_from_the_mean():
    step = _accumulating(OptimConfig(accumulate=3))
    ranks = [{"0.bias": torch.full((4,), value)} for value in (1.0, 2.0, 6.0)]
    step.gradients.load_state_dict({"ranks": ranks, "num_batches": 1, "length": 3})
    assert torch.equal(step.module[0].bias.grad, torch.full((4,), 3.0))
    assert step.module[0].weight.grad is None


@pytest.mark.parametrize(
    ("before", "num_done", "after", "updates"),
    [
        (4, 2, 2, [[0, 1, 2, 3], [4]]),  # the window that was open and the first that now begins are one
        (2, 1, 4, [[0, 1, 2, 3], [4]]),
        (5, 4, 3, [[0, 1, 2, 3, 4]]),
        (1, 1, 3, [[0], [1, 2], [3, 4]]),  # none was open, and it begins in the middle of one
        (3, 2, 1, [[0, 1, 2], [3], [4]]),
    ],
)
def test_an_open_window_that_gets_another_length_is_still_the_mean_of_its_batches(before, num_done, after, updates):
    optims = [OptimConfig(label_smoothing=0.0, weight_decay=0.0, clip_norm=1e9, accumulate=n) for n in (before, after)]
    first, second = map(_accumulating, optims)
    for number in range(num_done):
        first(*_batch(number), number)
    second.module.load_state_dict(first.module.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.gradients.load_state_dict(first.gradients.state_dict())
    for number in range(num_done, STEPS_PER_EPOCH):
        second(*_batch(number), number)
    plain, buffers = _model(), {}
    for numbers in updates:
        update = second.windows.update_of(numbers[-1]) if numbers[-1] >= num_done else numbers[-1]
        _plain_update(plain, optims[0], buffers, numbers, update)
    for ours, theirs in zip(second.module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=RELATIVE_TOLERANCE, atol=1e-6)


@pytest.mark.parametrize("accumulate", [2, 3, 9])
def test_a_run_resumed_at_any_batch_ends_with_the_same_bits(image_folder, tmp_path, accumulate):
    config = short_config(image_folder, tmp_path / "whole", "synthetic")
    optim = dataclasses.replace(config.optim, accumulate=accumulate)
    config = dataclasses.replace(config, optim=optim)
    expected = run_to_end(config)
    without = dataclasses.replace(config, name="without", optim=dataclasses.replace(optim, accumulate=1))
    assert run_to_end(without)["files"] != expected["files"]
    for step in range(1, 10):
        assert resumed_after(config, step) == expected, f"resumed after step {step}"


def test_the_schedule_of_a_run_counts_updates(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path, "synthetic")
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, accumulate=2))
    stop = StopRequest()
    try:
        with build_run(config, ONE_RANK, Display(is_main=False), stop) as built:
            assert built.step.windows == Windows(5, 2)
            rates = [built.step.learning_rate(step) for step in range(10)]
            assert rates == [built.step.schedule(update) for update in (0, 0, 1, 1, 2, 3, 3, 4, 4, 5)]
            assert len(set(rates)) == 6
    finally:
        stop.restore()


def test_two_ranks_accumulate_to_one_ranks_losses_and_exchange_gradients_once_a_window(image_folder):
    alone = python(LOSSES, str(image_folder), "2")
    assert alone.returncode == 0, alone.stderr
    together = run(torchrun(2, LOSSES, str(image_folder), "2"))
    assert together.returncode == 0, together.stderr
    one, two = (json.loads(result.stdout.strip().splitlines()[-1]) for result in (alone, together))
    assert one["ids"] == two["ids"] and len(one["losses"]) == 6
    assert two["losses"] == pytest.approx(one["losses"], rel=RELATIVE_TOLERANCE)
    assert (one["without_exchange"], two["without_exchange"]) == (0, 2)  # 3 steps an epoch: windows of 2 and 1


def test_two_ranks_train_by_compiled_code_to_the_losses_of_one_that_does_not(image_folder):
    plain, compiled = (
        python(LOSSES, str(image_folder), "2"),
        run(torchrun(2, LOSSES, str(image_folder), "2", "compiled")),
    )
    assert plain.returncode == 0 and compiled.returncode == 0, plain.stderr + compiled.stderr
    one, two = (json.loads(result.stdout.strip().splitlines()[-1]) for result in (plain, compiled))
    assert two["losses"] == pytest.approx(one["losses"], rel=RELATIVE_TOLERANCE)
    assert two["graphs"] == 2, "one for each epoch, which train other parameters: nothing was compiled, or too often"


def test_two_ranks_killed_inside_a_window_end_with_the_bits_of_a_run_never_killed(image_folder, tmp_path):
    options = {"optim.accumulate": 4, "epochs": 2}  # 6 steps an epoch: windows of 4 and 2
    whole = run(torchrun(2, TRAIN, *short_options(image_folder, tmp_path / "whole", **options)))
    assert whole.returncode == 0, whole.stderr
    expected = outcome(tmp_path / "whole" / "ddp")
    start_from(tmp_path / "whole" / "ddp", 8, tmp_path / "killed" / "ddp")
    stored = torch.load(tmp_path / "killed" / "ddp" / "checkpoints" / "step-00000008.pt", weights_only=True)
    first, second = stored["gradients"]["ranks"]  # a rank each, and not the same
    assert first.keys() == dict(second).keys() == dict(_parameters(stored["model"])).keys()
    assert any(not torch.equal(first[name], second[name]) for name in first)
    again = run(torchrun(2, TRAIN, *short_options(image_folder, tmp_path / "killed", **options)))
    assert again.returncode == 0, again.stderr
    assert outcome(tmp_path / "killed" / "ddp") == expected


def _parameters(state):
    return {name: tensor for name, tensor in state.items() if not name.endswith(("mean", "var", "tracked"))}


class _StopsAfter:
    """Says after `num_steps` questions, one a step, that a signal has come."""

    def __init__(self, num_steps):
        self._left = num_steps

    def end_start(self):
        pass

    @property
    def is_up(self):
        self._left -= 1
        return self._left <= 0


def test_a_signal_inside_a_window_stops_there_and_keeps_the_window(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path / "whole", "synthetic")
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, accumulate=4))
    expected = run_to_end(config)
    settings = dataclasses.replace(config.run, folder=str(tmp_path / "stopped"), checkpoint_every_steps=0)
    config = dataclasses.replace(config, run=settings)
    stop = StopRequest()
    try:
        with build_run(config, ONE_RANK, Display(is_main=False), stop) as built:
            assert not train(dataclasses.replace(built, stop=_StopsAfter(2)))
    finally:
        stop.restore()
    assert [path.name for path in (tmp_path / "stopped" / "short" / "checkpoints").glob("*.pt")] == ["step-00000002.pt"]
    assert run_to_end(config) == expected


def test_a_window_of_no_batch_is_refused():
    with pytest.raises(ValueError, match="accumulate is 0: it must be 1 or more"):
        OptimConfig(accumulate=0)
