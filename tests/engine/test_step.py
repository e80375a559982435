"""The training step against the same arithmetic written out plainly."""

import copy
import dataclasses
import fnmatch

import pytest
import torch
from devices import on_each_gpu
from short_runs import ONE_RANK
from torch import nn

from engine.augment import Normalize
from engine.config import Config, DataConfig, ExecutionConfig, OptimConfig
from engine.dist import Ranks
from engine.optimisation.average import AverageConfig, Averages
from engine.optimisation.optim import build_optimizer
from engine.optimisation.windows import Windows
from engine.safeguards.loss_watch import LossWatch
from engine.step import TrainStep
from loaders.errors import FeedrateError
from loaders.records import ChannelStatistics

CHANNELS = ChannelStatistics((120.0, 110.0, 100.0), (60.0, 50.0, 40.0), "this test")


def _model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))


def _batch(seed=0, device="cpu"):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (6, 8, 8, 3), dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)
    return images.to(device), torch.randint(0, 5, (6,), generator=generator).to(device), torch.arange(6)


def _factor(usual, rules, name):
    """Of the rules that fit a parameter the last counts."""
    return [usual, *(factor for pattern, factor in rules if fnmatch.fnmatch(name, pattern))][-1]


def _step(model, optim, precision="fp32", ranks=ONE_RANK, channels_last=True):
    config = Config(optim=optim, execution=ExecutionConfig(precision=precision))
    normalize = Normalize(CHANNELS, ranks.device, channels_last)
    return TrainStep(model, build_optimizer(optim, model), lambda step: 0.1 * (step + 1), normalize, config, ranks)


def _plain_step(model, optim, momentum_buffers, images, labels, step):
    """SGD with momentum, decay on matrices, label smoothing and clipping by norm, from their definitions."""
    mean, std = torch.tensor(CHANNELS.mean), torch.tensor(CHANNELS.std)
    inputs = (images.permute(0, 2, 3, 1).float() - mean) / std
    log_probabilities = torch.log_softmax(model(inputs.permute(0, 3, 1, 2)), dim=1)
    smooth = optim.label_smoothing
    target = torch.full_like(log_probabilities, smooth / 5)
    target[torch.arange(6), labels] += 1 - smooth
    loss = -(target * log_probabilities).sum(dim=1).mean()
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = torch.autograd.grad(loss, parameters)
    norm = torch.sqrt(sum((gradient**2).sum() for gradient in gradients))
    scale = min(1.0, optim.clip_norm / (norm.item() + 1e-6)) if optim.clip_norm else 1.0
    with torch.no_grad():
        for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            decay = optim.weight_decay * _factor(float(parameter.ndim > 1), optim.decay_factors, names[i])
            update = gradient * scale + decay * parameter
            momentum_buffers[i] = update if i not in momentum_buffers else optim.momentum * momentum_buffers[i] + update
            parameter -= 0.1 * (step + 1) * _factor(1.0, optim.rate_factors, names[i]) * momentum_buffers[i]
    return loss.item()


@pytest.mark.parametrize("clip_norm", [0.0, 0.3])
@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    "factors",
    [
        {},
        {"rate_factors": (("*.bias", 8.0), ("0.*", 3.0))},
        {"rate_factors": (("*", 0.5),)},
        {"decay_factors": (("1.*", 20.0), ("0.weight", 0.0)), "rate_factors": (("1.weight", 4.0),)},
    ],
)
def test_three_steps_are_the_plain_arithmetic(clip_norm, label_smoothing, factors):
    optim = OptimConfig(weight_decay=0.01, label_smoothing=label_smoothing, clip_norm=clip_norm, **factors)
    model, plain, buffers = _model(), _model(), {}
    step = _step(model, optim)
    for number in range(3):
        images, labels, ids = _batch(number)
        loss, _ = step(images, labels, ids, number)
        assert loss.item() == pytest.approx(_plain_step(plain, optim, buffers, images, labels, number), rel=1e-4)
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_clipping_makes_a_difference_where_gradients_are_large():
    weights = []
    for clip_norm in (0.0, 0.01):
        model = _model()
        _step(model, OptimConfig(clip_norm=clip_norm))(*_batch(), 0)
        weights.append(model[4].weight.detach().clone())
    assert not torch.equal(*weights)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("clip_norm", [0.0, 0.3])
