"""Training by CUDA graphs of what torch.compile makes."""

import dataclasses
from collections import Counter

import pytest
import torch
from short_runs import ONE_RANK, short_config
from torch import nn

from engine.augment import IMAGENET_CHANNELS
from engine.build import build_step
from engine.compiled import compiled, graphs_expected
from engine.config import Config, ExecutionConfig, OptimConfig
from engine.dist import Ranks
from loaders.errors import FeedrateError

GRAPHS = ExecutionConfig(compile=True, cuda_graphs=True)
ON_CUDA = Ranks(0, 1, 0, 1, torch.device("cuda", 0))
SIZES_PX = (16, 24)


class Small(nn.Module):
    """Quick to compile, for images of any size."""

    def __init__(self, dropout):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(8, 3))

    def forward(self, images):
        return self.classifier(self.features(images).mean(dim=(2, 3)))


def _batch(number, size_px, device):
    generator = torch.Generator().manual_seed(number)
    images = torch.randint(0, 256, (4, size_px, size_px, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 3, (4,), generator=generator)
    return images.permute(0, 3, 1, 2).to(device), labels.to(device), torch.arange(4)


def test_they_are_of_compiled_code():
    with pytest.raises(FeedrateError, match="cuda_graphs is on and compile is not"):
        ExecutionConfig(cuda_graphs=True)


def test_gradients_that_wait_for_their_window_would_be_overwritten():
    with pytest.raises(FeedrateError, match="cuda_graphs is on and accumulate is 2"):
        Config(execution=GRAPHS, optim=OptimConfig(accumulate=2))


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        (ONE_RANK, "cuda-graphs is on and the device is cpu"),
        (dataclasses.replace(ON_CUDA, world_size=2), "cuda-graphs is on with 2 ranks"),
    ],
)
def test_where_there_are_none_it_is_refused(ranks, message):
    with pytest.raises(FeedrateError, match=message):
        compiled(nn.Identity(), Config(execution=GRAPHS), ranks, 1)


def test_torch_is_asked_for_them_where_they_are_wanted_alone(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model, **asked: asked)
    assert compiled(nn.Identity(), Config(execution=GRAPHS), ON_CUDA, 1) == {
        "mode": "reduce-overhead",
        "dynamic": False,
    }
    plain = Config(execution=ExecutionConfig(compile=True))
    assert compiled(nn.Identity(), plain, ONE_RANK, 1) == {"mode": None, "dynamic": False}


@pytest.mark.parametrize(("execution", "passes"), [(GRAPHS, 3), (ExecutionConfig(compile=True), 1)])
def test_the_warm_up_goes_on_until_the_next_pass_is_like_all_that_follow(tmp_path, monkeypatch, execution, passes):
    """Each from no gradients, as steps are; on a CPU, where torch's own part is left out."""
    seen = []

    def watched(model, config, ranks, num_states):
        def forward(module, inputs):
            seen.append([parameter.grad is None for parameter in module.parameters()])

        model.register_forward_pre_hook(forward)
        return model

    monkeypatch.setattr("engine.step.compiled", watched)
    config = dataclasses.replace(short_config(tmp_path, tmp_path), execution=execution)
    step = build_step(config, ONE_RANK, 3, IMAGENET_CHANNELS, 10)
    before = {name: tensor.clone() for name, tensor in step.module.state_dict().items()}
    step.warm_up(torch.Size((4, 3, 16, 16)), 3)
    assert len(seen) == passes and all(all(without) for without in seen)
    assert all(torch.equal(tensor, before[name]) for name, tensor in step.module.state_dict().items())
    assert all(parameter.grad is None for parameter in step.module.parameters())


def test_where_torch_makes_none_it_is_refused_and_not_trained_without(monkeypatch):
    """torch only warns, of inputs that are changed for instance, or does not even warn and plays none."""
    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", lambda graph: None)
    replay, counters = torch.cuda.CUDAGraph.replay, torch._dynamo.utils.counters["inductor"]
    monkeypatch.setitem(counters, "cudagraph_skips", 1)  # another model's, in this process
    with graphs_expected(True):
        torch.cuda.CUDAGraph.replay(None)
    with graphs_expected(False):
        pass
    for skips, replays in ((1, 1), (0, 0)):
        with pytest.raises(FeedrateError, match="cuda-graphs is on and torch makes none"), graphs_expected(True):
            counters["cudagraph_skips"] += skips
            for _ in range(replays):
                torch.cuda.CUDAGraph.replay(None)
    assert torch.cuda.CUDAGraph.replay is replay


@pytest.fixture
def graphs_seen(monkeypatch):
    """How often a graph was recorded and played."""
    seen = Counter()

    def counted(name):
        method = getattr(torch.cuda.CUDAGraph, name)

        def count(graph, *given, **named):
            seen[name] += 1
            return method(graph, *given, **named)

        monkeypatch.setattr(torch.cuda.CUDAGraph, name, count)

    for name in ("capture_begin", "replay"):
        counted(name)
    yield seen
    torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("precision", "dropout"), [("fp32", 0.5), ("fp16", 0.0)])
def test_on_a_gpu_graphs_train_as_the_code_they_are_of(tmp_path, graphs_seen, precision, dropout):
    """Sizes in turns, an evaluation and a jump of the weights in between, and in the second epoch a layer at rest; and
    nothing is recorded after the warm-ups."""
    losses = []
    for graphs in (False, True):
        torch._dynamo.reset()
        torch.manual_seed(0)
        config = short_config(tmp_path, tmp_path)
        execution = dataclasses.replace(
            config.execution, device="cuda", precision=precision, compile=True, cuda_graphs=graphs, deterministic=True
        )
        optim = dataclasses.replace(config.optim, frozen_epochs=(("features.0.*", 1, 2),))
        config = dataclasses.replace(config, execution=execution, optim=optim)
        step = build_step(config, ON_CUDA, 3, IMAGENET_CHANNELS, 10, Small(dropout))
        for epoch in range(2):
            step.begin_epoch(epoch)
            for size_px in SIZES_PX:
                step.warm_up(torch.Size((4, 3, size_px, size_px)), 3)
            before = step.module.features[0].weight.clone()
            graphs_seen.clear()
            losses.append(_losses_of_an_epoch(step, 8 * epoch))
            assert torch.equal(step.module.features[0].weight, before * 0.5) == (epoch == 1)
            assert graphs_seen["capture_begin"] == 0
            assert graphs_seen["replay"] >= 2 * 8 if graphs else not graphs_seen  # forward and backward
    assert losses[:2] == losses[2:]


def _losses_of_an_epoch(step, first):
    """Of eight steps, after the fifth of which the model is evaluated and its weights halved."""
    found = []
    for number in range(first, first + 8):
        found.append(step(*_batch(number, SIZES_PX[number // 2 % 2], ON_CUDA.device), number))
        if number == first + 4:
            with torch.no_grad():
                step.module.eval()(torch.zeros(2, 3, 16, 16, device=ON_CUDA.device))
            step.module.load_state_dict({name: tensor * 0.5 for name, tensor in step.module.state_dict().items()})
            step.module.train()
    return [(loss.item(), hits.item()) for loss, hits in found]  # read last: nothing may overwrite them
