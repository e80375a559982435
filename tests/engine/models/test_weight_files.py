"""Files of weights as other engines' training scripts write them."""

import argparse
import collections
import pathlib

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.optim.swa_utils import AveragedModel

from engine.checkpointing.finished import find_weights
from engine.models.weight_files import read_weights
from loaders.errors import FeedrateError


@pytest.fixture
def model():
    torch.manual_seed(4)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))


@pytest.fixture
def averaged(model):
    """An average as torchvision's scripts keep it, of other values than the model's."""
    average = AveragedModel(model, use_buffers=True)
    average.update_parameters(model)
    with torch.no_grad():
        next(average.parameters()).fill_(2)
    return average


def _settings():
    args = argparse.Namespace(model="resnet18", lr=0.5, data_path="/data", device="cuda", weights=None)
    args.output_dir = pathlib.PosixPath("out")
    args.nested, args.groups = argparse.Namespace(auto_augment=None), collections.defaultdict(list, a=[1])
    return args


def _torchvisions(model, averaged, path):
    """references/classification/train.py."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "args": _settings(), "epoch": 3}
    content |= {"lr_scheduler": schedule.state_dict(), "model_ema": averaged.state_dict()}
    content["scaler"] = torch.amp.GradScaler("cpu").state_dict()
    torch.save(content, path)


def _timms(model, averaged, path):
    """timm/utils/checkpoint_saver.py."""
    content = {"epoch": 3, "arch": "resnet18", "state_dict": model.state_dict(), "version": 2, "args": _settings()}
    content |= {"state_dict_ema": averaged.module.state_dict(), "metric": np.float64(71.5), "amp_scaler": {}}
    torch.save(content, path)


_WRITERS = {"model_12.pth": (_torchvisions, "model_ema"), "model_best.pth.tar": (_timms, "state_dict_ema")}


def _equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", _WRITERS)
def test_checkpoints_of_other_scripts_are_read_with_what_lies_beside_the_weights(tmp_path, model, averaged, name):
    write, section = _WRITERS[name]
    write(model, averaged, tmp_path / name)
    told = []
    assert _equal(read_weights(str(tmp_path / name), told.append), model.state_dict())
    path = tmp_path / name
    assert told == [f"{path} holds averaged weights too, which are passed over: {path}#{section} takes them"]


@pytest.mark.parametrize("name", _WRITERS)
def test_averaged_weights_are_taken_by_their_section(tmp_path, model, averaged, name):
    write, section = _WRITERS[name]
    write(model, averaged, tmp_path / name)
    told = []
    path = f"{tmp_path / name}#{section}"
    assert _equal(read_weights(path, told.append), averaged.module.state_dict()) and not told
    assert find_weights(pathlib.Path(path), None) == pathlib.Path(path)  # evaluate.py takes it too
    with pytest.raises(FeedrateError, match="has no section 'swa', which #swa names: it has '(model|state_dict)',"):
        read_weights(f"{tmp_path / name}#swa")


def test_averaged_weights_alone_are_taken_and_said(tmp_path, averaged):
    torch.save({"model_ema": averaged.state_dict()}, tmp_path / "w.pt")
    told = []
    assert _equal(read_weights(str(tmp_path / "w.pt"), told.append), averaged.module.state_dict())
    assert told == [f"{tmp_path / 'w.pt'} holds averaged weights alone: these are taken"]


@pytest.mark.parametrize("name", ["pytorch_model.bin", "last.ckpt", "weights", "a#b.pt", "model.safetensors"])
def test_a_name_may_end_in_anything(tmp_path, model, name):
    write = save_file if name.endswith(".safetensors") else torch.save
    write(model.state_dict(), tmp_path / name)
    assert _equal(read_weights(str(tmp_path / name)), model.state_dict())
    assert find_weights(tmp_path / name, None) == tmp_path / name


def test_what_lies_beside_the_weights_is_allowed_for_that_file_alone(tmp_path, model):
    torch.save({"model": model.state_dict(), "args": _settings(), "best": np.float32(3)}, tmp_path / "w.pt")
    unsafe = torch.serialization.get_unsafe_globals_in_checkpoint(tmp_path / "w.pt")
    assert {"argparse.Namespace", f"{pathlib.PosixPath.__module__}.PosixPath", "numpy.dtype"} <= set(unsafe)
    assert _equal(read_weights(str(tmp_path / "w.pt")), model.state_dict())
    assert torch.serialization.get_unsafe_globals_in_checkpoint(tmp_path / "w.pt") == unsafe


class _Trainer:
    pass


def test_anything_else_is_refused_by_its_name_and_with_the_way_to_convert_it(tmp_path, model):
    path = tmp_path / "w.pt"
    torch.save({"state_dict": model.state_dict(), "trainer": _Trainer()}, path)
    with pytest.raises(FeedrateError) as caught:
        read_weights(str(path))
    sentence = str(caught.value)
    assert f"since it holds {__name__}._Trainer, which is more" in sentence and "\n" not in sentence
    assert f"torch.save(torch.load('{path}', weights_only=False)['state_dict'], 'weights.pt')" in sentence
    torch.save(torch.load(path, weights_only=False)["state_dict"], tmp_path / "weights.pt")
    assert _equal(read_weights(str(tmp_path / "weights.pt")), model.state_dict())
