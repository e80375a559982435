"""Run by test_evaluate.py on any number of ranks: evaluate 1,003 pictures and print what was counted.

python evaluate_counts.py
"""

import json
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]

import torch
from torch import nn

from engine.augment import IMAGENET_CHANNELS, Normalize
from engine.dist import end_process, start_ranks, stop_ranks
from engine.evaluate import evaluate
from engine.step import Precision
from loaders.api import LoaderOptions
from loaders.choose import open_loader
from loaders.crops import CenterCrop
from loaders.plan import Plan, Sequential, View
from loaders.synthetic_records import SyntheticRecords


def main() -> None:
    torch.set_num_threads(1)
    ranks = start_ranks("cpu")
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, 12)
    )
    model[1].running_mean += 0.1 * (1 + ranks.rank)  # the main rank's must be everybody's
    records = SyntheticRecords(1003, 12, 16, 16)
    plan = Plan(records.widths, records.heights, Sequential(64), View(CenterCrop(16, 16), 16))
    loader = open_loader("turbo", records, plan, LoaderOptions(shard=ranks.shard, num_workers=1))
    normalize = Normalize(IMAGENET_CHANNELS, ranks.device, channels_last=False)
    result = evaluate(model, loader, normalize, Precision("fp32", ranks.device), ranks)
    loader.close()
    if ranks.is_main:
        counts = {
            "num_samples": result.num_samples,
            "num_top1": result.num_top1,
            "num_top5": result.num_top5,
            "confusion": result.classes.confusion.tolist(),
            "macro_f1": result.classes.macro_f1,
        }
        print(json.dumps(counts))
    stop_ranks()


if __name__ == "__main__":
    main()
    end_process(0)
