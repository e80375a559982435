"""Fixtures shared by all tests. Everything is made here: no data set is needed."""

import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

# cuBLAS looks at it once, at a process's first product of matrices, whichever test that is in
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import pytest
import torch
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests")]

from devices import CUDA, NOMINAL
from nominal_cuda import nominal_cuda
from nominal_cuda.dali import dali_in_name
from pictures import write_image_folder

from loaders.cache_folder import cache_folder
from loaders.native import library

# how fast a machine is says nothing of the code, and what fails here must fail again: examples are the same each time
settings.register_profile(
    "feedrate", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("feedrate")


@pytest.fixture(scope="session")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train: 3 classes, 37 JPEGs; val: the same classes, 23 JPEGs; many sizes."""
    return write_image_folder(
        tmp_path_factory.mktemp("images"),
        {"train": {"ant": 13, "bee": 11, "cat": 13}, "val": {"ant": 7, "bee": 9, "cat": 7}},
    )


@pytest.fixture
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """What `devices.on_each_device` names: the CPU, a GPU, and one in name."""
    if request.param != NOMINAL:
        yield request.param
        return
    has_dali = importlib.util.find_spec("nvidia") and importlib.util.find_spec("nvidia.dali")
    with nominal_cuda() as mode, dali_in_name(mode) if has_dali else nullcontext():
        yield CUDA


@pytest.fixture
def sighup_heeded():
    """Who starts the tests may ignore it, as `nohup` does, and so would what they start."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Size scans are cached in a folder of the test run's own, never in the user's; the native kernel is the user's."""
    own = tmp_path_factory.mktemp("cache")
    library.load()  # compiles it unless it is there
    for kernel in cache_folder().glob("native-*.so"):
        (own / kernel.name).symlink_to(kernel)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEEDRATE_CACHE", str(own))
        patch.setenv("XDG_CACHE_HOME", str(own))  # of other programs
        yield
