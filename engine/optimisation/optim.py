"""Optimizers by name, which parameters decay, and clipping.

torch and timm are imported from where they are: nothing here computes an update.
"""

import ast
import inspect
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from typing import Any

import torch
from torch import nn

from loaders.errors import FeedrateError, did_you_mean

from .optim_config import OptimConfig
from .patterns import rules_by_name

_OF_TORCH: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)
_WEIGHT_LAYERS = (nn.Linear, nn.Bilinear, nn.Embedding, nn.modules.conv._ConvNd)

_LOOKAHEAD = "lookahead_"  # timm's prefix: any of its optimizers, wrapped

Groups = list[dict[str, Any]]


def parameter_groups(model: nn.Module, weight_decay: float) -> Groups:
    """Two groups, each in the model's order: what decays, and what does not. Frozen parameters are in neither.

    They are told apart by kind of module and parameter, never by name: a rule on names misses the norms of
    torchvision's shortcuts, which are called `downsample.1`. What the model itself lists in `no_weight_decay()`, as
    timm's do, is spared as well.
    """
    tables = _bias_table_owners()
    spared = _listed_by_the_model(model)
    for module in model.modules():
        own = module.parameters(recurse=False)
        spared |= {id(p) for p in own if isinstance(module, tables) or not _decays(module, p)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if id(p) not in spared], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) in spared], "weight_decay": 0.0},
    ]


def _parted(
    groups: Groups,
    model: nn.Module,
    setting: str,
    factors: Iterable[tuple[str, float]],
    of_factor: Callable[[float], dict[str, Any]],
) -> Groups:
    """`groups`, then for each of them and each pattern of `setting` a group of what it fits, with what its factor
    makes of it. The first groups stay, even where nothing is left in them."""
    named = dict(model.named_parameters())
    rule_of = {id(named[name]): rule for name, rule in rules_by_name(model, setting, factors).items()}
    others: Groups = []
    for group in groups:
        parted: dict[tuple[str, float] | None, list[nn.Parameter]] = {None: []}
        for parameter in group["params"]:
            parted.setdefault(rule_of.get(id(parameter)), []).append(parameter)
        group["params"] = parted.pop(None)
        others += [{**group, "params": params, **of_factor(rule[1])} for rule, params in parted.items() if rule]
    return groups + others


def _decays(module: nn.Module, parameter: nn.Parameter) -> bool:
    """Whether this parameter of this module's own is a weight, by the kinds of both."""
    if isinstance(module, _NORMS):
        return False
    if isinstance(module, _WEIGHT_LAYERS) and parameter is module.weight:
        return parameter.ndim > 1  # also where an output or an input is a single one
    # A scale may be shaped [C, 1, 1], as torchvision's ConvNeXt has it; what is added to every sample, such as a class
    # token or a position embedding, has 1 where the batch would be.
    return sum(size > 1 for size in parameter.shape) > 1 and parameter.shape[0] > 1


def _bias_table_owners() -> tuple[type[nn.Module], ...]:
    """Modules whose own parameters are biases in a table: their shape does not tell, and torchvision has no list."""
    from torchvision.models import maxvit, swin_transformer

    return swin_transformer.ShiftedWindowAttention, maxvit.RelativePositionalMultiHeadAttention


def _listed_by_the_model(model: nn.Module) -> set[int]:
    """Ids of the parameters that the model or a part of it says must not decay: names relative to it, or patterns."""
    listed: set[int] = set()
    for module in model.modules():
        own_list = getattr(module, "no_weight_decay", None)
        if callable(own_list):
            patterns = list(own_list())
            named = module.named_parameters()
            listed |= {id(p) for name, p in named if any(fnmatch(name, pattern) for pattern in patterns)}
    return listed


