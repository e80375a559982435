"""Writes checkpoint after checkpoint until it is killed: `python checkpoint_writer.py FOLDER PAYLOADS NUM_KEPT`.

Each step's number is printed once it is written. Every third is written again with another content, as the end of an
epoch does. It imports only what writing needs, which is not torch.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[3])

from engine.checkpointing.checkpoint import checkpoints_by_step, clean_leftovers, step_of, write_sealed

assert "torch" not in sys.modules, "writing needs no torch"

folder, num_kept = Path(sys.argv[1]), int(sys.argv[3])
payloads = [path.read_bytes() for path in sorted(Path(sys.argv[2]).iterdir())]
clean_leftovers(folder)
present = checkpoints_by_step(folder)
step = 1 + (step_of(present[0]) if present else 0)
print("ready", flush=True)
while True:
    best = step - step % 5 or None
    write_sealed(folder, step, payloads[step % 2], num_kept, best)
    if step % 3 == 0:
        write_sealed(folder, step, payloads[2 + step % 2], num_kept, best)
    print(step, flush=True)
    step += 1
