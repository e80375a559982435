import re

import pytest
import torch
from drawn_models import build_model
from torch import nn

from engine.models.architectures import new_model
from engine.models.classifier import classifier_names
from engine.models.image_sizes import ImageSizes
from engine.models.model_config import ModelConfig
from engine.models.names import model_names
from loaders.errors import FeedrateError

_SMALL = ImageSizes((64,), 64)


def _new(seed=0, sizes=_SMALL, **settings):
    return new_model(ModelConfig(**settings), 10, sizes, seed)


def _outputs(layer):
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def test_all_of_torchvisions_classifiers_are_known_and_their_last_layer_is_found():
    names = [name for name in model_names() if "cifar" not in name]
    assert {"resnet50", "efficientnet_b0", "vit_b_16", "swin_t", "maxvit_t", "googlenet", "inception_v3"} <= set(names)
    assert len(names) >= 80
    one_of_each_family = {re.match("[a-z]+", name)[0]: name for name in reversed(names) if "regnet" not in name}
    for name in [*one_of_each_family.values(), "regnet_y_400mf"]:
        # shapes alone are enough, but not for regnet, which computes its widths with tensors
        with torch.device("cpu" if "regnet" in name else "meta"):
            model = _new(name=name, sizes=ImageSizes((224,), 224))
        (classifier,) = classifier_names(model, 10)
        assert _outputs(model.get_submodule(classifier)) == 10, name


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_models_with_auxiliary_classifiers_give_their_logits_alone(name):
    model = _new(name=name).train()
    assert model(torch.randn(2, 3, 96, 96)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "classifiers"),
    [
        ("timm/efficientnet_b0", ("classifier",)),
        ("timm/resnet18", ("fc",)),
        ("timm/vit_tiny_patch16_224", ("head",)),
        ("timm/convnext_atto", ("head.fc",)),
        ("timm/deit_tiny_distilled_patch16_224", ("head", "head_dist")),
        ("timm/vit_tiny_patch16_224.augreg_in21k", ("head",)),
    ],
)
def test_timms_models_are_known_and_their_classifiers_are_found(name, classifiers):
    model = _new(name=name).eval()
    assert classifier_names(model, 10) == classifiers
    assert all(_outputs(model.get_submodule(each)) == 10 for each in classifiers)
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 10)


@pytest.mark.parametrize("name", ["vit_b_16", "timm/vit_tiny_patch16_224", "timm/swin_tiny_patch4_window7_224"])
def test_models_made_for_one_size_are_made_for_the_runs(name):
    with torch.device("meta"):
        model = _new(name=name, sizes=ImageSizes((128,), 128))
        assert model(torch.empty(1, 3, 128, 128)).shape == (1, 10)


def test_timms_vision_transformers_take_several_sizes():
    model = _new(name="timm/vit_tiny_patch16_224", sizes=ImageSizes((32, 48), 64)).eval()
    assert all(model(torch.zeros(1, 3, side, side)).shape == (1, 10) for side in (32, 48, 64))


def test_a_side_that_the_patches_do_not_divide_is_told():
    with pytest.raises(FeedrateError, match="vit_b_16 cannot be made for images of 50 px"):
        _new(name="vit_b_16", sizes=ImageSizes((50,), 50))


@pytest.mark.parametrize("name", ["cifar_resnet20", "cifar_resnet18", "cifar_fast", "resnet18", "timm/resnet18"])
def test_weights_depend_on_the_seed_and_on_nothing_else(name):
    first = _new(name=name, seed=1).state_dict()
    torch.rand(5)
    again, other = _new(name=name, seed=1).state_dict(), _new(name=name, seed=2).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet19", "unknown model 'resnet19': did you mean resnet1"),
        ("vit_base_patch16_224", "did you mean timm/vit_base_patch16_224?"),
        ("timm/efficientnetb0", "did you mean timm/efficientnet_b0?"),
        ("cifar_resnet21", "did you mean cifar_resnet"),
        ("cifarfast", "did you mean cifar_fast?"),
        ("my-model:Net", "and your own as module:factory"),
    ],
)
def test_an_unknown_model_names_the_nearest_of_all(name, message):
    with pytest.raises(FeedrateError) as error:
        build_model(name, 10, 0)
    assert message in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("name", ["efficientnet_b0", "vgg11", "densenet121", "mobilenet_v3_small", "timm/resnet18"])
def test_dropout_is_set_where_the_model_takes_it(name):
    with torch.device("meta"):
        model = _new(name=name, dropout=0.375)
    found = [module.p for module in model.modules() if isinstance(module, nn.Dropout)]
    found += [module.drop_rate for module in model.modules() if hasattr(module, "drop_rate")]
    assert 0.375 in found


@pytest.mark.parametrize("name", ["efficientnet_b0", "convnext_tiny", "swin_t", "maxvit_t"])
def test_drop_path_is_set_where_the_model_takes_it_and_grows_with_depth(name):
    from torchvision.ops import StochasticDepth

    sizes = ImageSizes((224,), 224)
    with torch.device("meta"):
        models = [_new(name=name, sizes=sizes, drop_path=rate) for rate in (0.3, 0.0)]
    rates, none = [[m.p for m in model.modules() if isinstance(m, StochasticDepth)] for model in models]
    assert rates == sorted(rates) and 0.27 < rates[-1] <= 0.3 + 1e-9
    assert not any(none)


def test_timms_drop_path_is_set():
    from timm.layers import DropPath

    model = _new(name="timm/vit_tiny_patch16_224", drop_path=0.25)
    assert max(module.drop_prob for module in model.modules() if isinstance(module, DropPath)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnet18", "dropout": 0.1}, "resnet18 does not take --model.dropout"),
        ({"name": "resnet18", "drop_path": 0.1}, "resnet18 takes no drop path"),
        ({"name": "mobilenet_v3_small", "drop_path": 0.1}, "mobilenet_v3_small takes no drop path"),
        ({"name": "cifar_resnet20", "dropout": 0.1}, "cifar_resnet20 takes no dropout"),
        ({"name": "timm/vgg11", "drop_path": 0.1}, "timm/vgg11 does not take --model.drop-path"),
    ],
)
def test_a_rate_the_model_does_not_take_is_told_never_swallowed(settings, message):
    with torch.device("meta"), pytest.raises(FeedrateError, match=message):
        _new(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dropout": 1.0}, "dropout is 1: it must be below 1"),
        ({"drop_path": 1.5}, "drop_path is 1.5: it must lie between 0 and 1"),
        ({"dropout": float("nan")}, "dropout is nan"),
        ({"freeze_backbone": True}, "there are no weights to keep"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(FeedrateError, match=message):
        ModelConfig(**settings)
