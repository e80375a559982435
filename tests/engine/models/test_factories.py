"""Models of people's own: what a factory may give, and one sentence for whatever is wrong with it."""

import sys

import pytest
import torch
from short_runs import ONE_RANK
from torch import nn

from engine.config import Config, DataConfig, ExecutionConfig, ModelConfig
from engine.dist import Ranks
from engine.model import describe_model, prepare_model
from engine.models.classifier import classifier_names
from loaders.errors import FeedrateError

TWO_RANKS = Ranks(0, 2, 0, 2, torch.device("cpu"))
_PROGRAM = """
import torch
from torch import nn
from loaders.errors import FeedrateError


class Net(nn.Module):
    def __init__(self, num_classes, width=16):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 4, 3, stride=2))
        self.head = nn.Linear(4, num_classes)
        self.positions = None

    def forward(self, images):
        if self.positions is None:
            self.positions = torch.zeros(4, device=images.device)
        return self.head(self.body(images).mean(dim=(2, 3)) + self.positions)


class Views(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4 * 16 * 16, num_classes)

    def forward(self, images):
        return self.head(self.stem(images).view(len(images), -1))


class Idle(Net):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(4, num_classes)


class Registers(Net):
    def forward(self, images):
        if not hasattr(self, "grid"):
            self.register_buffer("grid", torch.zeros(4, device=images.device))
        return super().forward(images) + self.grid.sum()


class Frozen(Net):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.requires_grad_(False)


class Refuses(Net):
    def forward(self, images):
        if images.device.type != "meta" and self.training == self.when:
            raise RuntimeError("it is full moon")
        return super().forward(images)


class RefusesToTrain(Refuses):
    when = True


class RefusesToAnswer(Refuses):
    when = False


class HeadFirst(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(4, num_classes)
        self.stem = nn.Conv2d(3, 4, 3)

    def forward(self, images):
        return self.head(self.stem(images).mean(dim=(2, 3)))


class Named(HeadFirst):
    pretrained_cfg = {"classifier": "head"}


class Wrong(Net):
    def forward(self, images):
        return self.haed(images)


def wide(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, num_classes + 2))


def without_classes(width):
    return Net(width)


def with_more(num_classes, width):
    return Net(num_classes, width)


def raises(num_classes):
    return Net([1, 2][num_classes])


def refuses(num_classes):
    raise FeedrateError("my own sentence")


def gives_nothing(num_classes):
    pass


def lazy(num_classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(num_classes))


class Unshaped(HeadFirst):
    def forward(self, images):
        return super().forward(images * float(images.numpy().max() + 1))


value = 3
"""


@pytest.fixture(autouse=True)
def _own_module(tmp_path, monkeypatch):
    (tmp_path / "own_nets.py").write_text(_PROGRAM)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_nets", None)


def _config(name, channels_last=True, **settings):
    return Config(
        name="own",
        data=DataConfig(batch_size=4, size_px=16, eval_size_px=16, eval_resize_px=18),
        model=ModelConfig(f"own_nets:{name}", **settings),
        execution=ExecutionConfig(device="cpu", channels_last=channels_last),
    )


def _prepare(name, ranks=ONE_RANK, fresh=True, **settings):
    return prepare_model(_config(name, **settings), 10, ranks, lambda text: None, fresh)


def test_a_factory_gives_the_model_with_weights_of_the_seed_alone():
    first = _prepare("Net")
    torch.rand(5)
    again = _prepare("Net")
    assert all(torch.equal(tensor, again.state_dict()[of]) for of, tensor in first.state_dict().items())
    assert first(torch.zeros(2, 3, 16, 16)).shape == (2, 10) and first.training
    assert describe_model(again, _config("Net")).startswith("own_nets:Net, 0.00 million parameters, ")


def test_what_a_model_works_out_once_is_worked_out_where_it_trains():
    """Models are asked by shapes alone, and what they kept of that had no numbers."""
    model = _prepare("Net")
    describe_model(model, _config("Net"))
    assert model.positions is None
    assert model(torch.zeros(2, 3, 16, 16)).device.type == "cpu"


