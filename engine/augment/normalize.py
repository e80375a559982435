"""uint8 pixels to the numbers a model takes."""

import torch

from loaders.records import ChannelStatistics

IMAGENET_CHANNELS = ChannelStatistics(
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    source="ImageNet's, as torchvision's reference scripts state them (0.485, 0.456, 0.406 and so on, × 255)",
)

_SHAPES_KEPT = 2  # of training and of evaluation


class Normalize:
    """uint8 [B, 3, H, W] of 0-255 to float32 of mean 0 and standard deviation 1 a channel, in the model's layout.

    On a CPU the result is valid until the next call with this shape, which writes into the same memory: pages that are
    new for each batch cost more than the arithmetic.
    """

    def __init__(self, channels: ChannelStatistics, device: torch.device, channels_last: bool) -> None:
        self.device = device
        self._mean = torch.tensor(channels.mean, dtype=torch.float32, device=device)
        self._scale = 1 / torch.tensor(channels.std, dtype=torch.float32, device=device)
        self._channels_last = channels_last
        self._kept: dict[torch.Size, torch.Tensor] = {}

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        normalised = self._memory(images.shape).copy_(images)
        if self._channels_last:
            # whole rows at a time: three values a pixel are too few for vectors
            rows, width = normalised.permute(0, 2, 3, 1), images.shape[3]
            rows = rows.view(*rows.shape[:2], 3 * width)
            rows.sub_(self._mean.repeat(width)).mul_(self._scale.repeat(width))
        else:
            normalised.sub_(self._mean.view(1, 3, 1, 1)).mul_(self._scale.view(1, 3, 1, 1))
        return normalised

    def _memory(self, shape: torch.Size) -> torch.Tensor:
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        if self.device.type != "cpu":
            return torch.empty(shape, dtype=torch.float32, device=self.device, memory_format=layout)
        if shape not in self._kept:
            if len(self._kept) == _SHAPES_KEPT:
                self._kept.clear()  # a schedule has come to another size
            with torch.inference_mode(False):  # an evaluation may come first, and training must be able to use it
                self._kept[shape] = torch.empty(shape, dtype=torch.float32, memory_format=layout)
        return self._kept[shape]
