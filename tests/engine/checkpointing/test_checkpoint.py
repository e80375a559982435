import errno
import os
from pathlib import Path

import pytest
import torch
from commands import python

from engine.checkpointing import checkpoint as checkpoint_module
from engine.checkpointing.checkpoint import (
    clean_leftovers,
    fault_of,
    newest_checkpoint,
    path_of,
    refuse_mismatch,
    save_checkpoint,
    write_sealed,
)
from engine.config import DataConfig
from loaders.errors import FeedrateError


def _save(folder, step, num_kept=10):
    return save_checkpoint(folder, step, {"step": step, "weights": torch.arange(1000.0) + step}, num_kept)


def test_the_newest_by_number_is_found_not_the_last_by_name(tmp_path):
    for step in (9, 10, 123_456_789, 123_456_790):
        _save(tmp_path, step)
    assert newest_checkpoint(tmp_path, print)["step"] == 123_456_790


def test_no_checkpoint_is_none(tmp_path):
    assert newest_checkpoint(tmp_path / "nothing", print) is None


def _cut(path):
    os.truncate(path, path.stat().st_size // 2)


def _alter(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_cut, "bytes of"),
        (_alter, "checksum does not match"),
        (lambda path: path.with_suffix(".json").unlink(), "missing or damaged"),
        (lambda path: path.with_suffix(".json").write_text("[]"), "missing or damaged"),
    ],
)
def test_a_damaged_newest_is_passed_over_and_told(tmp_path, damage, told):
    _save(tmp_path, 1)
    damage(_save(tmp_path, 2))
    said = []
    assert newest_checkpoint(tmp_path, said.append)["step"] == 1
    assert len(said) == 1 and told in said[0]


def test_only_the_newest_few_are_kept(tmp_path):
    for step in range(6):
        _save(tmp_path, step, num_kept=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-00000004.json",
        "step-00000004.pt",
        "step-00000005.json",
        "step-00000005.pt",
    ]


def test_the_best_that_a_kept_one_knows_is_kept_as_well(tmp_path):
    kept = {}
    for step, best in ((1, None), (2, 2), (3, 2), (4, 2), (5, 5), (6, 5), (7, 5)):
        save_checkpoint(tmp_path, step, {"step": step}, num_kept=2, best_step=best)
        kept[step] = sorted(int(path.stem.split("-")[1]) for path in tmp_path.glob("*.pt"))
        assert sorted(path.stem for path in tmp_path.glob("*.json")) == sorted(p.stem for p in tmp_path.glob("*.pt"))
    # at 5 the older best stays, since 4, which is kept, goes on from it
    assert kept == {1: [1], 2: [1, 2], 3: [2, 3], 4: [2, 3, 4], 5: [2, 4, 5], 6: [5, 6], 7: [5, 6, 7]}


def test_a_damaged_one_from_later_does_not_push_out_what_is_valid(tmp_path):
    _save(tmp_path, 8)
    _cut(_save(tmp_path, 9))
    assert newest_checkpoint(tmp_path, lambda text: None)["step"] == 8
    save_checkpoint(tmp_path, 7, {"step": 7}, num_kept=1)  # somebody went back by hand
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-00000007.json", "step-00000007.pt"]


def test_one_written_again_is_valid_at_every_moment(tmp_path, monkeypatch):
    """The new seal is there and the new file is not: the old one must still be usable, it may be the only one."""
    _save(tmp_path, 1)

    class KilledHereError(BaseException):
        pass

    really = checkpoint_module.atomic_file

    def killed_before_the_file(path):
        if path.suffix == ".pt":
            raise KilledHereError
        return really(path)

    monkeypatch.setattr(checkpoint_module, "atomic_file", killed_before_the_file)
    for _ in range(3):  # again and again
        with pytest.raises(KilledHereError):
            save_checkpoint(tmp_path, 1, {"step": 1, "later": True}, 1)
        assert "weights" in newest_checkpoint(tmp_path, print)
    monkeypatch.setattr(checkpoint_module, "atomic_file", really)
    save_checkpoint(tmp_path, 1, {"step": 1, "later": True}, 1)
    assert newest_checkpoint(tmp_path, print) == {"step": 1, "later": True, "path": str(path_of(tmp_path, 1))}


def test_what_a_killed_writer_left_is_cleaned_and_nothing_else(tmp_path):
    _save(tmp_path, 1)
    before = {path.name for path in tmp_path.iterdir()}
    (tmp_path / "step-00000002.pt.partial").write_bytes(b"half")
    (tmp_path / "step-00000002.json").write_text("{}")
    (tmp_path / "step-00000003.json.partial").write_text("{")
    (tmp_path / "notes.txt").write_text("the user's own")
    clean_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == before | {"notes.txt"}


