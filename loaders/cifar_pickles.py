"""CIFAR's files for Python: dictionaries of arrays, pickled by Python 2, and never trusted with code."""

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import FeedrateError


class PickledForm:
    """Reads contents of files whose dictionaries have these keys. Whatever is wrong with them raises ValueError."""

    def __init__(self, labels_key: bytes, names_key: bytes) -> None:
        self._labels_key = labels_key
        self._names_key = names_key

    def class_names(self, content: bytes) -> tuple[str, ...]:
        """From the meta file."""
        return tuple(name.decode() for name in _load(content)[self._names_key])

    def images(self, content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """uint8 [n, 3072], plane by plane, a view of the content, and int64 [n] labels."""
        entries = _load(content)
        labels = np.asarray(entries[self._labels_key], dtype=np.int64)
        planes = np.asarray(entries[b"data"])
        if planes.dtype != np.uint8 or planes.shape != (len(labels), 3072):
            raise ValueError(f"its images are {planes.dtype} {planes.shape}")
        return planes, labels


def _load(content: bytes) -> Any:
    return _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()


def _latin1(text: str, encoding: str) -> bytes:
    """Stands for `codecs.encode`, by which NumPy's pickles write bytes; others of its encodings could do more."""
    if encoding != "latin1":
        raise FeedrateError(
            f"asks for the encoding {encoding!r}, which arrays do not need: it was not made by CIFAR's authors"
        )
    return text.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    """Makes dictionaries, lists, numbers, bytes and NumPy arrays, and refuses whatever else a pickle may name."""

    def find_class(self, module: str, name: str) -> Any:
        allowed: dict[tuple[str, str], Callable[..., Any] | type] = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("_codecs", "encode"): _latin1,
        }
        for core in ("numpy.core", "numpy._core"):  # the name before and since NumPy 2
            allowed[f"{core}.multiarray", "_reconstruct"] = _reconstruct
        try:
            return allowed[module, name]
        except KeyError:
            raise FeedrateError(
                f"is a pickle that asks for {module}.{name}, which no CIFAR file needs: it is refused, since it could"
                " run any code"
            ) from None


_reconstruct: Any = np.empty(0).__reduce__()[0]  # NumPy's own function, wherever its version keeps it
