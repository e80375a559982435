"""Runs of one configuration on each rank of this process group: whole, and again from checkpoints of it.

python resume_program.py JSON, or torchrun resume_program.py JSON, with "options" of engine/train.py and "situations":
cuts (each a list of steps, cut back to one after the other) by the situation's name. The main rank prints
{"same": {situation: [did each cut end alike]}}.
"""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    tests = Path(__file__).resolve().parent
    sys.path[:1] = [str(tests.parent), str(tests)]

from short_runs import outcome, run_to_end, start_from

from engine.build import build_run
from engine.command_line import parse_config
from engine.config import Config
from engine.dist import Ranks, end_process, start_ranks, stop_ranks
from engine.loop import train
from engine.reporting.display import Display
from engine.safeguards.interrupt import StopRequest


def main(wanted: dict) -> None:
    config = parse_config(wanted["options"])
    config = dataclasses.replace(config, name="whole")
    ranks = start_ranks(config.execution.device)
    expected = run_to_end(config, ranks=ranks)
    same = {}
    for number, (situation, cuts) in enumerate(wanted["situations"].items()):
        ends = [_resumed(config, f"{number}-{cut}", steps, situation, ranks) for cut, steps in enumerate(cuts)]
        same[situation] = [end == expected for end in ends]
    ranks.barrier()
    if ranks.is_main:
        print(json.dumps({"same": same}))


def _resumed(config: Config, prefix: str, steps: list[int], situation: str, ranks: Ranks) -> dict:
    """What comes of a run that is cut back to these steps, or stopped in evaluation, and resumed each time."""
    name = config.name
    if situation == "stopped in evaluation":
        again = dataclasses.replace(config, name=f"{prefix}-stopped")
        _stop_in_evaluation(again, ranks)
        return run_to_end(again, ranks=ranks)
    for step in steps:
        source, name = Path(config.run.folder) / name, f"{prefix}-from-{step}"
        if ranks.is_main:
            start_from(source, step, source.with_name(name))
        ranks.barrier()
        again = dataclasses.replace(config, name=name)
        if situation == "another number of workers":
            again = dataclasses.replace(again, data=dataclasses.replace(again.data, workers=3))
        result = run_to_end(again, ranks=ranks)
    return result


def _stop_in_evaluation(config: Config, ranks: Ranks) -> None:
    """Train until an evaluation after the second epoch has given a batch; the last rank alone is then told to stop."""
    stop = StopRequest()
    with build_run(config, ranks, Display(is_main=False), stop) as run:
        loader = run.data.evaluation._loader
        really, is_told = loader.epoch, False

        def epoch(index: int, start: int = 0):
            nonlocal is_told
            for batch in really(index, start):
                yield batch
                # averages are evaluated beside the weights, so several evaluations end an epoch
                if run.progress.epoch == 1 and not is_told and ranks.rank == ranks.world_size - 1:
                    is_told = True
                    os.kill(os.getpid(), signal.SIGTERM)

        loader.epoch = epoch
        assert not train(run), "it was not stopped"
    stop.restore()
    position = outcome(run.folder.path)["position"]
    assert position == [1, len(run.data.train)], position


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
    stop_ranks()
    end_process(0)
