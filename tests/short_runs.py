"""Whole training runs of a second or two, and what two of them must have in common to be the same run."""

import dataclasses
import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from engine.build import build_run
from engine.config import Config, DataConfig, ExecutionConfig, ModelConfig, OptimConfig, RunConfig
from engine.dist import Ranks
from engine.loop import train
from engine.reporting.display import Display
from engine.reporting.run_folder import CLOCK_FIELDS
from engine.safeguards.interrupt import StopRequest

ONE_RANK = Ranks(0, 1, 0, 1, torch.device("cpu"))


def ranks_on(device: torch.device) -> Ranks:
    """One rank, there."""
    return dataclasses.replace(ONE_RANK, device=device)


def short_config(images: Path, folder: Path, loader: str = "turbo", **changes: Any) -> Config:
    """Two epochs of five batches of 7 on the `image_folder` fixture, a checkpoint after every step."""
    config = Config(
        name="short",
        loader=loader,
        epochs=2,
        seed=3,
        data=DataConfig(
            path=str(images),
            batch_size=7,
            eval_batch_size_per_rank=10,
            size_px=16,
            eval_size_px=16,
            eval_resize_px=18,
            workers=2,
        ),
        model=ModelConfig("cifar_resnet20"),
        optim=OptimConfig(learning_rate=0.05, warmup_epochs=0.5, clip_norm=1.0),
        execution=ExecutionConfig(device="cpu", threads=1),
        run=RunConfig(folder=str(folder), checkpoint_every_steps=1, checkpoints_kept=100, log_every_steps=2),
    )
    return dataclasses.replace(config, **changes)


def run_to_end(config: Config, display: Display | None = None, ranks: Ranks = ONE_RANK) -> dict[str, Any]:
    """Train as one rank in this process, and say what came out: `outcome` of the run's folder."""
    stop = StopRequest()
    threads = torch.get_num_threads()
    try:
        with build_run(config, ranks, display or Display(is_main=False), stop) as run:
            assert train(run)
    finally:
        stop.restore()
        torch.set_num_threads(threads)
    return outcome(Path(config.run.folder) / config.name)


def start_from(whole: Path, step: int, folder: Path) -> None:
    """A run folder as it stands when a run is killed: checkpoints up to `step`, and logs that ran on beyond it."""
    shutil.copytree(whole, folder)
    for path in (folder / "checkpoints").iterdir():
        if int(path.stem.split("-")[1]) > step:
            path.unlink()


def resumed_after(config: Config, step: int) -> dict[str, Any]:
    """What comes of the run of `config` where it is killed after `step` and goes on; the whole of it has run before."""
    whole = Path(config.run.folder)
    folder = whole.parent / f"from{step}"
    start_from(whole / config.name, step, folder / config.name)
    return run_to_end(dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(folder))))


def outcome(folder: Path) -> dict[str, Any]:
    """Hash of everything the newest checkpoint holds of numbers, the weights beside it, and the metrics without what a
    clock read."""
    checkpoints = sorted((folder / "checkpoints").glob("step-*.pt"))
    content = torch.load(checkpoints[-1], map_location="cpu", weights_only=True)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    told = [*folder.glob("*.safetensors"), *folder.glob("best.json")]
    return {
        # what clocks do to it is the length of the metrics alone
        "state_sha256": state_digest({key: content[key] for key in sorted(content.keys() - {"metrics_bytes"})}),
        "holds": sorted(content),
        "files": {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(told)},
        "position": [content["progress"]["epoch"], content["progress"]["batch"]],
        "metrics": [{key: value for key, value in line.items() if key not in CLOCK_FIELDS} for line in lines],
    }


def state_digest(tree: Any) -> str:
    """SHA-256 over every tensor's bits and every other value, in order."""
    digest = sha256()
    _feed(digest, tree)
    return digest.hexdigest()


def _feed(digest: Any, tree: Any) -> None:
    if isinstance(tree, torch.Tensor):
        digest.update(f"{tree.dtype} {tuple(tree.shape)}".encode())
        digest.update(tree.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes() if tree.numel() else b"")
    elif isinstance(tree, dict):
        for key in tree:
            digest.update(repr(key).encode())
            _feed(digest, tree[key])
    elif isinstance(tree, list | tuple):
        for item in tree:
            _feed(digest, item)
    else:
        digest.update(repr(tree).encode())