def test_mixed_precision_clips_true_gradients_not_scaled_ones(clip_norm, precision):
    optim = OptimConfig(clip_norm=clip_norm, weight_decay=0.0)
    mixed, full = _model(), _model()
    _step(mixed, optim, precision)(*_batch(), 0)
    _step(full, optim, "fp32")(*_batch(), 0)
    for ours, theirs in zip(mixed.parameters(), full.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=2e-3)


def test_fp16_skips_a_step_that_overflows_and_lowers_its_scale():
    model = _model()
    before = copy.deepcopy(model.state_dict())
    step = _step(model, OptimConfig(), "fp16")
    scale = step.precision.scaler.get_scale()
    nn.init.constant_(model[4].weight, 3e4)  # overflows float16
    before["4.weight"].fill_(3e4)
    step(*_batch(), 0)
    assert step.precision.scaler.get_scale() < scale
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_bf16_stays_near_float32():
    losses = [_step(_model(), OptimConfig(), precision)(*_batch(), 0)[0].item() for precision in ("fp32", "bf16")]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]


def test_the_count_of_right_answers_is_of_the_weights_before_the_update():
    model = _model()
    images, labels, ids = _batch()
    reference = copy.deepcopy(model).train()
    expected = (reference(Normalize(CHANNELS, torch.device("cpu"), True)(images)).argmax(1) == labels).sum()
    assert _step(model, OptimConfig())(images, labels, ids, 0)[1] == expected


def test_both_layouts_normalise_to_the_same_numbers():
    images, _, _ = _batch()
    inputs = [Normalize(CHANNELS, torch.device("cpu"), channels_last)(images) for channels_last in (False, True)]
    assert torch.equal(*inputs)
    assert inputs[0].is_contiguous() and inputs[1].is_contiguous(memory_format=torch.channels_last)


def test_dropout_depends_on_seed_step_and_rank_alone():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3 * 64, 5)

        def forward(self, images):
            return self.linear(nn.functional.dropout(images.flatten(1), 0.5, training=True))

    def loss_of(step, rank):
        torch.manual_seed(1)
        model = Noisy()
        torch.rand(rank * 7 + 3)  # whatever ran before must not matter
        return _step(model, OptimConfig(), ranks=dataclasses.replace(ONE_RANK, rank=rank))(*_batch(), step)[0].item()

    assert loss_of(4, 0) == loss_of(4, 0)
    assert len({loss_of(4, 0), loss_of(5, 0), loss_of(4, 1)}) == 3