def test_one_that_cannot_be_asked_by_shapes_is_taken_and_not_counted():
    assert describe_model(_prepare("Unshaped"), _config("Unshaped")) == "own_nets:Unshaped, 0.00 million parameters"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere", "own_nets.py has no nowhere: see docs/extending.md"),
        ("value", "'own_nets:value' is of type int: it must be a function or class that gives a model"),
        (
            "without_classes",
            "called as without_classes(num_classes=10) (missing a required argument: 'width'",
        ),
        ("with_more", "'width'): it must take num_classes, and have a default for whatever else it takes"),
        (
            "raises",
            "called as raises(num_classes=10): IndexError: list index out of range (own_nets.py, line ",
        ),
        ("refuses", "my own sentence"),
        ("gives_nothing", "gives_nothing(num_classes=10), gives NoneType: it must give a torch.nn.Module"),
        ("lazy", "a model whose 1.weight has no shape yet"),
        ("wide", "gives [4, 12] for 4 images, and must give one score for each of 10 classes"),
        ("Wrong", "('Wrong' object has no attribute 'haed')"),
        ("Views", "own_nets:Views cannot be computed with channels last (RuntimeError: view size is not compatible"),
    ],
)
def test_whatever_is_wrong_with_it_is_one_sentence(name, says):
    with pytest.raises(FeedrateError) as error:
        _prepare(name)
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"dropout": 0.1}, "is told nothing but the number of classes: leave --model.dropout"),
        ({"drop_path": 0.0}, "is told nothing but the number of classes: leave --model.dropout"),
        ({"weights": "default"}, "no weights are published for own_nets:Net: --model.weights must name a file"),
    ],
)
def test_settings_that_a_factory_cannot_be_told_are_refused(settings, says):
    with pytest.raises(FeedrateError, match=says):
        _prepare("Net", **settings)


def test_blur_pool_is_put_in_where_there_is_a_place_for_it():
    assert any(type(module).__name__ == "BlurredConv2d" for module in _prepare("Net", blur_pool=True).modules())
    with pytest.raises(FeedrateError, match="blur_pool is on and the model has no convolution"):
        _prepare("HeadFirst", blur_pool=True)


def test_one_that_needs_the_plain_layout_is_taken_in_it():
    assert _prepare("Views", channels_last=False)(torch.zeros(2, 3, 16, 16)).shape == (2, 10)


def test_weights_without_a_part_in_the_scores_are_refused_where_ranks_would_wait_for_their_gradients():
    assert isinstance(_prepare("Idle"), nn.Module)
    with pytest.raises(FeedrateError, match="own_nets:Idle makes no use of norm.weight and 1 more, and several ranks"):
        _prepare("Idle", TWO_RANKS)
    alone, one_of_two = _prepare("Net"), _prepare("Net", TWO_RANKS)
    assert all(torch.equal(tensor, one_of_two.state_dict()[of]) for of, tensor in alone.state_dict().items())
    assert one_of_two.training and all(parameter.grad is None for parameter in one_of_two.parameters())


def test_what_a_model_registers_once_is_registered_where_it_trains():
    for ranks in (ONE_RANK, TWO_RANKS):
        model = _prepare("Registers", ranks)
        assert "grid" not in dict(model.named_buffers())
        assert model(torch.zeros(2, 3, 16, 16)).isfinite().all() and "grid" in dict(model.named_buffers())


def test_a_model_that_fails_is_not_blamed_for_its_layout_and_is_left_as_it_was():
    with pytest.raises(FeedrateError, match=r"own_nets:RefusesToAnswer fails on an image of 16 px \(Runtime"):
        _prepare("RefusesToAnswer")
    with pytest.raises(FeedrateError, match=r"RefusesToTrain cannot be trained on two images of 16 px \(Runtime"):
        _prepare("RefusesToTrain", TWO_RANKS)


def test_weights_that_are_frozen_need_no_part_in_the_scores(tmp_path):
    assert not any(tensor.requires_grad for tensor in _prepare("Frozen", TWO_RANKS).parameters())
    weights = tmp_path / "weights.pt"
    torch.save(_prepare("Idle").state_dict(), weights)
    assert _prepare("Idle", TWO_RANKS, weights=str(weights), freeze_backbone=True).head.weight.requires_grad


def test_its_classifier_is_the_last_layer_or_the_one_it_names(tmp_path):
    assert classifier_names(_prepare("Net"), 10) == classifier_names(_prepare("Named"), 10) == ("head",)
    assert classifier_names(_prepare("HeadFirst"), 10) == classifier_names(nn.Flatten(), 10) == ()
    weights = tmp_path / "weights.pt"
    torch.save(_prepare("HeadFirst").state_dict(), weights)
    with pytest.raises(FeedrateError, match="the last layer of own_nets:HeadFirst does not give one score a class"):
        _prepare("HeadFirst", weights=str(weights), freeze_backbone=True)
    frozen = _prepare("Named", weights=str(weights), freeze_backbone=True)
    assert [of for of, tensor in frozen.named_parameters() if tensor.requires_grad] == ["head.weight", "head.bias"]
