"""A profile of one configuration, from opening its data to the verdict."""

import torch

from loaders.choose import choose_loader, open_loader, slower_because
from loaders.records import open_records

from ..build import build_step
from ..config import Config
from ..data import channels_of, keep_in_memory, loader_options, packed_beside, plan_of
from ..dist import Ranks
from .measure import Measurement, Tell, measure
from .verdict import Verdict, judge


def profile(config: Config, ranks: Ranks, seconds: float, rounds: int, tell: Tell) -> tuple[Measurement, Verdict]:
    """Measure and judge `config` on this one rank, for about 3 × `rounds` × `seconds`; no evaluation, nothing saved."""
    choose_loader(config.loader)  # refuses what is not known or not installed before anything is read
    path = packed_beside(config.data.path)
    records = open_records(path, config.data.train_split)
    tell(f"data: {path}, {len(records):,} samples")
    keep_in_memory([records], config.data, ranks, tell)
    options = loader_options(config.data, ranks)
    plan = plan_of(records, config)
    name, reason = choose_loader(config.loader, [(records, plan)])
    tell(f"loader: {name} ({reason})")
    if slower := slower_because(name, config.data.resize):
        tell(slower)
    loader = open_loader(name, records, plan, options)
    synthetic = open_loader("synthetic", records, plan, options)
    try:
        torch.set_num_threads(config.execution.threads or ranks.cpus)
        step = build_step(config, ranks, len(records.classes), channels_of(records), len(loader))
        measured = measure(step, loader, synthetic, seconds, rounds, tell)
    finally:
        synthetic.close()
        loader.close()
    return measured, judge(measured, shares_processors=ranks.device.type == "cpu")
