"""What a run's checkpoints are marked with, and its files of weights."""

import json
from typing import Any

import torch

from .config import Config
from .data import Data
from .dist import Ranks


def identity_of(config: Config, ranks: Ranks, data: Data) -> dict[str, Any]:
    """What a checkpoint is marked with, and must match to be gone on from."""
    kernels = {"deterministic": config.execution.deterministic} if ranks.device.type == "cuda" else {}
    return {
        "config": config.numerics(),
        "evaluation": config.data.evaluation(),
        "normalize": {"mean": list(data.channels.mean), "std": list(data.channels.std)},
        **data.train.identity(),
        "execution": {
            "device": ranks.device.type,
            "world_size": ranks.world_size,
            "threads": torch.get_num_threads(),
            "channels_last": config.execution.channels_last,
            "compile": config.execution.compile,
            "cuda_graphs": config.execution.cuda_graphs,
            **kernels,
        },
    }


def about_weights(config: Config, data: Data, identity: dict[str, Any]) -> dict[str, str]:
    """What a file of weights tells of itself: enough to use it without the run."""
    return {
        "format": "pt",
        "model": config.model.name,
        "classes": json.dumps(data.classes),
        "normalize": json.dumps({**identity["normalize"], "of": "pixels of 0 to 255, red, green, blue"}),
        "eval_size_px": str(config.data.eval_size_px),
        "eval_resize_px": str(config.data.eval_resize_px),
        "eval_crop_px": str(config.data.eval_crop_px or config.data.eval_size_px),
        **({"blur_pool": "true"} if config.model.blur_pool else {}),
        "config_sha256": config.numerics_sha256(),
    }
