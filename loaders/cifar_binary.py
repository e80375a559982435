"""CIFAR's binary files: records of one length, each one or two label bytes and then the red, green and blue plane."""

import numpy as np
from numpy.typing import NDArray

_IMAGE_BYTES = 3 * 32 * 32


class BinaryForm:
    """Reads contents of files with so many label bytes an image, of which the last is the class (CIFAR-100: the fine).

    Whatever is wrong with them raises ValueError.
    """

    def __init__(self, num_label_bytes: int) -> None:
        self._num_label_bytes = num_label_bytes

    def class_names(self, content: bytes) -> tuple[str, ...]:
        """From the meta file: a name a line, empty lines at its end."""
        return tuple(content.decode("ascii").split())

    def images(self, content: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """uint8 [n, 3072], plane by plane, a view of the content, and int64 [n] labels."""
        record_bytes = self._num_label_bytes + _IMAGE_BYTES
        if not content or len(content) % record_bytes:
            raise ValueError(f"it has {len(content):,} bytes, which are no number of records of {record_bytes:,}")
        records = np.frombuffer(content, np.uint8).reshape(-1, record_bytes)
        return records[:, self._num_label_bytes :], records[:, self._num_label_bytes - 1].astype(np.int64)
