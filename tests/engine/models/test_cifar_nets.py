import pytest
import torch
from drawn_models import build_model
from torch import nn

from engine.models.cifar_fast import CifarFast, patch_moments, whitening_filters


def _num_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("depth", "millions"), [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85), (110, 1.7)])
def test_cifar_resnets_have_the_papers_layers_and_parameters(depth, millions):
    model = build_model(f"cifar_resnet{depth}", num_classes=10, seed=0)
    weighted = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(weighted) == depth
    assert _num_parameters(model) / 1e6 == pytest.approx(millions, abs=0.05 if depth == 110 else 0.01)


def test_cifar_resnet_halves_its_resolution_twice():
    model = build_model("cifar_resnet20", num_classes=10, seed=0)
    assert model.blocks(torch.zeros(2, 16, 32, 32)).shape == (2, 64, 8, 8)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_an_option_a_shortcut_has_no_parameters_and_passes_every_second_pixel():
    block = build_model("cifar_resnet20", num_classes=10, seed=0).blocks[3]
    nn.init.zeros_(block.norm2.weight)  # the residual branch gives nothing: what is left is the shortcut
    x = torch.rand(1, 16, 8, 8)
    out = block(x)
    torch.testing.assert_close(out[:, :16], x[:, :, ::2, ::2])
    assert not out[:, 16:].any()


def test_cifar_resnet18_is_imagenets_but_for_a_stem_that_keeps_small_images_large():
    model, imagenets = build_model("cifar_resnet18", 10, seed=0), build_model("resnet18", 10, seed=0)
    assert _num_parameters(model) == 11_173_962  # stated in many places for CIFAR-10
    assert _num_parameters(imagenets) - _num_parameters(model) == 64 * 3 * (7**2 - 3**2)
    maps = []
    model.layer1.register_forward_hook(lambda *call: maps.append(call[2].shape))
    model.layer4.register_forward_hook(lambda *call: maps.append(call[2].shape))
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert maps == [(2, 64, 32, 32), (2, 512, 4, 4)]


def test_cifar_fast_pools_to_3_pixels_and_scales_its_logits():
    model = build_model("cifar_fast", 10, seed=0).eval()
    images = torch.randn(4, 3, 32, 32)
    features = model.groups(nn.functional.gelu(model.whitening(images)))
    assert features.shape == (4, 256, 3, 3)
    plain = features.flatten(2).max(dim=2).values @ model.classifier.weight.T / 9
    torch.testing.assert_close(model(images), plain)
    assert _num_parameters(model) == 1_972_792


def test_cifar_fast_starts_by_passing_on_what_comes_in():
    group = build_model("cifar_fast", 10, seed=0).groups[1]
    x = torch.randn(2, 64, 8, 8)
    torch.testing.assert_close(group.conv1(x)[:, :64], x)
    assert group.conv1.weight[64:].std() > 0.01
    x = torch.randn(2, 256, 8, 8)
    torch.testing.assert_close(group.conv2(x), x)


def test_cifar_fasts_norms_have_biases_and_no_scales_to_train():
    model = build_model("cifar_fast", 10, seed=0)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 6
    assert all(norm.bias.requires_grad and not norm.weight.requires_grad for norm in norms)
    assert all((norm.weight == 1).all() for norm in norms)


def test_cifar_fasts_first_filters_are_frozen_by_option_and_its_biases_never():
    frozen, trained = CifarFast(10), CifarFast(10, freeze_whitening=False)
    assert not frozen.whitening.weight.requires_grad and frozen.whitening.bias.requires_grad
    assert trained.whitening.weight.requires_grad


def test_patch_moments_are_those_of_every_patch_by_itself():
    images = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    total, count = torch.zeros(12, 12, dtype=torch.float64), 0
    for image in images:
        for top in range(4):
            for left in range(3):
                patch = image[:, top : top + 2, left : left + 2].reshape(12)
                total += torch.outer(patch, patch)
                count += 1
    outer_products, counted = patch_moments(images)
    assert counted == count
    torch.testing.assert_close(outer_products, total)


def test_whitened_patches_have_unit_power_and_no_correlation():
    mixing = torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    images = torch.einsum("ij,bjhw->bihw", mixing, noise) + 0.3
    model = CifarFast(10)
    model.whiten_with(whitening_filters(*patch_moments(images)))
    responses = (model.whitening(images)).detach().transpose(0, 1).flatten(1).double()
    assert torch.equal(responses[12:], -responses[:12])
    power = responses[:12] @ responses[:12].T / responses.shape[1]
    torch.testing.assert_close(power, torch.eye(12, dtype=torch.float64), atol=0.02, rtol=0)


def test_flat_images_do_not_blow_up_the_filters():
    filters = whitening_filters(*patch_moments(torch.ones(2, 3, 8, 8)))
    assert filters.isfinite().all() and filters.abs().max() < 50


def test_a_filters_largest_value_is_positive_so_that_no_library_can_choose_its_sign():
    filters = whitening_filters(*patch_moments(torch.randn(8, 3, 8, 8))).flatten(1)
    assert (filters.max(dim=1).values >= -filters.min(dim=1).values).all()
