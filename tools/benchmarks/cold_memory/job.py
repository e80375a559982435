"""What a run of once.py is told."""

from dataclasses import dataclass

from ..job_file import JobFile


@dataclass(frozen=True)
class Job(JobFile):
    """Load the first `num_batches` of an epoch of `data`, evicted before or brought in."""

    loader: str
    data: str
    size_px: int
    batch_size: int
    num_batches: int
    num_workers: int
    is_cold: bool
