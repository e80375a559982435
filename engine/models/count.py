"""How large a model is."""

from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .image_sizes import shape_only


def num_parameters(model: nn.Module) -> int:
    """Numbers that training may move or that are frozen; buffers, such as running means, are not counted."""
    return sum(parameter.numel() for parameter in model.parameters())


def multiply_adds(model: nn.Module, side_px: int) -> int | None:
    """Multiplications with addition of one forward pass for one image: of convolutions, matrix products and attention.

    None for a model that cannot be asked by shapes alone. Counted in training mode, in which attention is not fused
    into one operation that nobody counts; nothing is computed, and the mode is left as it was.
    """
    was_training = model.training
    counter = FlopCounterMode(display=False)
    try:
        with counter:
            shape_only(model.train(), 2, side_px)
    except Exception:  # what people's own models say to it can be anything
        return None
    finally:
        model.train(was_training)
    return int(counter.get_total_flops()) // 4  # two images, and a multiplication with addition counts twice there
