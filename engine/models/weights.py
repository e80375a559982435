"""Starting from weights that were trained before: what they change in the model, and those published for it."""

import sys
from collections import Counter
from collections.abc import Callable, Iterable

import torch
from torch import nn

from loaders.errors import FeedrateError, first_line
from loaders.named import is_named

from .architectures import timm_size_keywords
from .image_sizes import ImageSizes
from .names import OWN, TIMM
from .weight_files import Weights

PUBLISHED = "default"


def published_weights(name: str, sizes: ImageSizes) -> Weights:
    """The weights published for the model called `name`, from torchvision's or timm's hub or its cache."""
    if name in OWN or is_named(name):
        raise FeedrateError(f"no weights are published for {name}: --model.weights must name a file")
    try:
        return _of_timm(name, sizes) if name.startswith(TIMM) else _of_torchvision(name)
    except Exception as error:  # each hub's client has its own
        raise FeedrateError(
            f"the weights published for {name} cannot be had ({first_line(error)}):"
            " without a network, --model.weights must name a file"
        ) from error


def named_as_in(model: nn.Module, weights: Weights, source: str, say: Callable[[str], None]) -> Weights:
    """`weights` by the model's names, where most of these stand behind a common beginning there.

    Lightning and self-supervised methods put the attribute that held the model before each name, `model.` or
    `backbone.`. What is taken off, and what else is passed over, is said. Raises FeedrateError where several beginnings
    have most of the names, of other weights.
    """
    own = model.state_dict()
    fitting = Counter(name[:at] for name in weights for at in _starts(name) if name[at:] in own)
    beginnings = [beginning for beginning, count in fitting.items() if 2 * count > len(own)]
    if not beginnings or "" in beginnings:
        return weights
    several = [_within(weights, beginning) for beginning in beginnings]
    if not all(_are_equal(several[0], other, own) for other in several[1:]):
        raise FeedrateError(
            f"{source} holds several such models, their names beginning with {' or '.join(beginnings)}: save the"
            " weights of one to a file of its own"
        )
    named = {name: tensor for name, tensor in weights.items() if name in own} | several[0]
    others = sorted({name.split(".")[0] for name in weights if name not in own and not name.startswith(beginnings[0])})
    passed_over = f"; passed over: {', '.join(others)}" if others else ""
    say(f"{source}: '{beginnings[0]}', with which names begin there, is taken off{passed_over}")
    return named


def take_over(model: nn.Module, weights: Weights, classifier: tuple[str, ...], source: str) -> list[str]:
    """Put `weights` into `model`; only its classifier may keep its own where they do not fit.

    Returns, as phrases, which layers were replaced and what was left out. Raises FeedrateError where anything else
    does not fit.
    """
    own = model.state_dict()
    weights = _fitted(model, weights)
    absent = [name for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    shapes = [name for name in own if name in weights and weights[name].shape != own[name].shape]
    surplus = [name for name in weights if name not in own]
    # whole parts that the model does not have, such as auxiliary classifiers, may be left out; not layers of one it has
    parts = {name.split(".")[0] for name in own}
    left_out = sorted({name.split(".")[0] for name in surplus} - parts)
    wrong = [f"{name} is missing" for name in absent if not _is_of(name, classifier)]
    wrong += [
        f"{name} is {_shape(weights[name])} and must be {_shape(own[name])}"
        for name in shapes
        if not _is_of(name, classifier)
    ]
    wrong += [
        f"{name} is unknown" for name in surplus if name.split(".")[0] not in left_out and not _is_of(name, classifier)
    ]
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise FeedrateError(f"{source} does not fit the model: {wrong[0]}{more}; weights must be of the same model")
    unfit = [layer for layer in classifier if any(_is_of(name, (layer,)) for name in absent + shapes)]
    fitting = {name: tensor for name, tensor in weights.items() if name in own and not _is_of(name, tuple(unfit))}
    model.load_state_dict(own | fitting)
    return [_replaced(layer, weights, own) for layer in unfit] + [f"left out: {part}" for part in left_out]


def refuse_other_number(model: nn.Module, weights: Weights, classifier: tuple[str, ...], source: str) -> None:
    """Raise FeedrateError where `weights` give scores of more or fewer classes than `model`, the set's, does."""
    own = model.state_dict()
    for name in own:
        if not _is_of(name, classifier) or name not in weights:
            continue
        given, wanted = weights[name].shape, own[name].shape
        if given[:1] != wanted[:1] and given[1:] == wanted[1:]:
            raise FeedrateError(
                f"{source} was trained on {given[0]} classes ({name} gives so many scores) and the set has {wanted[0]}:"
                " --data.path must name a set of the classes it was trained on"
            )


def _of_torchvision(name: str) -> Weights:
    from torchvision import models

    weights: Weights = models.get_model_weights(name).DEFAULT.get_state_dict(progress=False, check_hash=True)
    return weights


def _of_timm(name: str, sizes: ImageSizes) -> Weights:
    import timm

    # made for our size of images, so that timm resamples what depends on it; with all of its own classes
    keywords = timm_size_keywords(name, sizes)[-1]
    return timm.create_model(name.removeprefix(TIMM), pretrained=True, **keywords).state_dict()


def _fitted(model: nn.Module, weights: Weights) -> Weights:
    """`weights` with position embeddings resampled to the model's size of images, by the model's own library."""
    from torchvision.models import VisionTransformer
    from torchvision.models.vision_transformer import interpolate_embeddings

    if isinstance(model, VisionTransformer) and "encoder.pos_embedding" in weights:
        fitted: Weights = interpolate_embeddings(model.image_size, model.patch_size, dict(weights))
        return fitted
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)  # timm's models have one
    return weights if convert is None else convert(dict(weights), model)


def _replaced(layer: str, weights: Weights, own: Weights) -> str:
    both = [name for name in own if _is_of(name, (layer,)) and name in weights]
    classes = f" ({len(own[both[0]])} classes instead of {len(weights[both[0]])})" if both else ""
    return f"replaced: {layer}{classes}"


def _starts(name: str) -> list[int]:
    """Where the parts of a dotted name begin."""
    return [0, *(at + 1 for at, letter in enumerate(name) if letter == ".")]


def _within(weights: Weights, beginning: str) -> Weights:
    return {name.removeprefix(beginning): tensor for name, tensor in weights.items() if name.startswith(beginning)}


def _are_equal(one: Weights, other: Weights, names: Iterable[str]) -> bool:
    """Whether both have the same of these."""
    return all(
        (name in one) == (name in other) and (name not in one or torch.equal(one[name], other[name])) for name in names
    )


def _is_of(name: str, layers: tuple[str, ...]) -> bool:
    return any(name.startswith(layer + ".") for layer in layers)


def _shape(tensor: torch.Tensor) -> str:
    return " × ".join(str(side) for side in tensor.shape) or "one number"
