"""Samples of a folder of pictures, listed the plain way: what the packer needs of a source, and nothing more."""

from hashlib import sha256
from pathlib import Path

import numpy as np

from converters.samples import Stored


class ListedFiles:
    """See `converters.samples.Samples`."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(path for path in folder.glob("*/*") if path.is_file())
        self.classes = self.class_names = tuple(sorted({path.parent.name for path in self.paths}))
        self.labels = np.array([self.classes.index(path.parent.name) for path in self.paths])
        self.num_bytes = np.array([path.stat().st_size for path in self.paths])
        self.bad = []
        self.num_ignored = 0
        self.notes = {}
        self.folder = folder

    def __len__(self):
        return len(self.paths)

    def stored(self, index):
        return Stored(str(self.paths[index].relative_to(self.folder)), str(self.paths[index]))

    def fingerprint(self):
        names = [f"{path} {size}" for path, size in zip(self.paths, self.num_bytes, strict=True)]
        return sha256("\n".join(names).encode()).hexdigest()


def listed(folder):
    """{split: its samples}, for `folder/<split>/<class>/<file>`."""
    return {split: ListedFiles(folder / split) for split in ("train", "val") if (folder / split).is_dir()}
