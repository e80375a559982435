"""resume_program.py on any device: python device_resume_program.py DEVICE JSON, on one rank.

A process of its own, because what makes a GPU's kernels deterministic must be said before the first of them.
"""

import json
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    tests = Path(__file__).resolve().parent
    sys.path[:1] = [str(tests.parent), str(tests)]

import resume_program
import torch

from engine.dist import end_process, start_ranks


def main(device: str, wanted: dict) -> None:
    load = torch.load

    def load_to_host(*words: Any, **more: Any) -> Any:
        """Outcomes are compared on the host, wherever their tensors lay."""
        return load(*words, **{"map_location": "cpu", **more})

    torch.load = load_to_host
    resume_program.start_ranks = lambda _: start_ranks(device)
    resume_program.main(wanted)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
    end_process(0)
