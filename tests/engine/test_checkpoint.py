import errno
import os
from pathlib import Path

import pytest
import torch

from engine import checkpoint as checkpoint_module
from engine.checkpoint import newest_checkpoint, refuse_mismatch, save_checkpoint
from loaders.api import FeedrateError


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
    assert len(refuse_mismatch(saved, current, ("pixels.loader", "config.epochs"))) == 2
    assert refuse_mismatch(saved, saved, ()) == []


def test_another_stream_cannot_be_accepted_by_any_name():
    with pytest.raises(FeedrateError, match="stream.seed was 1 and is 2. Start another run with --name$"):
        refuse_mismatch({"stream": {"seed": 1}}, {"stream": {"seed": 2}}, ("stream", "stream.seed"))


def test_allowing_a_name_does_not_allow_one_that_merely_begins_like_it():
    with pytest.raises(FeedrateError):
        refuse_mismatch({"pixels_b": {"x": 1}}, {"pixels_b": {"x": 2}}, ("pixels",))
