"""A loader by name."""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .api import Loader, LoaderOptions
from .errors import FeedrateError, did_you_mean
from .named import is_named, load_named
from .plan import Plan
from .records import Records

if TYPE_CHECKING:
    from .resampling import Resampling  # which brings in a backend

_RESIDENT_BYTES = 2 << 30  # up to which a set is kept decoded without being asked to

LoaderFactory = Callable[[Records, Plan, LoaderOptions], Loader]


@dataclass(frozen=True)
class _Known:
    """Where a loader is, what it needs, and the command that installs it."""

    module: str
    class_name: str
    needs: tuple[str, ...] = ()
    remedy: str = ""


_PIP = "uv pip install simplejpeg opencv-python-headless"
# imported on demand, since each brings its own needs
_LOADERS = {
    "torchvision": _Known("torchvision_loader", "TorchvisionLoader"),
    "turbo": _Known("turbo_loader", "TurboLoader", ("simplejpeg", "cv2"), _PIP),
    "ffcv": _Known(
        "ffcv_loader", "FfcvLoader", ("ffcv", "numba"), "make setup (it builds FFCV, which needs a compiler)"
    ),
    "dali": _Known("dali_loader", "DaliLoader", ("nvidia.dali",), "uv pip install nvidia-dali-cuda120"),
    "resident": _Known("resident_loader", "ResidentLoader", ("simplejpeg", "cv2"), _PIP),
    "synthetic": _Known("synthetic_loader", "SyntheticLoader"),
}

LOADER_NAMES = tuple(_LOADERS)


def choose_loader(
    name: str, splits: Sequence[tuple[Records, Plan]] = (), options: LoaderOptions = LoaderOptions()
) -> tuple[str, str]:
    """Resolve `name`, which may be "auto", to (a loader's name, the reason for it). `module:Class` is a user's own.

    splits, options  what will be loaded and how, where it is known: small sets can be kept decoded, where they fit

    Raises FeedrateError for a name that is not known, and for a loader that is not installed.
    """
    if name == "auto":
        missing = _missing("turbo")
        if missing:
            return "torchvision", f"turbo needs {' and '.join(missing)}, which is not installed"
        return _resident_or_turbo(splits, options)
    if is_named(name):
        if not callable(load_named(name)):
            raise FeedrateError(f"'{name}' is not a loader's class: see docs/extending.md")
        return name, "your own"
    if name not in _LOADERS:
        known = ["auto", *LOADER_NAMES]
        raise FeedrateError(f"unknown loader '{name}': {did_you_mean(name, known)}known are {', '.join(known)}")
    if missing := _missing(name):
        raise FeedrateError(
            f"loader '{name}' needs {' and '.join(missing)}, which is not installed: {_LOADERS[name].remedy},"
            " or use --loader auto"
        )
    return name, "asked for"


def open_loader(name: str, records: Records, plan: Plan, options: LoaderOptions) -> Loader:
    """Open the loader called `name` (not "auto": see `choose_loader`)."""
    name, _ = choose_loader(name)
    factory: LoaderFactory
    if is_named(name):
        factory = load_named(name)
    else:
        known = _LOADERS[name]
        factory = getattr(importlib.import_module(f".{known.module}", __package__), known.class_name)
    return factory(records, plan, options)


def slower_because(
    name: str, options: LoaderOptions = LoaderOptions(), splits: Sequence[tuple[Records, Plan]] = ()
) -> str:
    """One sentence on why this loader, opened over `splits`, cannot go as fast here as it could; empty if it can."""
    mode = options.resize
    if name == "turbo":  # where the device resizes, the kernel copies
        needed: Resampling = "area" if mode is None or mode == "device" else mode
    elif name == "resident" and options.device.type == "cpu" and mode != "device" and not _is_cut_only(splits):
        needed = mode or "exact"
    else:
        return ""
    from .native import library

    reason = library.why_not(needed)
    return f"slower than it could be: {reason}" if reason else ""


def _resident_or_turbo(splits: Sequence[tuple[Records, Plan]], options: LoaderOptions) -> tuple[str, str]:
    """The faster of them that takes these splits, and the reason for it."""
    if splits and _is_cut_only(splits):
        from .resident_loader import held_bytes, why_not

        num_bytes = held_bytes(splits, options.device)
        if num_bytes <= _RESIDENT_BYTES:
            if reason := why_not(splits, options):
                return "turbo", reason
            return "resident", f"all {num_bytes / 1e6:,.0f} MB of pixels fit in memory, and are cut without resizing"
    return "turbo", "the fastest loader on this machine that needs no GPU"


def _is_cut_only(splits: Sequence[tuple[Records, Plan]]) -> bool:
    """Whether nothing must be resized: then every loader gives the same bits, and keeping the pixels costs nothing."""
    from .resident_loader import cuts_only

    return all(cuts_only(records, plan) for records, plan in splits)


def _missing(name: str) -> list[str]:
    """The modules that this loader needs and that are not installed; nothing is imported to find out."""
    return [module for module in _LOADERS[name].needs if not _is_installed(module)]


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False
