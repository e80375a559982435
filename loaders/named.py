"""People's own records and loaders, by the name `module:name`, as in `my_loader:MyLoader`."""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

from .errors import FeedrateError

_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_named(text: str) -> bool:
    """Whether `text` is of the form module:name."""
    return _NAME.fullmatch(text) is not None


def load_named(text: str) -> Any:
    """What `text`, module:name, names; the module may lie in the working directory or anywhere Python looks.

    Raises FeedrateError when there is no such module or name; what the module itself raises stays as it is.
    """
    module_name, name = text.split(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last: nothing of the user's may hide a module of ours
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # a module that theirs wants
        raise FeedrateError(
            f"'{text}': there is no module {error.name} in {here} or on PYTHONPATH: start where it lies, or say where"
        ) from error
    if not hasattr(module, name):
        raise FeedrateError(f"'{text}': {module.__file__} has no {name}: see docs/extending.md")
    return getattr(module, name)