def test_a_disk_that_really_takes_no_more_leaves_the_earlier_one_and_no_rest(tmp_path):
    """A limit on the size of files refuses in the middle of writing, as a full disk does."""
    write_sealed(tmp_path, 1, bytes(1000), 3)
    program = """
import resource, signal, sys
from pathlib import Path
from engine.checkpointing.checkpoint import write_sealed
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
for step in (1, 2):
    try:
        write_sealed(Path(sys.argv[1]), step, bytes(100_000), 3)
    except ValueError as error:
        print(error)
"""
    said = python("-c", program, str(tmp_path)).stdout.splitlines()
    assert len(said) == 2 and all("cannot be written" in line and "earlier ones are untouched" in line for line in said)
    assert fault_of(path_of(tmp_path, 1)) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000001.json", "step-00000001.pt"]


def test_a_full_disk_leaves_the_earlier_checkpoint_and_one_sentence(tmp_path, monkeypatch):
    _save(tmp_path, 1)

    class FullDisk:
        def __enter__(self):
            raise OSError(errno.ENOSPC, "No space left on device")

        def __exit__(self, *_):
            return False

    monkeypatch.setattr(checkpoint_module, "atomic_file", lambda path: FullDisk())
    with pytest.raises(FeedrateError, match="No space left on device; earlier ones are untouched"):
        _save(tmp_path, 2)
    assert newest_checkpoint(tmp_path, print)["step"] == 1


class _RunsCode:
    def __reduce__(self):
        return (os.mkdir, ("/tmp/feedrate-test-must-not-exist",))


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path):
    save_checkpoint(tmp_path, 1, {"model": _RunsCode()}, 3)
    with pytest.raises(FeedrateError, match="could run code"):
        newest_checkpoint(tmp_path, print)
    assert not Path("/tmp/feedrate-test-must-not-exist").exists()


def test_what_differs_is_named_with_both_values_and_how_to_accept_it():
    saved = {"config": {"epochs": 1, "optim": {"name": "sgd"}}, "pixels": {"loader": "turbo"}}
    current = {"config": {"epochs": 2, "optim": {"name": "sgd"}}, "pixels": {"loader": "torchvision"}}
    with pytest.raises(FeedrateError, match="config.epochs was 1 and is 2; pixels.loader was turbo and is torchvision"):
        refuse_mismatch(saved, current, ())
    with pytest.raises(FeedrateError, match="--run.allow-change config.epochs$"):
        refuse_mismatch(saved, current, ("pixels",))
    assert refuse_mismatch(saved, current, ("pixels.loader", "config.epochs")) == {
        "config.epochs": "config.epochs was 1 and is 2",
        "pixels.loader": "pixels.loader was turbo and is torchvision",
    }
    assert refuse_mismatch(saved, saved, ()) == {}


def test_what_is_told_on_cuda_alone_differs_there_and_from_nothing_elsewhere():
    cpu, cuda = {"execution": {"device": "cpu"}}, {"execution": {"device": "cuda", "deterministic": True}}
    for saved, current in ((cpu, cuda), (cuda, cpu)):
        assert refuse_mismatch(saved, current, ("execution.device",)).keys() == {"execution.device"}
    other = {"execution": {"device": "cuda", "deterministic": False}}
    with pytest.raises(FeedrateError, match="execution.deterministic was True and is False"):
        refuse_mismatch(cuda, other, ())
    assert len(refuse_mismatch(cuda, other, ("execution.deterministic",))) == 1


def test_a_checkpoint_that_does_not_tell_a_setting_is_refused_by_its_name():
    current = {"evaluation": DataConfig().evaluation()}
    saved = {"evaluation": {name: value for name, value in current["evaluation"].items() if name != "flip"}}
    with pytest.raises(FeedrateError, match="evaluation.flip was absent and is False"):
        refuse_mismatch(saved, current, ())


def test_another_stream_cannot_be_accepted_by_any_name():
    with pytest.raises(FeedrateError, match=r"stream.seed \(--seed\) was 1 and is 2. Start another run with --name$"):
        refuse_mismatch({"stream": {"seed": 1}}, {"stream": {"seed": 2}}, ("stream", "stream.seed"))


def test_what_the_stream_calls_otherwise_is_told_with_its_option_and_where_what_was_learnt_lies():
    before, now = ({"stream": {"order": {"global_batch_size": size}}, "epochs": size} for size in (16, 8))
    with pytest.raises(FeedrateError) as refused:
        refuse_mismatch(before, now, (), learnt="runs/a/weights.safetensors")
    told = str(refused.value)
    assert "stream.order.global_batch_size (--data.batch-size) was 16 and is 8" in told
    assert told.endswith("with --name; --model.weights runs/a/weights.safetensors starts it from what was learnt")
    with pytest.raises(FeedrateError, match="epochs was 16 and is 8. Start another run with --name, or accept it with"):
        refuse_mismatch({"epochs": 16}, {"epochs": 8}, (), learnt="runs/a/weights.safetensors")


def test_allowing_a_name_does_not_allow_one_that_merely_begins_like_it():
    with pytest.raises(FeedrateError):
        refuse_mismatch({"pixels_b": {"x": 1}}, {"pixels_b": {"x": 2}}, ("pixels",))
