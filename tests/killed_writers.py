"""Writers of checkpoints, killed at random moments, and what must be true of what they leave."""

import io
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from commands import REPOSITORY

from engine.checkpointing.checkpoint import checkpoints_by_step, fault_of, newest_checkpoint, path_of, step_of

WRITER = REPOSITORY / "tests" / "engine" / "checkpointing" / "checkpoint_writer.py"
NUM_VALUES = 200_000


def kill_writers(folder: Path, num_kills: int, seed: int) -> dict[str, Any]:
    """Start and kill writers in `folder`, check what each leaves, and count in what state it was left."""
    payloads, checkpoints = folder / "payloads", folder / "checkpoints"
    payloads.mkdir()
    for number in range(4):
        buffer = io.BytesIO()
        torch.save({"number": number, "weights": torch.full((NUM_VALUES,), float(number))}, buffer)
        (payloads / f"{number}.pt").write_bytes(buffer.getvalue())
    draws, left, write_s = random.Random(seed), Counter[str](), 0.02
    for _ in range(num_kills):
        num_kept = draws.choice((1, 2, 3))
        command = [sys.executable, str(WRITER), str(checkpoints), str(payloads), str(num_kept)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout.readline() == "ready\n"
            started = time.monotonic()
            finished = [writer.stdout.readline() for _ in range(draws.randrange(3))]
            if finished:
                write_s = (time.monotonic() - started) / len(finished)
            time.sleep(draws.uniform(0, write_s))
            writer.kill()
            finished += writer.stdout.read().splitlines()
        left.update(_states(checkpoints))
        _check(checkpoints, int(finished[-1]) if finished else 0)
    return {"kills": num_kills, "left": dict(left), "last_step": step_of(checkpoints_by_step(checkpoints)[0])}


def _states(checkpoints: Path) -> Counter[str]:
    """Which kinds of unfinished work lie there."""
    found = Counter[str]()
    found["unfinished .pt"] += bool(list(checkpoints.glob("*.pt.partial")))
    found["unfinished .json"] += bool(list(checkpoints.glob("*.json.partial")))
    found[".json without .pt"] += any(not path.with_suffix(".pt").exists() for path in checkpoints.glob("*.json"))
    found["nothing unfinished"] += not sum(found.values())
    return found


def _check(checkpoints: Path, finished: int) -> None:
    """The newest valid is loadable, whole, no older than what was finished, and its best is there as well."""
    said: list[str] = []
    content = newest_checkpoint(checkpoints, said.append)
    present = checkpoints_by_step(checkpoints)
    if content is None:
        assert not present and finished == 0, "there was a checkpoint, and none is valid now"
        return
    assert not said, said  # nothing damaged was ever given its final name
    newest = present[0]
    assert step_of(newest) >= finished
    assert content["number"] % 2 == step_of(newest) % 2
    assert torch.equal(content["weights"], torch.full((NUM_VALUES,), float(content["number"])))
    best = step_of(newest) - step_of(newest) % 5
    if best:
        assert fault_of(path_of(checkpoints, best)) is None, f"the best, {best}, is gone"
