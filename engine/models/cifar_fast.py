"""A small net for 32 × 32 images that learns fast, in the tradition of ResNet-9 (Page, 2018) and airbench (Jordan,
2024).

What makes it fast: the first layer whitens small patches of the images and needs no training, blocks shrink maps by
max-pooling right after their first convolution, and logits are scaled down so that a large learning rate is stable.
"""

import itertools

import torch
from torch import nn
from torch.nn import functional

_PATCH_PX = 2
_PATCH_VALUES = 3 * _PATCH_PX**2
_WIDTHS = (64, 256, 256)
_LOGIT_SCALE = 1 / 9
_STATISTICS_MOMENTUM = 0.4  # few batches: running statistics must follow the weights
_NORM_FLOOR = 1e-12  # maps that vary little count as much as others
_VARIANCE_FLOOR = 5e-4  # of normalised pixels: keeps the directions that hold next to nothing from being blown up


def _norm(width: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(width, eps=_NORM_FLOOR, momentum=_STATISTICS_MOMENTUM)
    norm.weight.requires_grad_(False)
    return norm


class _Group(nn.Module):
    """Convolution, max-pooling by 2, norm, GELU, convolution, norm, GELU. It starts by passing on what comes in."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1, bias=False)
        self.norm1 = _norm(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1, bias=False)
        self.norm2 = _norm(width_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, width_in, H, W] to [B, width_out, H // 2, W // 2]."""
        x = functional.gelu(self.norm1(functional.max_pool2d(self.conv1(x), 2)))
        return functional.gelu(self.norm2(self.conv2(x)))


class CifarFast(nn.Module):
    """Images float [B, 3, 32, 32], normalised, to logits [B, num_classes]; larger images work too. 1.97 million
    parameters for 10 classes.

    The first layer's filters are drawn from the seed like all others until `whiten_with` sets them, and are not trained
    if `freeze_whitening`; its biases are always trained.
    """

    def __init__(self, num_classes: int, freeze_whitening: bool = True) -> None:
        super().__init__()
        self.whitening = nn.Conv2d(3, 2 * _PATCH_VALUES, _PATCH_PX)
        nn.init.zeros_(self.whitening.bias)  # type: ignore[arg-type]
        widths = (2 * _PATCH_VALUES, *_WIDTHS)
        self.groups = nn.Sequential(*(_Group(before, after) for before, after in itertools.pairwise(widths)))
        self.classifier = nn.Linear(widths[-1], num_classes, bias=False)
        for part in self.groups.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.dirac_(part.weight[: part.in_channels])
        self.whitening.weight.requires_grad_(not freeze_whitening)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.groups(functional.gelu(self.whitening(images)))
        return self.classifier(features.amax(dim=(2, 3))) * _LOGIT_SCALE  # type: ignore[no-any-return]

    @torch.no_grad()
    def whiten_with(self, filters: torch.Tensor) -> None:
        """Make [12, 3, 2, 2] `filters` and their negatives the first layer."""
        self.whitening.weight.copy_(torch.cat([filters, -filters]))


def patch_moments(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Over all 2 × 2 patches of float [B, 3, H, W] images: the sum of their outer products, float64 [12, 12], and their
    number, float64 scalar. Both may be added up over batches and ranks.
    """
    patches = functional.unfold(images, _PATCH_PX).transpose(1, 2).reshape(-1, _PATCH_VALUES).double()
    return patches.T @ patches, torch.full((), len(patches), dtype=torch.float64, device=patches.device)


def whitening_filters(outer_products: torch.Tensor, count: torch.Tensor) -> torch.Tensor:
    """Filters [12, 3, 2, 2] whose outputs over those patches have unit power and no correlation, largest variance last.

    Each is an eigenvector of the patches' second moments over the root of its eigenvalue. Its sign, which the
    decomposition leaves open, is such that its largest value is positive.
    """
    values, vectors = torch.linalg.eigh(outer_products / count)
    filters = (vectors / (values.clamp(min=0) + _VARIANCE_FLOOR).sqrt()).T
    largest = filters.gather(1, filters.abs().argmax(dim=1, keepdim=True))
    signed: torch.Tensor = filters * largest.sign()
    return signed.float().view(_PATCH_VALUES, 3, _PATCH_PX, _PATCH_PX)