def test_the_transform_stands_before_and_after_normalisation_and_may_give_shares_of_classes():
    images, labels, ids = _batch()
    seen = []

    class Mixes:
        def before_normalising(self, pixels, numbers, step):
            assert pixels is images and numbers is ids and step == 4
            return 255 - pixels

        def after_normalising(self, inputs, classes, numbers, step):
            seen.append((inputs.clone(), classes, numbers, step))
            shares = nn.functional.one_hot(classes, 5).float()
            return 0.7 * inputs + 0.3 * inputs.roll(1, 0), 0.7 * shares + 0.3 * shares.roll(1, 0)

    model, plain = _model(), _model()
    optim, config = OptimConfig(label_smoothing=0.1), Config(optim=OptimConfig(label_smoothing=0.1))
    normalize = Normalize(CHANNELS, torch.device("cpu"), channels_last=True)
    step = TrainStep(
        model, build_optimizer(optim, model), lambda step: 0.1, normalize, config, ONE_RANK, batch_transform=Mixes()
    )
    loss, num_correct = step(images, labels, ids, 4)
    inverted = normalize(255 - images)
    assert torch.equal(seen[0][0], inverted) and seen[0][1] is labels and seen[0][2:] == (ids, 4)
    logits = plain(0.7 * inverted + 0.3 * inverted.roll(1, 0))
    shares = torch.zeros(6, 5)
    for row in range(6):
        shares[row, labels[row]] += 0.7
        shares[row, labels[row - 1]] += 0.3
    expected = -((0.9 * shares + 0.1 / 5) * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert num_correct == (logits.argmax(1) == labels).sum()  # of the labels, whatever the targets were


class _Counted:
    """Counts what makes a host wait for a device, wherever it is called."""

    NAMES = ("item", "tolist", "cpu", "__bool__", "__int__", "__float__", "__index__", "nonzero")

    def __init__(self, monkeypatch):
        self.calls = []
        for name in self.NAMES:
            monkeypatch.setattr(torch.Tensor, name, self._counting(name, getattr(torch.Tensor, name)))

    def _counting(self, name, original):
        def counted(tensor, *arguments, **options):
            self.calls.append(name)
            return original(tensor, *arguments, **options)

        return counted


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_asks_no_tensor_for_its_value(monkeypatch, precision):
    model = _model()
    windows, config = Windows(6, 2), Config(optim=OptimConfig(clip_norm=0.5, lookahead_every_updates=2))
    config = dataclasses.replace(config, execution=ExecutionConfig(precision=precision))
    normalize = Normalize(CHANNELS, torch.device("cpu"), channels_last=True)
    step = TrainStep(
        model, build_optimizer(config.optim, model), lambda step: 0.1, normalize, config, ONE_RANK, windows
    )
    watch = LossWatch(torch.device("cpu"))
    averages = Averages(model, AverageConfig(ema_decay=0.9), windows)
    counted = _Counted(monkeypatch)
    for number in range(6):
        images, labels, ids = _batch(number)
        loss, _ = step(images, labels, ids, number)
        watch.note(number, ids, loss)
        averages.after_step(number)
    assert counted.calls == []
    watch.refuse_alarm(ONE_RANK)  # what is counted is seen: this asks
    assert counted.calls != []


def test_a_compiled_model_trains_as_the_plain_one_under_its_plain_names():
    torch.manual_seed(0)  # as little to compile as shows it
    plain = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.BatchNorm1d(48), nn.Linear(48, 5))
    compiled = copy.deepcopy(plain)
    steps = []
    for model, compiles in ((plain, False), (compiled, True)):
        config = Config(execution=ExecutionConfig(compile=compiles), data=DataConfig(size_schedule=((0, 8), (1, 9))))
        normalize = Normalize(CHANNELS, torch.device("cpu"), channels_last=True)
        steps.append(
            TrainStep(model, build_optimizer(config.optim, model), lambda step: 0.1, normalize, config, ONE_RANK)
        )
    before = copy.deepcopy(compiled.state_dict())
    assert steps[0].warm_up(torch.Size((6, 3, 8, 8)), 5) == 0.0
    seconds = steps[1].warm_up(torch.Size((6, 3, 8, 8)), 5)
    assert seconds > 0 and steps[1].warm_up(torch.Size((6, 3, 8, 8)), 5) == 0.0
    assert all(torch.equal(tensor, before[name]) for name, tensor in compiled.state_dict().items())
    assert all(parameter.grad is None for parameter in compiled.parameters())
    compilations = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for number in range(3):
        losses = [step(*_batch(number), number)[0].item() for step in steps]
        assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compilations, "the warm-up compiled something else"
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for ours, theirs in zip(compiled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


class _Hungry(nn.Module):
    """For which no more than `most` images fit into memory."""

    def __init__(self, most, error):
        super().__init__()
        self.linear = nn.Linear(3 * 64, 5)
        self._most = most
        self._error = error

    def forward(self, images):
        if len(images) > self._most:
            raise self._error
        return self.linear(images.flatten(1))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("FIND was unable to find an engine to execute this computation after trying all plans."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
@pytest.mark.parametrize(("most", "told"), [(3, "3 a rank fit: use --data.batch-size 3,"), (0, "not even 1 image")])
@pytest.mark.parametrize("where", ["a step", "the warm-up"])
def test_out_of_memory_is_a_sentence_that_says_what_fits(error, most, told, where):
    step = _step(_Hungry(most, error), OptimConfig())
    with pytest.raises(FeedrateError) as raised:
        if where == "a step":
            step(*_batch(), 0)
        else:
            compiling = ExecutionConfig(compile=True)  # else one rank needs none
            step._config = dataclasses.replace(step._config, execution=compiling)
            step.warm_up(torch.Size((6, 3, 8, 8)), 5)
    sentence = str(raised.value)
    assert sentence.startswith("out of memory: a batch of 6 (6 images of 8 px a rank) does not fit, this process uses")
    assert told in sentence and "\n" not in sentence
    assert ("; torch said 'unable to find an engine" in sentence) is ("engine" in str(error))  # which may mean others


def test_nothing_is_tried_where_several_ranks_are_in_the_middle_of_an_exchange(monkeypatch):
    step = _step(_Hungry(3, MemoryError()), OptimConfig())
    step._distributed = nn.Identity()
    monkeypatch.setattr(step, "fits", None)
    with pytest.raises(FeedrateError, match=r"does not fit, .*; use a smaller --data.batch-size: tools/find_batch_"):
        step(*_batch(), 0)


def test_nothing_is_tried_beside_memory_that_graphs_keep(monkeypatch):
    step = _step(_Hungry(3, MemoryError()), OptimConfig())
    step._config = dataclasses.replace(step._config, execution=ExecutionConfig(compile=True, cuda_graphs=True))
    monkeypatch.setattr(step, "fits", None)
    with pytest.raises(FeedrateError, match=r"does not fit, .*; use a smaller --data.batch-size: tools/find_batch_"):
        step(*_batch(), 0)


def test_an_update_that_memory_did_not_suffice_for_does_not_spoil_the_next(monkeypatch):
    """GradScaler refuses to unscale twice, which a step that broke off between makes it do."""
    step = _step(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5)), OptimConfig(clip_norm=1.0), precision="fp16")
    plain = torch.amp.GradScaler.step
    failing = [MemoryError(), MemoryError()]

    def update(self, optimizer):
        if failing:
            raise failing.pop()
        return plain(self, optimizer)

    monkeypatch.setattr(torch.amp.GradScaler, "step", update)
    assert [step.fits(4, 8) for _ in range(3)] == [False, False, True]


