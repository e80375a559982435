"""What to try where a stage holds a run back, in the words of the command line."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loaders.named import is_named
from loaders.stored_form import StoredAs

from ..augment.augment_config import OFF

_TURBO = "--loader turbo"
_SMALLER = "packing smaller images (tools/convert.py --preset 256)"
_LOWER_PRECISION = "mixed precision (--execution.precision bf16)"
_COMPILE = "--execution.compile"
_FEWER_UPDATES = "fewer updates (--optim.accumulate)"
_IN_MEMORY = "keeping the packed set in memory (--data.page-cache memory)"
_PACKED = "packing the set (python tools/convert.py …), which is then read in long runs"
_PACKED_WITH_SEEK_POINTS = (
    "packing the set (python tools/convert.py …), which notes seek points: turbo then decodes little more than what a"
    " crop needs"
)
_RAW = "packing raw ones, which need no decoding (--write-mode raw)"
_BLOCKS = "reading it in long runs (--data.order block)"
_AREA, _ON_DEVICE = "--data.resize area", "--data.resize device"
_FEWER_AUGMENTATIONS = "fewer augmentations on the device (docs/augmentation.md)"
_NO_CLIPPING = "no clipping of gradients (--optim.clip-norm 0)"
_NO_CUTTING = "no cutting of their numbers (--optim.clip-value 0)"
_NOTED = "noting what it does in the loader's stages (docs/extending.md)"
_SGD = "a cheaper optimizer (--optim.name sgd)"

_REMEDIES = {
    "read": (_PACKED, _IN_MEMORY, _BLOCKS, "a faster disk"),
    "decode": (_PACKED_WITH_SEEK_POINTS, _TURBO, _SMALLER, _RAW),
    "augment": (_TURBO, _SMALLER, _AREA, _ON_DEVICE),
    "collate": (_TURBO,),
    "hand-off": (_TURBO, "more --data.batches-ahead"),
    "pin": (_TURBO,),
    "copy": ("a smaller --data.size-px", "--loader resident, if the set fits on the device"),
    "unseen": (f"{_TURBO}, whose stages are all seen", _NOTED),
    "prepare": (_FEWER_AUGMENTATIONS,),
    "forward": (_LOWER_PRECISION, _COMPILE, "a smaller model"),
    "backward": (_LOWER_PRECISION, _COMPILE, "a smaller model"),
    "sync": ("exchanging gradients less often (--optim.accumulate)", "more images a rank at a time"),
    "clip": (_NO_CLIPPING, _NO_CUTTING, _FEWER_UPDATES),
    "optimizer": (_SGD, _FEWER_UPDATES),
    "other": ("logging and saving less often (--run.log-every-steps, --run.checkpoint-every-epochs)",),
}

# the options that a remedy sets, by their names in a configuration, and the values that all of them have in a run that
# has it already
_HAD: dict[str, tuple[str, dict[str, tuple[Any, ...]]]] = {
    _IN_MEMORY: ("data", {"page_cache": ("memory",)}),
    _BLOCKS: ("data", {"order": ("block",)}),
    _AREA: ("data", {"resize": ("area", "auto", "device")}),  # auto: the loader's own fastest
    _ON_DEVICE: ("data", {"resize": ("device",)}),
    _FEWER_AUGMENTATIONS: (
        "augment",
        {name: (off,) for settings in OFF.values() for name, off in settings.items()},
    ),
    _LOWER_PRECISION: ("execution", {"precision": ("bf16", "fp16")}),
    _COMPILE: ("execution", {"compile": (True,)}),
    _NO_CLIPPING: ("optim", {"clip_norm": (0,)}),
    _NO_CUTTING: ("optim", {"clip_value": (0,)}),
    _SGD: ("optim", {"name": ("sgd",)}),
}


@dataclass(frozen=True)
class Run:
    """What decides which of them a run could take; what is None is not known, and refuses nothing.

    config  its settings, as plain data by section and name;  resize_modes  of its loader
    stored_as, is_raw  see `Subject`
    """

    loader: str
    config: Mapping[str, Any] | None = None
    stored_as: StoredAs | None = None
    is_raw: bool | None = None
    resize_modes: tuple[str, ...] | None = None


def remedies(stage: str, run: Run) -> list[str]:
    """For one of the record's stages, or what is unseen of the loader, the most promising first; none that the run has
    already, or would refuse."""
    return [
        remedy
        for remedy in _REMEDIES[stage]
        if not remedy.startswith(f"--loader {run.loader}")
        and not _is_had(remedy, run.config or {})
        and _is_possible(remedy, run)
    ]


def _is_possible(remedy: str, run: Run) -> bool:
    if remedy in (_PACKED, _PACKED_WITH_SEEK_POINTS):
        return run.stored_as == "folder"
    if remedy in (_SMALLER, _RAW):  # what is somebody's own no converter reads
        return run.stored_as != "own" and not (remedy == _RAW and run.is_raw)
    if remedy in (_IN_MEMORY, _BLOCKS):
        return run.stored_as in (None, "packed") and not (remedy == _BLOCKS and _repeats(run.config or {}))
    if remedy in (_AREA, _ON_DEVICE):
        mode = remedy.split()[-1]
        knows = run.resize_modes is None or mode in run.resize_modes
        return knows and not (remedy == _ON_DEVICE and run.is_raw is False)
    return remedy != _NOTED or is_named(run.loader)


def _repeats(config: Mapping[str, Any]) -> bool:
    """Whether samples may stand in an epoch again, which the order by blocks does not know."""
    data = config.get("data", {})
    return bool(data.get("sampling", "uniform") != "uniform" or data.get("repeats", 1) > 1)


def _is_had(remedy: str, config: Mapping[str, Any]) -> bool:
    section, wanted = _HAD.get(remedy, ("", {}))
    settings = config.get(section, {})
    return bool(wanted) and all(settings.get(name) in values for name, values in wanted.items())
