"""Run by test_distributed.py: train a model without batch statistics and print the global loss of each step.

python ddp_losses.py IMAGES [BATCHES OF A WINDOW [compiled]]
"""

import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

import dataclasses
from unittest.mock import patch

import torch
from short_runs import short_config
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from engine.augment import IMAGENET_CHANNELS, Normalize
from engine.config import ExecutionConfig, OptimConfig
from engine.data import open_data
from engine.dist import end_process, start_ranks, stop_ranks
from engine.optimisation.optim import build_optimizer
from engine.optimisation.schedule import build_schedule
from engine.optimisation.windows import Windows
from engine.step import TrainStep


def main(images: str, accumulate: int = 1, compiles: bool = False) -> None:
    torch.set_num_threads(1)
    config = short_config(Path(images), Path("unused"), "turbo")
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, batch_size=12),
        optim=OptimConfig(
            learning_rate=0.1,
            warmup_epochs=0,
            clip_norm=0.5,
            accumulate=accumulate,
            frozen_epochs=(("0.*", 1, -1),),  # the second
        ),
        epochs=2,
        execution=ExecutionConfig(device="cpu", threads=1, compile=compiles),
    )
    ranks = start_ranks("cpu")
    data = open_data(config, ranks, lambda text: None)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, data.num_classes)
    )
    windows = Windows(len(data.train), accumulate)
    step = TrainStep(
        model,
        build_optimizer(config.optim, model),
        build_schedule(config.optim, config.epochs, windows.updates_per_epoch),
        Normalize(IMAGENET_CHANNELS, ranks.device, channels_last=False),
        config,
        ranks,
        windows,
    )
    losses, ids, without_exchange = [], [], 0
    no_sync = DistributedDataParallel.no_sync
    for epoch in range(config.epochs):
        step.begin_epoch(epoch)
        step.warm_up(torch.Size((12 // ranks.world_size, 3, 16, 16)), data.num_classes)
        with patch.object(DistributedDataParallel, "no_sync", autospec=True, side_effect=no_sync) as entered:
            for number, batch in enumerate(data.train.epoch(epoch)):
                loss, _ = step(batch.images, batch.labels, batch.ids, epoch * len(data.train) + number)
                losses.append((ranks.sum(loss.double()) / ranks.world_size).item())
                ids.append([i for part in ranks.gather(batch.ids.tolist()) for i in part])
        without_exchange += entered.call_count
    if ranks.is_main:
        told = {"losses": losses, "ids": ids, "without_exchange": without_exchange}
        if compiles:
            told["graphs"] = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        print(json.dumps(told))
    data.close()
    stop_ranks()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]), compiles="compiled" in sys.argv)
    end_process(0)