def build_optimizer(config: OptimConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer called `config.name` over `parameter_groups`; the schedule sets its learning rate before each step.

    Raises FeedrateError for a name that neither library knows, and for settings that the optimizer refuses.
    """
    groups = parameter_groups(model, config.weight_decay)
    decays, rates = config.decay_factors, config.rate_factors
    groups = _parted(
        groups, model, "decay_factors", decays, lambda factor: {"weight_decay": factor * config.weight_decay}
    )
    groups = _parted(groups, model, "rate_factors", rates, lambda factor: {"lr_scale": factor})  # timm's name for it
    build = _of_torch if config.name in _OF_TORCH else _of_timm
    try:
        return build(config, groups)
    except FeedrateError:
        raise
    except (ImportError, AssertionError, TypeError, ValueError) as error:
        raise FeedrateError(f"the optimizer {config.name} cannot be made: {error}") from error


def _of_torch(config: OptimConfig, groups: Groups) -> torch.optim.Optimizer:
    kind = _OF_TORCH[config.name]
    arguments = _settings_of(config, kind, ("momentum", "nesterov", "betas"))
    return kind(groups, lr=config.learning_rate, **_with_options(config, kind, arguments))


def _of_timm(config: OptimConfig, groups: Groups) -> torch.optim.Optimizer:
    """Timm's, with its own defaults under `timm/<name>`, where a variant's name says that it has Nesterov's step."""
    from timm.optim import create_optimizer_v2, get_optimizer_class, get_optimizer_info, list_optimizers

    name = config.name.removeprefix("timm/")
    known = [each for each in map(str, list_optimizers()) if not get_optimizer_info(each).second_order]
    if name.removeprefix(_LOOKAHEAD) not in known:
        raise FeedrateError(
            f"unknown optimizer 'timm/{name}': {did_you_mean(config.name, [f'timm/{each}' for each in known])}"
            f"known are {', '.join(known)}, each also as {_LOOKAHEAD}NAME; none that needs second derivatives"
        )
    kind = get_optimizer_class(name.removeprefix(_LOOKAHEAD), bind_defaults=False)
    info = get_optimizer_info(name.removeprefix(_LOOKAHEAD))
    wanted = {"momentum": info.has_momentum, "betas": info.has_betas and info.num_betas == 2}
    wanted["nesterov"] = config.name == name
    arguments = _settings_of(config, kind, [setting for setting, is_wanted in wanted.items() if is_wanted])
    arguments = _with_options(config, kind, arguments)
    made: torch.optim.Optimizer = create_optimizer_v2(
        groups, name, lr=config.learning_rate, weight_decay=config.weight_decay, **arguments
    )
    return made


def _settings_of(config: OptimConfig, kind: Callable[..., Any], names: Iterable[str]) -> dict[str, Any]:
    """Those of our settings that the optimizer knows, as its arguments; not betas where none are set."""
    known = [name for name in names if name in inspect.signature(kind).parameters]
    return {name: getattr(config, name) for name in known if getattr(config, name) != ()}


def _with_options(config: OptimConfig, kind: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """`arguments` and what `config.options` adds: literals of Python, anything else is taken for text."""
    ours = {"params", "lr", "weight_decay", *arguments}
    known = [name for name in inspect.signature(kind).parameters if name not in ours]
    added = {}
    for option in config.options:
        name, equals, text = option.partition("=")
        if not equals or name not in known:
            raise FeedrateError(
                f"options has '{option}': {did_you_mean(name, known)}it must be NAME=VALUE, and the names of"
                f" {config.name} that have no setting of their own are {', '.join(known)}"
            )
        try:
            added[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            added[name] = text
    return {**arguments, **added}


def clip_gradients(
    parameters: Iterable[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    config: OptimConfig,
) -> None:
    """Cut each number to ±clip_value, then shorten all gradients together to clip_norm, where these are above 0.

    Call it once, right before `scaler.step(optimizer)`, which must own all of `parameters`: where anything is to be
    clipped the gradients are unscaled first, since the limits are meant for true ones. Nothing waits for the device.
    """
    if not (config.clip_value or config.clip_norm):
        return
    scaler.unscale_(optimizer)
    clipped = list(parameters)
    if config.clip_value:
        nn.utils.clip_grad_value_(clipped, config.clip_value)
    if config.clip_norm:
        nn.utils.clip_grad_norm_(clipped, config.clip_norm)
