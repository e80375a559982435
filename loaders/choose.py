"""A loader by name."""

import importlib
import importlib.util
from collections.abc import Callable

from .api import Loader, LoaderOptions
from .errors import FeedrateError, did_you_mean
from .plan import Plan
from .records import Records

LoaderFactory = Callable[[Records, Plan, LoaderOptions], Loader]

# name → (module, class): imported on demand, since each brings its own needs
_LOADERS = {
    "torchvision": ("torchvision_loader", "TorchvisionLoader"),
    "turbo": ("turbo_loader", "TurboLoader"),
    "synthetic": ("synthetic_loader", "SyntheticLoader"),
}
_PLANNED = {"ffcv": "reads .beton through FFCV", "dali": "decodes on the GPU through DALI"}

LOADER_NAMES = (*_LOADERS, *_PLANNED)


def choose_loader(name: str) -> tuple[str, str]:
    """Resolve `name`, which may be "auto", to (a loader's name, the reason for it).

    Raises FeedrateError for a name that is not known or not built yet.
    """
    if name == "auto":
        missing = [module for module in ("simplejpeg", "cv2") if importlib.util.find_spec(module) is None]
        if missing:
            return "torchvision", f"turbo needs {' and '.join(missing)}, which is not installed"
        return "turbo", "the fastest loader on this machine that needs no GPU"
    if name in _PLANNED:
        raise FeedrateError(
            f"loader '{name}' ({_PLANNED[name]}) is not built yet: use --loader turbo, or auto to have one chosen"
        )
    if name not in _LOADERS:
        known = ["auto", *LOADER_NAMES]
        raise FeedrateError(f"unknown loader '{name}': {did_you_mean(name, known)}known are {', '.join(known)}")
    return name, "asked for"


def open_loader(name: str, records: Records, plan: Plan, options: LoaderOptions) -> Loader:
    """Open the loader called `name` (not "auto": see `choose_loader`)."""
    name, _ = choose_loader(name)
    module_name, class_name = _LOADERS[name]
    factory: LoaderFactory = getattr(importlib.import_module(f".{module_name}", __package__), class_name)
    return factory(records, plan, options)
