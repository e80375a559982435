"""Run by test_always_on.py under torchrun: a training run of which rank 1 takes 3 s more for each forward pass.

slow_rank_program.py OPTION …, options of engine/train.py
"""

import sys
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])

from engine.build import build_run
from engine.command_line import parse_config
from engine.dist import end_process, start_ranks, stop_ranks
from engine.loop import train
from engine.reporting.display import Display
from engine.safeguards.interrupt import StopRequest


def main() -> int:
    config, stop, ranks = parse_config(sys.argv[1:]), StopRequest(), start_ranks("cpu")

    def dawdle(module, inputs):
        if ranks.rank == 1 and module.training:
            time.sleep(3)

    try:
        with build_run(config, ranks, Display(ranks.is_main), stop) as run:
            run.step.module.register_forward_pre_hook(dawdle)
            assert train(run)
    finally:
        stop_ranks()
        stop.restore()
    return 0


if __name__ == "__main__":
    end_process(main())
