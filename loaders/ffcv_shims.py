"""FFCV 1.0.2 imported without what importing it does to the rest of the process, and modules of it for us alone.

Importing FFCV compiles code for seconds, sets torch's and numba's number of threads for the whole process, and needs a
module that Python 3.12 no longer has. None of that is wanted by those who only want its loader.
"""

import importlib.metadata
import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numba
import numba.typed
import torch

from .errors import FeedrateError

_VERSION = "1.0.2"  # what follows relies on its inner parts; its own __version__ says otherwise, and is wrong
_lock = threading.Lock()


@contextmanager
def tamed_import() -> Iterator[None]:
    """Import FFCV's modules inside this block. Afterwards FFCV is as usable by others as if imported plainly.

    Raises FeedrateError if it is another version or cannot be imported.
    """
    version = importlib.metadata.version("ffcv")
    if version != _VERSION:
        raise FeedrateError(f"ffcv {version} is installed and loader 'ffcv' needs {_VERSION}: make setup installs it")
    stand_ins: list[tuple[Any, str, Any]] = [
        # FFCV makes one typed dictionary when imported, for which numba compiles three seconds; it only ever asks it
        # from Python, where a plain one does the same
        (numba.typed, "Dict", dict),
        (numba, "set_num_threads", _ignore),  # starts numba's threads, too
        (torch, "set_num_threads", _ignore),
    ]
    with _lock:
        kept = [getattr(owner, name) for owner, name, _ in stand_ins]
        try:
            for owner, name, stand_in in stand_ins:
                setattr(owner, name, stand_in)
            with _distutils():
                yield
        except ImportError as error:
            raise FeedrateError(f"ffcv is installed and cannot be imported ({error}): make setup builds it") from error
        finally:
            for (owner, name, _), value in zip(stand_ins, kept, strict=True):
                setattr(owner, name, value)
            compiler = sys.modules.get("ffcv.pipeline.compiler")
            if compiler is not None:
                compiler.set_num_threads = numba.set_num_threads  # type: ignore[attr-defined]


def private_module(name: str, **replaced: Any) -> Any:
    """FFCV's module `name` once more, with some of its globals replaced, so that others' stays as it is."""
    with tamed_import():
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)  # not in sys.modules: nobody else finds it
        spec.loader.exec_module(module)
    for global_name, value in replaced.items():
        assert hasattr(module, global_name)
        setattr(module, global_name, value)
    return module


def _ignore(_num_threads: int) -> None:
    pass


@contextmanager
def _distutils() -> Iterator[None]:
    """FFCV imports an unused name from it; Python 3.12 has it only with setuptools."""
    if importlib.util.find_spec("distutils") is not None:
        yield
        return
    package, log = ModuleType("distutils"), ModuleType("distutils.log")
    log.warn = print  # type: ignore[attr-defined]
    sys.modules.update({"distutils": package, "distutils.log": log})
    try:
        yield
    finally:
        del sys.modules["distutils"], sys.modules["distutils.log"]
