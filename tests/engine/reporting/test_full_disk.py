"""A disk that takes no more: whichever file is written, the run ends with one sentence and status 2, on all ranks."""

import builtins
import dataclasses
import errno
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import run, short_options, torchrun
from short_runs import ONE_RANK
from tensorboard.compat.tensorflow_stub.io import gfile

from engine.dist import Ranks
from engine.reporting import run_folder
from engine.reporting.loggers import EpochTable
from engine.reporting.run_folder import RunFolder
from engine.reporting.writing import OR_ELSEWHERE, writing
from engine.train import main
from loaders import atomic
from loaders.api import Substitution
from loaders.errors import FeedrateError

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is missing")

REASON = "cannot be written (No space left on device): free some space"


def _fill_up(monkeypatch, name):
    """From here on there is no room for files of that name, nor for what is written beside their places."""

    def opened(path, *arguments, **options):
        is_full = Path(os.fsdecode(path)).name.removesuffix(".partial").startswith(name) and arguments != ("rb",)
        return builtins.open("/dev/full" if is_full else path, *arguments, **options)

    for module in (run_folder, atomic):
        monkeypatch.setattr(module, "open", opened, raising=False)
    monkeypatch.setattr(gfile, "io", SimpleNamespace(open=opened))


@pytest.mark.parametrize(
    "name",
    [
        *("config.toml", "env.json", "metrics.jsonl", "metrics.csv", "evaluation.json", "confusion.npy"),
        *("best.json", "weights-best.safetensors", "step-", "ids-rank0.i64"),
    ],
)
def test_every_file_of_a_run_that_cannot_be_written_is_one_sentence(image_folder, tmp_path, monkeypatch, capfd, name):
    _fill_up(monkeypatch, name)
    options = [*short_options(image_folder, tmp_path, epochs=1), "--run.log-ids"]
    assert main(options) == 2
    (told,) = [line for line in capfd.readouterr().err.splitlines() if line]
    assert told.startswith("error: ") and f"{tmp_path / 'ddp'}/" in told and name in told
    assert "cannot be written" in told and "No space left on device" in told
    assert not list(tmp_path.rglob("*.partial"))
    monkeypatch.undo()
    assert main(options) == 0, "with space again the same command goes on"


def test_tensorboards_own_thread_is_heard_as_well(image_folder, tmp_path, monkeypatch, capfd):
    _fill_up(monkeypatch, "events.")
    hook = threading.excepthook
    assert main([*short_options(image_folder, tmp_path, epochs=1), "--run.tensorboard"]) == 2
    assert capfd.readouterr().err == f"error: {tmp_path / 'ddp' / 'tensorboard'} {REASON}" + (
        " or permit it, and the same command goes on from the newest checkpoint\n"
    )
    assert threading.excepthook is hook


def test_the_list_of_bad_samples_stays_as_it_was(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path, writes=True)
    folder.log_bad_samples([Substitution(3, 4, "broken")])
    before = folder.bad_samples.read_bytes()
    _fill_up(monkeypatch, "bad-samples.jsonl")
    with pytest.raises(FeedrateError) as raised:
        folder.log_bad_samples([Substitution(5, 6, "broken too")])
    assert f"{folder.bad_samples} {REASON}" in str(raised.value)
    assert folder.bad_samples.read_bytes() == before


def test_a_logger_of_ones_own_needs_no_sentence_of_its_own(tmp_path):
    class Failing(EpochTable):
        def log(self, record):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

        flush = observe = close = lambda self, *arguments: self.log({})

    folder = RunFolder(tmp_path, writes=True, loggers=[Failing(tmp_path / "table")])
    for write in (
        lambda: folder.log({"kind": "step"}),
        folder.metrics_bytes,
        lambda: folder.observe(0, None, None, ()),
        folder.close,
    ):
        with pytest.raises(FeedrateError, match=r"cannot be written \(Disk quota exceeded\)"):
            write()


def test_where_no_checkpoint_is_gone_on_from_the_sentence_ends_with_what_helps_as_well(tmp_path):
    with pytest.raises(FeedrateError) as raised, writing(tmp_path / "report.json", OR_ELSEWHERE):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert str(raised.value) == f"{tmp_path / 'report.json'} {REASON} or permit it, or give another --run.folder"


def test_what_is_wrong_otherwise_is_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(KeyError), writing(tmp_path):
        raise KeyError("a bug")


FULL_ON_MAIN = """
import builtins, os, sys
from pathlib import Path
sys.path.insert(0, os.getcwd())
from engine.dist import run_and_end
from engine.reporting import run_folder
from engine.train import main
name = sys.argv.pop(1)
def opened(path, *rest, **more):
    return builtins.open("/dev/full" if Path(path).name == name else path, *rest, **more)
run_folder.open = opened
run_and_end(lambda: main(sys.argv[1:]))
"""


def test_all_ranks_end_with_the_sentence_where_the_main_one_cannot_write(image_folder, tmp_path):
    program = tmp_path / "full.py"
    program.write_text(FULL_ON_MAIN)
    # deaf to SIGTERM, or torchrun might end the other rank by it before that can say why it ends by itself
    deaf = ["--no-python", "sh", "-c", 'trap "" TERM; exec "$0" "$@"', sys.executable]
    options = short_options(image_folder, tmp_path / "runs")
    result = run(torchrun(2, *deaf, str(program), "metrics.jsonl", *options))
    told = sorted(line for line in result.stderr.splitlines() if line.startswith("error"))
    sentence = f"{tmp_path / 'runs' / 'ddp' / 'metrics.jsonl'} {REASON}"
    assert len(told) == 2, result.stderr
    assert told[0].startswith(f"error (rank 1): {sentence}") and told[1].startswith(f"error: {sentence}")


class _WithAnother(Ranks):
    """This rank and another one, which met with a fault of its own, or none."""

    fault: str | None = None

    def largest(self, values):
        return [max(values[0], float(self.fault is not None))]

    def gather(self, value):
        return [value, self.fault]


def test_a_fault_of_any_rank_is_raised_by_all_and_of_several_the_firsts():
    def refuse():
        raise FeedrateError("mine")

    ranks = _WithAnother(0, 2, 0, 2, torch.device("cpu"))
    ranks.together(lambda: None)
    with pytest.raises(FeedrateError, match="mine"):
        ranks.together(refuse)
    object.__setattr__(ranks, "fault", "another's")
    with pytest.raises(FeedrateError, match="another's"):
        ranks.together(lambda: None)
    with pytest.raises(FeedrateError, match="mine"):
        ranks.on_main(refuse)
    dataclasses.replace(ranks, rank=1).on_main(refuse)  # it is not its to do
    ONE_RANK.together(lambda: None)