def test_other_errors_of_a_step_keep_their_traceback():
    class Broken(nn.Linear):
        def forward(self, images):
            raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        _step(Broken(3, 5), OptimConfig())(*_batch(), 0)


class _Unpools(nn.Linear):
    """Stands for AlexNet and VGG on CUDA, the gradient of whose pooling torch refuses: this it refuses on a CPU too."""

    def forward(self, images):
        pooled, places = nn.functional.max_pool2d(images, 2, return_indices=True)
        return super().forward(nn.functional.max_unpool2d(pooled, places, 2).flatten(1))


@pytest.mark.parametrize("where", ["a step", "the warm-up"])
def test_an_operator_without_a_deterministic_kernel_is_named_with_the_option(where):
    step = _step(_Unpools(3 * 64, 5), OptimConfig())
    step._distributed = object() if where == "the warm-up" else None  # one rank alone and uncompiled needs none
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(FeedrateError) as raised:
            step(*_batch(), 0) if where == "a step" else step.warm_up(torch.Size((6, 3, 8, 8)), 5)
    finally:
        torch.use_deterministic_algorithms(False)
    assert "--execution.deterministic is on and max_unpooling2d_forward_out, which" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_whose_pooling_has_no_deterministic_gradient_on_cuda_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = torch.device("cuda", 0)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(27, 5)).to(device)
    model.insert(0, nn.Conv2d(3, 3, 1).to(device))  # only a gradient that something wants is computed
    step = _step(model, OptimConfig(), ranks=dataclasses.replace(ONE_RANK, device=device))
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(FeedrateError, match="adaptive_avg_pool2d_backward_cuda, which this model needs"):
            step(*_batch(device=device), 0)
    finally:
        torch.use_deterministic_algorithms(False)


@on_each_gpu
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16", "fp16"])
def test_a_step_on_cuda_never_makes_the_host_wait_and_agrees_with_the_cpu(precision, device):
    cuda_rank = Ranks(0, 1, 0, 1, device)
    model = _model().to(device, memory_format=torch.channels_last)
    step = _step(model, OptimConfig(), precision, cuda_rank)
    step(*_batch(device=device), 0)  # the first allocates the optimizer's state
    batch = _batch(1, device)
    watch = LossWatch(device)
    averages = Averages(model, AverageConfig(ema_decay=0.9), Windows())
    # fp16 is the exception: torch's GradScaler looks on the host, once a step, whether gradients overflowed
    torch.cuda.set_sync_debug_mode("default" if precision == "fp16" else "error")
    try:
        loss, _ = step(*batch, 1)
        watch.note(1, batch[2], loss)
        averages.after_step(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    plain = _step(_model(), OptimConfig())
    plain(*_batch(), 0)
    tolerance = {"fp32": 1e-3, "tf32": 1e-2, "bf16": 0.1, "fp16": 0.1}[precision]
    assert loss.item() == pytest.approx(plain(*_batch(1), 1)[0].item(), rel=tolerance)
