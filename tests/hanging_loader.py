"""A loader that blocks for ever before the fourth batch of an epoch, on rank 1 alone."""

import os
from collections.abc import Generator
from pathlib import Path

from loaders.api import Batch
from loaders.synthetic_loader import SyntheticLoader


class HangingLoader(SyntheticLoader):
    name = "hanging_loader:HangingLoader"

    def _batches(self, epoch: int, start: int) -> Generator[Batch]:
        for number, batch in enumerate(super()._batches(epoch, start), start):
            if number == 3 and self._options.shard.rank == 1:
                Path(os.environ["FEEDRATE_TEST_FIFO"]).read_bytes()
            yield batch
