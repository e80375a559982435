import pytest
import torch
from drawn_models import build_model
from torch import nn

from engine.config import Config, DataConfig
from engine.model import image_sizes
from engine.models.count import multiply_adds
from engine.models.image_sizes import ImageSizes, refuse_sizes
from loaders.errors import FeedrateError


def test_a_model_is_asked_for_every_size_of_the_run():
    data = DataConfig(batch_size=12, size_schedule=((0, 32), (2, 48), (9, 64)), eval_size_px=56, eval_resize_px=64)
    assert image_sizes(Config(epochs=5, data=data), world_size=3) == ImageSizes((32, 48), 56, 4, 256)


def test_images_a_model_can_take_pass_and_leave_no_trace():
    model = build_model("resnet18", 10, seed=0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    refuse_sizes(model, "resnet18", 10, ImageSizes((32, 64), 64))
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "sizes", "message"),
    [
        ("vgg11", ImageSizes((16,), 224), "vgg11 cannot be trained on 2 images of 16 × 16 px at a time"),
        ("alexnet", ImageSizes((64,), 32), "alexnet cannot be evaluated on 1 images of 32 × 32 px at a time"),
        ("resnet18", ImageSizes((32,), 32, training_batch=1), "resnet18 cannot be trained on 1 images of 32 × 32 px"),
        ("vit_b_16", ImageSizes((224, 160), 224), "vit_b_16 cannot be trained on 2 images of 160 × 160 px"),
    ],
)
def test_images_a_model_cannot_take_are_told_in_one_sentence(name, sizes, message):
    model = build_model(name, 10, seed=0)
    with pytest.raises(FeedrateError) as error:
        refuse_sizes(model, name, 10, sizes)
    assert message in str(error.value)
    assert "\n" not in str(error.value) and "--data.size-px" in str(error.value)


def test_a_model_that_gives_no_score_a_class_is_told():
    with pytest.raises(FeedrateError, match=r"it gives \[2, 3, 32, 32\] for 2 images"):
        refuse_sizes(nn.Identity(), "odd", 10, ImageSizes((32,), 32))


class _AsksForNumbers(nn.Module):
    def forward(self, images):
        return images.mean(dim=(1, 2, 3))[:, None].expand(-1, 10) * images.sum().item()


def test_a_model_that_cannot_be_asked_by_shapes_is_asked_in_earnest():
    refuse_sizes(_AsksForNumbers(), "odd", 10, ImageSizes((32,), 32, training_batch=4))
    assert multiply_adds(_AsksForNumbers(), 32) is None


def _plain_count_of_cifar_resnet20():
    """3 × 3 convolutions, three stages of six, and the classifier, by hand."""
    total = 3 * 16 * 9 * 32**2 + 64 * 10
    for side, width, before in ((32, 16, 16), (16, 32, 16), (8, 64, 32)):
        total += before * width * 9 * side**2 + 5 * width * width * 9 * side**2
    return total


def test_multiply_adds_are_those_of_the_layers_counted_by_hand():
    model = build_model("cifar_resnet20", 10, seed=0)
    assert multiply_adds(model, 32) == _plain_count_of_cifar_resnet20()
    assert model.training


def test_multiply_adds_count_attention():
    dim, depth, tokens = 192, 12, (64 // 16) ** 2 + 1
    from engine.models.architectures import new_model
    from engine.models.model_config import ModelConfig

    model = new_model(ModelConfig("timm/vit_tiny_patch16_224"), 10, ImageSizes((64,), 64), 0)
    layers = depth * (12 * dim * dim * tokens + 2 * tokens * tokens * dim)
    assert multiply_adds(model, 64) == layers + (tokens - 1) * 3 * 16 * 16 * dim + dim * 10
