"""uint8 pixels to the numbers a model takes."""

import torch

from loaders.records import ChannelStatistics

IMAGENET_CHANNELS = ChannelStatistics(
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    source="ImageNet's, as torchvision's reference scripts state them (0.485, 0.456, 0.406 and so on, × 255)",
)


class Normalize:
    """uint8 [B, 3, H, W] of 0-255 to float32 of mean 0 and standard deviation 1 a channel, in the model's layout."""

    def __init__(self, channels: ChannelStatistics, device: torch.device, channels_last: bool) -> None:
        self.device = device
        self._mean = torch.tensor(channels.mean, dtype=torch.float32, device=device).view(1, 3, 1, 1)
        self._scale = 1 / torch.tensor(channels.std, dtype=torch.float32, device=device).view(1, 3, 1, 1)
        self._layout = torch.channels_last if channels_last else torch.contiguous_format

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return images.to(torch.float32, memory_format=self._layout).sub_(self._mean).mul_(self._scale)
