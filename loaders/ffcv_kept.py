"""Compiling with numba so that what is compiled is kept, and calling C from it."""

import ctypes
from collections.abc import Callable
from typing import Any, TypeVar, cast

import llvmlite.binding
from numba import njit, types

from .errors import FeedrateError
from .ffcv_shims import tamed_import

with tamed_import():
    from ffcv.libffcv import lib

__all__ = ["compiled", "external", "lib"]

Function = TypeVar("Function", bound=Callable[..., Any])


def external(name: str, *signature: Any) -> Any:
    """C function `name` of libffcv, or of what it is linked with, under a name of our own."""
    address = ctypes.cast(getattr(lib, name), ctypes.c_void_p).value
    llvmlite.binding.add_symbol(f"feedrate_{name}", address)
    return types.ExternalFunction(f"feedrate_{name}", signature[0](*signature[1:]))


def compiled(function: Function) -> Function:
    """To machine code at its first call, without the interpreter's lock. Raises FeedrateError if it cannot be kept."""
    try:
        return cast(Function, njit(nogil=True, cache=True, error_model="numpy")(function))
    except RuntimeError as error:  # numba found no folder that can be written to
        raise FeedrateError(
            f"compiled code cannot be kept ({error}): set NUMBA_CACHE_DIR to a folder you can write to"
        ) from error
