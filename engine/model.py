"""From settings to the model that is trained."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from loaders.errors import FeedrateError
from loaders.named import is_named

from .config import Config
from .data import Data
from .dist import Ranks
from .models.architectures import new_model
from .models.blur_pool import blur_strided_convolutions
from .models.classifier import classifier_names
from .models.count import multiply_adds, num_parameters
from .models.factories import refuse_idle_weights, refuse_layout
from .models.first_images import start_from_images
from .models.freezing import freeze_all_but
from .models.image_sizes import ImageSizes, refuse_sizes
from .models.model_config import ModelConfig
from .models.trained_on import warnings_of_data
from .models.weight_files import Weights, read_weights
from .models.weights import PUBLISHED, named_as_in, published_weights, refuse_other_number, take_over

__all__ = [
    "describe_model",
    "finished_model",
    "image_sizes",
    "place_model",
    "prepare_model",
    "start_model",
]

Say = Callable[[str], None]


def start_model(config: Config, data: Data, ranks: Ranks, say: Say, fresh: bool) -> nn.Module:
    """The model of a run over `data`, with the weights it starts from, the same on every rank.

    A run that is not `fresh` takes its weights from a checkpoint afterwards, so none are fetched here.
    """
    model = prepare_model(config, data.num_classes, ranks, say, fresh)
    if fresh and config.model.weights not in ("", PUBLISHED):
        for warning in warnings_of_data(config.model.weights, data.classes, data.channels):
            say(warning)
    if fresh:
        start_from_images(model, data.train, data.channels, ranks)
    return model


def prepare_model(config: Config, num_classes: int, ranks: Ranks, say: Say, fresh: bool = True) -> nn.Module:
    """The model that `config` trains, on the CPU. `say` hears what became of weights it starts from, if `fresh`.

    Raises FeedrateError for what the model does not take: settings, weights, sizes of images.
    """
    settings, sizes = config.model, image_sizes(config, ranks.world_size)
    model = new_model(settings, num_classes, sizes, config.seed)
    refuse_sizes(model, settings.name, num_classes, sizes)
    _refuse_layout_of_own(model, config)
    classifier = classifier_names(model, num_classes)
    if settings.weights and fresh:
        source = f"the weights published for {settings.name}" if settings.weights == PUBLISHED else settings.weights
        weights = named_as_in(model, _fetch(settings, sizes, ranks, say), source, say)
        changes = take_over(model, weights, classifier, source)
        say(f"weights: {source}; {'; '.join(changes) or 'all layers fit'}")
    if settings.blur_pool:
        blur_strided_convolutions(model)
    if settings.freeze_backbone:
        if not classifier:
            raise FeedrateError(
                f"--model.freeze-backbone is on and the last layer of {settings.name} does not give one score a class:"
                " define its classifier last, or name it there as timm does, pretrained_cfg = {'classifier': 'head'}"
            )
        freeze_all_but(model, classifier)
        say(f"frozen: all but {', '.join(classifier)}")
    if is_named(settings.name) and ranks.world_size > 1:
        refuse_idle_weights(model, settings.name, config.data.train_view().size_at(0))
    return model


def finished_model(
    config: Config, num_classes: int, ranks: Ranks, weights: Weights, source: str, say: Say
) -> nn.Module:
    """The model of `config`, on the CPU, with all of its weights from `weights`: to be evaluated, not trained.

    `source` is what they are called. Raises FeedrateError for what the model does not take, and where any weight of
    its own is missing or does not fit.
    """
    settings, sizes = config.model, image_sizes(config, ranks.world_size)
    model = new_model(settings, num_classes, sizes, config.seed)
    refuse_sizes(model, settings.name, num_classes, replace(sizes, training_px=()))
    _refuse_layout_of_own(model, config)
    weights = named_as_in(model, weights, source, say)
    refuse_other_number(model, weights, classifier_names(model, num_classes), source)
    if changes := take_over(model, weights, (), source):
        say(f"weights: {'; '.join(changes)}")
    if settings.blur_pool:
        blur_strided_convolutions(model)
    return model


def place_model(model: nn.Module, config: Config, ranks: Ranks) -> nn.Module:
    """`model` where this rank computes, in the layout that `config` names."""
    model = model.to(ranks.device)
    return model.to(memory_format=torch.channels_last) if config.execution.channels_last else model


def describe_model(model: nn.Module, config: Config) -> str:
    """The name and size of `model` in words."""
    side = max(image_sizes(config).training_px)
    counted = multiply_adds(model, side)
    operations = "" if counted is None else f", {counted / 1e9:.3g} billion multiply-adds an image of {side} px"
    return f"{config.model.name}, {num_parameters(model) / 1e6:.2f} million parameters{operations}"


def image_sizes(config: Config, world_size: int = 1) -> ImageSizes:
    """The sizes of images that a run of `config` shows its model."""
    view = config.data.train_view()
    return ImageSizes(
        training_px=tuple(sorted({view.size_at(epoch) for epoch in range(config.epochs)})),
        evaluation_px=config.data.eval_size_px,
        training_batch=max(1, config.data.batch_size // world_size),
        evaluation_batch=config.data.eval_batch_size_per_rank,
    )


def _refuse_layout_of_own(model: nn.Module, config: Config) -> None:
    """Ask a model of people's own what is known of all others."""
    if is_named(config.model.name) and config.execution.channels_last:
        refuse_layout(model, config.model.name, config.data.eval_size_px)


def _fetch(settings: ModelConfig, sizes: ImageSizes, ranks: Ranks, say: Say) -> Weights:
    """The weights to start from. One rank of a machine fetches published ones, the others then find them there."""
    if settings.weights != PUBLISHED:
        return read_weights(settings.weights, say)
    weights: Weights = {}
    if ranks.local_rank == 0:
        weights = published_weights(settings.name, sizes)
    ranks.barrier()
    return weights or published_weights(settings.name, sizes)
