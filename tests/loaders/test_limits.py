"""Loaders on little: one processor with a tiny /dev/shm, and one huge picture among small ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from limited_run import run as run_here
from pictures import write_image_folder
from PIL import Image
from stored_samples import READING_LOADERS, for_each

PROGRAM = Path(__file__).with_name("limited_run.py")
MIB = 1 << 20
# one way of resizing each: a program takes seconds to import torch
loaders_of_folders = for_each([case for case in READING_LOADERS if "folder" in case.kinds and case.resize == "exact"])


def command(path, **wanted) -> list[str]:
    return [sys.executable, str(PROGRAM), json.dumps({"path": path, **wanted})]


def results_of(arguments: list[str]) -> list[dict]:
    finished = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return [json.loads(line) for line in finished.stdout.splitlines() if line.startswith("{")]


@loaders_of_folders
def test_one_processor_and_a_tiny_dev_shm_are_enough_and_change_no_bit(image_folder, name):
    """Docker gives 64 MiB of /dev/shm; here it is 1 MiB, and the batches under way take 6."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode != 0:
        pytest.skip("mounting a small /dev/shm needs root and the right to a mount namespace of one's own")
    wanted = {"loader": name, "resize": "exact", "batch_size": 16, "size_px": 160, "epochs": 2}
    limited = 'mount -t tmpfs -o size=1m none /dev/shm && exec taskset -c "$0" "$@"'
    processor = str(min(os.sched_getaffinity(0)))
    (result,) = results_of(["unshare", "-m", "sh", "-c", limited, processor, *command(str(image_folder), **wanted)])
    assert result["cpus"] == 1
    assert result["sha256"] == run_here(str(image_folder), wanted)["sha256"]


@for_each([case for case in READING_LOADERS if case.name in ("torchvision", "turbo") and case.resize == "exact"])
def test_memory_follows_the_batch_and_not_the_largest_picture(tmp_path, name, resize):
    """One huge picture costs its own pixels, and perhaps its crop's, in one thread or worker: never a batch of such."""
    folders = [write_image_folder(tmp_path / kind, {"train": {"ant": 64}}) for kind in ("small", "huge")]
    Image.new("RGB", (6000, 5000), (10, 130, 250)).save(folders[1] / "train" / "ant" / "020.jpg")
    huge_bytes = 6000 * 5000 * 3
    wanted = {"loader": name, "resize": resize, "batch_size": 32, "epochs": 2}
    small, huge = results_of(command([str(folder) for folder in folders], **wanted))
    assert huge["peak_bytes"] - small["peak_bytes"] < 3 * huge_bytes + 40 * MIB


def test_opening_records_and_choosing_a_loader_imports_no_backend():
    heavy = ["ffcv", "nvidia.dali", "cv2", "simplejpeg", "torchvision", "matplotlib", "numba", "scipy"]
    program = (
        "import sys; import loaders; assert 'torch' not in sys.modules and 'numpy' not in sys.modules;"
        "import loaders.choose, loaders.records; loaders.choose.choose_loader('auto');"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    root = Path(__file__).resolve().parents[2]
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=root, timeout=600)
    assert finished.stdout.strip() == "[]", finished.stderr
