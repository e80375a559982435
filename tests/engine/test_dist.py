"""How ranks join a run, without the others: what torch is asked for."""

import shlex
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from commands import REPOSITORY, TIMEOUT_S, environment
from devices import on_each_real_device
from torch.distributed import HashStore

from engine import dist


@pytest.fixture
def joined(monkeypatch):
    """Joins as rank 1 of 2 and gives the time that the ranks wait for each other in a collective."""

    def join(*arguments):
        asked = []
        monkeypatch.setattr(dist, "meet", lambda timeout_s: HashStore())
        monkeypatch.setattr(dist.torch_dist, "init_process_group", lambda *names, **given: asked.append(given))
        for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
            monkeypatch.setenv(name, value)
        assert dist.start_ranks("cpu", *arguments).rank == 1
        return asked[0]["timeout"]

    return join


@pytest.mark.parametrize("hang_timeout_s", [0.0, 5.0, 1800.0])
def test_where_a_watchdog_or_a_person_judges_no_collective_gives_up_first(joined, hang_timeout_s):
    assert joined(hang_timeout_s) >= timedelta(days=7)
    assert joined(hang_timeout_s) / timedelta(milliseconds=1) < 2**31


def test_ranks_that_nobody_watches_wait_ten_minutes_for_each_other(joined):
    assert joined() == timedelta(minutes=10)


# What ranks exchange, by a group of one; with another number told, or they would not ask it
EXCHANGES = """
import sys
import torch
import torch.distributed as torch_dist
from torch.distributed import HashStore
from torch.nn.parallel import DistributedDataParallel
from engine import dist

device = torch.device(sys.argv[1])
ranks = dist.Ranks(0, 2, 0, 1, device)
backend = "nccl" if device.type == "cuda" else "gloo"
torch_dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1, timeout=dist._WATCHED_TIMEOUT)
assert ranks.largest([1.5, -2.0]) == [1.5, -2.0]
assert ranks.sum(torch.tensor([3, 2**40], device=device)).tolist() == [3, 2**40]
objects, parts, own = [None], [torch.zeros(2, device=device)], torch.tensor([0.5, 2.0], device=device)
torch_dist.all_gather_object(objects, {"a": 1})
torch_dist.gather(own, parts)
assert objects == [{"a": 1}] and torch.equal(parts[0], own)

images = torch.arange(48.0, device=device).reshape(4, 3, 2, 2)
losses, gradients = [], []
for is_wrapped in (False, True):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 2), torch.nn.BatchNorm2d(4), torch.nn.Flatten()).to(device)
    ranks.same_buffers(model)
    used = DistributedDataParallel(model, device_ids=[0] if device.type == "cuda" else None) if is_wrapped else model
    loss = used(images).pow(3).mean()
    loss.backward()
    losses.append(loss.item())
    gradients.append([parameter.grad.clone() for parameter in model.parameters()])
assert losses[0] == losses[1]
assert all(torch.allclose(one, other) for one, other in zip(*gradients, strict=True))
dist.stop_ranks()
print("exchanged", flush=True)
dist.end_process(0)
"""


@on_each_real_device
def test_the_backend_of_a_device_has_all_that_ranks_exchange(tmp_path, device):
    """Of NCCL as well, which takes a GPU, and more than one for what it does between them."""
    (tmp_path / "exchanges.py").write_text(EXCHANGES)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "exchanges.py"), str(device)],
        env=environment(PYTHONPATH=str(REPOSITORY)),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert (done.returncode, done.stdout) == (0, "exchanged\n"), done.stderr


# as a command ends; its teardown, as Python would do it, is told
ENDS = """
import atexit, os, sys
from engine.dist import run_and_end

class Torn:
    def __del__(self, write=os.write):
        write(1, b"torn down\\n")

def main():
    atexit.register(print, "asked for at the end")
    print("done", end=" ")
    return 3

torn = Torn()
if __name__ == "__main__":
    run_and_end(main)
"""


@pytest.mark.parametrize(
    ("ranks", "runner", "told"),
    [
        ("1", [], "done asked for at the end\n"),
        ("2", [], "done "),  # a rank that fails must not wait for others in what somebody registered
        ("1", ["-m", "cProfile", "-o", "profile"], "done asked for at the end\ntorn down\n"),
    ],
)
def test_a_command_ends_without_the_interpreters_teardown_unless_another_program_runs_it(tmp_path, ranks, runner, told):
    script = tmp_path / "ends.py"
    script.write_text(ENDS)
    ended = subprocess.run(
        [sys.executable, *runner, str(script)],
        cwd=tmp_path,
        env=environment(WORLD_SIZE=ranks, PYTHONPATH=str(REPOSITORY)),
        stdout=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert (ended.returncode, ended.stdout) == (0 if runner else 3, told)  # cProfile has a status of its own
    assert (tmp_path / "profile").exists() == bool(runner)


def test_with_standard_output_closed_it_ends_as_ever(tmp_path):
    script = tmp_path / "ends.py"
    script.write_text(ENDS)
    ended = subprocess.run(
        ["bash", "-c", f"{shlex.join([sys.executable, str(script)])} >&-"],
        env=environment(WORLD_SIZE="1", PYTHONPATH=str(REPOSITORY)),
        stderr=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert (ended.returncode, ended.stderr) == (3, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is missing")
def test_what_could_not_be_said_spoils_the_status_of_what_went_well(tmp_path):
    script = tmp_path / "ends.py"
    script.write_text(ENDS.replace("return 3", "return 0"))
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, str(script)],
            env=environment(WORLD_SIZE="1", PYTHONPATH=str(REPOSITORY), PYTHONUNBUFFERED=""),
            stdout=full,
            timeout=TIMEOUT_S,
        )
    assert ended.returncode == 120
