"""Blur-pooling against a plain model written out here, with FFCV's rule for where it goes."""

import pytest
import torch
from drawn_models import build_model
from torch import nn
from torch.nn import functional

from engine.models.blur_pool import blur_strided_convolutions
from loaders.errors import FeedrateError

_KERNEL = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16


class _Plain(nn.Module):
    """A blur of each channel by itself, and then the convolution: the reference."""

    def __init__(self, convolution):
        super().__init__()
        self.convolution = convolution

    def forward(self, x):
        padded, (height, width) = functional.pad(x, (1, 1, 1, 1)), x.shape[2:]
        shifts = [(top, left) for top in range(3) for left in range(3)]
        return self.convolution(
            sum(_KERNEL[top, left] * padded[:, :, top : top + height, left : left + width] for top, left in shifts)
        )


def _replace_by_plain(module):
    """FFCV's rule, as its notes have it: stride above 1 and at least 16 channels in."""
    replaced = 0
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d) and max(child.stride) > 1 and child.in_channels >= 16:
            setattr(module, name, _Plain(child))
            replaced += 1
        else:
            replaced += _replace_by_plain(child)
    return replaced


def test_a_blurred_resnet_gives_what_the_plain_reference_gives_forward_and_backward():
    blurred, plain = build_model("resnet18", 10, seed=0), build_model("resnet18", 10, seed=0)
    blur_strided_convolutions(blurred)
    num_blurred = sum(type(module).__name__ == "BlurredConv2d" for module in blurred.modules())
    assert num_blurred == 6 == _replace_by_plain(plain)
    images = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    outputs = [model(images) for model in (blurred, plain)]
    torch.testing.assert_close(outputs[0], outputs[1])
    for output in outputs:
        output.sum().backward()
    torch.testing.assert_close(blurred.conv1.weight.grad, plain.conv1.weight.grad, rtol=1e-3, atol=1e-4)


def test_the_stem_and_the_max_pool_stay_sharp():
    model = build_model("resnet50", 10, seed=0)
    blur_strided_convolutions(model)
    assert type(model.conv1) is nn.Conv2d and type(model.maxpool) is nn.MaxPool2d
    blurred = [name for name, module in model.named_modules() if hasattr(module, "blur")]
    assert blurred == [f"layer{stage}.0.{place}" for stage in (2, 3, 4) for place in ("conv2", "downsample.0")]


def test_the_blur_is_one_two_one_over_sixteen_with_zeros_beyond_the_border():
    convolution = nn.Conv2d(16, 16, 1, stride=2, groups=16, bias=False)
    nn.init.ones_(convolution.weight)
    model = nn.Sequential(convolution)
    blur_strided_convolutions(model)
    dot = torch.zeros(1, 16, 4, 4)
    dot[:, :, 2, 2] = 16
    assert model(dot)[0, 0].tolist() == [[0, 0], [0, 4]]
    corner = torch.full((1, 16, 1, 1), 16.0)
    assert model(corner).flatten().tolist() == [4.0] * 16


def test_parameters_and_their_names_stay_so_that_weights_fit_with_and_without():
    model, plain = build_model("resnet18", 10, seed=0), build_model("resnet18", 10, seed=0)
    blur_strided_convolutions(model)
    assert model.state_dict().keys() == plain.state_dict().keys()
    model.load_state_dict(plain.state_dict())


def test_it_works_in_mixed_precision_and_channels_last():
    model = build_model("resnet18", 10, seed=0).to(memory_format=torch.channels_last)
    blur_strided_convolutions(model)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(torch.randn(2, 3, 64, 64).to(memory_format=torch.channels_last))
    assert out.dtype == torch.bfloat16 and out.isfinite().all()


def test_a_model_without_such_a_convolution_is_told():
    with pytest.raises(FeedrateError, match="blur_pool is on and the model has no convolution that strides"):
        blur_strided_convolutions(build_model("cifar_fast", 10, seed=0))
