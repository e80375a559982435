"""Every loader on little, and for long: no hang, no growth."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import REPOSITORY, nothing_left
from pictures import write_image_folder

from loaders.choose import choose_loader
from loaders.errors import FeedrateError

PROGRAM = REPOSITORY / "tests" / "loaders" / "limited_run.py"
MIB = 1 << 20
NUM_EPOCHS = 20
LOADERS = ("torchvision", "turbo", "ffcv", "dali", "resident", "synthetic")


@pytest.fixture(scope="module", params=LOADERS)
def loader(request: pytest.FixtureRequest) -> str:
    try:
        choose_loader(request.param)
    except FeedrateError as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 pictures as .beton, which every loader reads."""
    root = tmp_path_factory.mktemp("stress")
    classes = {"ant": 200, "bee": 200, "cat": 200}
    write_image_folder(root / "images", {"train": classes, "val": dict.fromkeys(classes, 2)})
    out = root / "packed"
    tool = [sys.executable, "tools/convert.py", "imagenet", "--source", str(root / "images"), "--out", str(out)]
    subprocess.run([*tool, "--to", "beton"], cwd=REPOSITORY, check=True)
    return out


def command(path: Path, loader: str, **wanted) -> list[str]:
    return [sys.executable, str(PROGRAM), json.dumps({"path": str(path), "loader": loader, "batch_size": 50, **wanted})]


def result_of(arguments: list[str]) -> dict:
    finished = subprocess.run(arguments, capture_output=True, text=True, timeout=600)
    assert finished.returncode == 0, finished.stderr[-2000:]
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.mark.parametrize("one_processor", [False, True], ids=["all processors", "one processor"])
def test_twenty_epochs_do_not_grow(packed, loader, one_processor, measured):
    pinned = ["taskset", "-c", str(min(os.sched_getaffinity(0)))] if one_processor else []
    result = result_of([*pinned, *command(packed, loader, epochs=NUM_EPOCHS, size_px=128)])
    rss = result["rss_bytes"]
    measured["rss_mib"] = [round(value / MIB) for value in rss]
    assert len(rss) == NUM_EPOCHS
    # the first epochs fill pools; from then on less than a batch (2.4 MB) may come
    assert rss[-1] - max(rss[2:5]) < 3 * MIB


def test_two_ranks_at_once_on_one_machine(packed, loader, measured):
    def started(rank):
        words = command(packed, loader, epochs=3, rank=rank, world_size=2)
        return nothing_left(subprocess.Popen(words, stdout=subprocess.PIPE, text=True))

    with started(0) as one, started(1) as two:
        outputs = [rank.communicate(timeout=600)[0] for rank in (one, two)]
    assert [one.returncode, two.returncode] == [0, 0]
    measured["sha256"] = [json.loads(output.splitlines()[-1])["sha256"][:12] for output in outputs]
    assert len(set(measured["sha256"])) == 2


def test_too_little_memory_is_an_error_soon_and_no_hang(packed, loader):
    """RLIMIT_AS stands for a machine without memory: it refuses what is asked for, where a cgroup would kill."""
    wanted = command(packed, loader, batch_size=300, size_px=1000, room_bytes=300 * MIB)  # a batch takes 858 MiB
    finished = subprocess.run(wanted, capture_output=True, text=True, timeout=120)
    assert finished.returncode != 0
    assert "memory" in finished.stderr[-3000:].lower(), finished.stderr[-3000:]
