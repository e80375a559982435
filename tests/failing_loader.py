"""A loader that fails before the fourth batch of an epoch, on rank 1 alone, where leaving the group is as NCCL's."""

import os
import time
from collections.abc import Generator
from typing import Any

import torch.distributed as torch_dist

from loaders.api import Batch
from loaders.errors import LoaderError
from loaders.synthetic_loader import SyntheticLoader

ERRORS = {"a sentence": LoaderError("sample 7 is broken"), "a bug": KeyError("this is a bug")}


class FailingLoader(SyntheticLoader):
    name = "failing_loader:FailingLoader"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        torch_dist.destroy_process_group = _wait_for_what_never_ends

    def _batches(self, epoch: int, start: int) -> Generator[Batch]:
        for number, batch in enumerate(super()._batches(epoch, start), start):
            if number == 3 and self._options.shard.rank == 1:
                raise ERRORS[os.environ["FEEDRATE_TEST_ERROR"]]
            yield batch


def _wait_for_what_never_ends() -> None:
    """NCCL's way while other ranks are in a reduction that this one does not join: gloo's would end."""
    time.sleep(3600)
