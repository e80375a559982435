"""The CIFAR ResNets of He et al. (2015, section 4.2): 6n + 2 layers on 32 × 32 images.

Shortcuts have no parameters ("option A"): where a stage halves the resolution they take every second pixel and pad the
new channels with zeros. ResNet-20, -32, -44, -56 and -110 have 0.27, 0.46, 0.66, 0.85 and 1.7 million parameters.

`cifar_resnet18` is the other kind that is called so: ImageNet's ResNet-18 with a stem that keeps small images large.
"""

import torch
from torch import nn
from torch.nn import functional

_STAGE_WIDTHS = (16, 32, 64)


class _Block(nn.Module):
    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width_out)
        self.stride = stride
        self.new_channels = width_out - width_in

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, width_in, H, W] to [B, width_out, H / stride, W / stride]."""
        out = functional.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        if self.new_channels:
            shortcut = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))
        else:
            shortcut = x
        return functional.relu(out + shortcut)


class CifarResNet(nn.Module):
    """depth = 6n + 2; images float [B, 3, 32, 32] to logits [B, num_classes]."""

    def __init__(self, depth: int, num_classes: int) -> None:
        super().__init__()
        assert (depth - 2) % 6 == 0
        blocks_per_stage = (depth - 2) // 6
        self.conv = nn.Conv2d(3, _STAGE_WIDTHS[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(_STAGE_WIDTHS[0])
        blocks, width = [], _STAGE_WIDTHS[0]
        for stage, stage_width in enumerate(_STAGE_WIDTHS):
            for block in range(blocks_per_stage):
                blocks.append(_Block(width, stage_width, stride=2 if stage and not block else 1))
                width = stage_width
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out = self.blocks(functional.relu(self.norm(self.conv(images))))
        return self.classifier(out.mean(dim=(2, 3)))  # type: ignore[no-any-return]


def cifar_resnet18(num_classes: int) -> nn.Module:
    """ResNet-18 whose stem is a 3 × 3 convolution of stride 1 without max-pooling: 11.17 million parameters.

    Images float [B, 3, 32, 32] to logits [B, num_classes]; its last maps are 4 × 4 instead of 1 × 1.
    """
    from torchvision.models import resnet18

    model: nn.Module = resnet18(weights=None, num_classes=num_classes)
    stem = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's own
    model.conv1, model.maxpool = stem, nn.Identity()
    return model
