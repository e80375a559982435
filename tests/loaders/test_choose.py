"""A loader by name, and what is said when there is none."""

from typing import get_args

import pytest
import torch

from loaders import choose, resident_loader
from loaders.api import LoaderOptions, ResizeMode
from loaders.choose import choose_loader, open_loader, slower_because
from loaders.crops import CenterCrop, PadCrop
from loaders.errors import FeedrateError
from loaders.plan import Plan, Sequential, Shard, View
from loaders.synthetic_records import SyntheticRecords


@pytest.mark.parametrize("name", ["torchvision", "turbo", "synthetic"])
def test_a_name_opens_its_loader(name):
    records = SyntheticRecords(10, 3, 40, 30)
    plan = Plan(records.widths, records.heights, Sequential(4), View())
    loader = open_loader(name, records, plan, LoaderOptions())
    assert (loader.name, len(loader)) == (name, 3)
    loader.close()


def test_auto_gives_the_fastest_that_is_installed_and_says_why(monkeypatch):
    name, reason = choose_loader("auto")
    assert name == "turbo" and reason
    find_spec = choose.importlib.util.find_spec
    monkeypatch.setattr(choose.importlib.util, "find_spec", lambda name: None if name == "cv2" else find_spec(name))
    name, reason = choose_loader("auto")
    assert name == "torchvision" and "cv2" in reason


@pytest.mark.parametrize(("name", "says"), [("turob", "did you mean turbo"), ("", "known are"), ("xyz", "torchvision")])
def test_an_unknown_name_is_told_the_near_ones(name, says):
    with pytest.raises(FeedrateError, match=says):
        choose_loader(name)


@pytest.mark.parametrize(
    ("name", "says"), [("no_such_module:X", "there is no module no_such_module"), ("os:path", "not a loader's class")]
)
def test_a_loader_of_ones_own_that_cannot_be_one_is_refused_before_anything_is_read(name, says):
    with pytest.raises(FeedrateError, match=says):
        choose_loader(name)


def test_a_loader_that_is_not_installed_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(choose, "_is_installed", lambda module: module not in ("ffcv", "nvidia.dali"))
    with pytest.raises(FeedrateError, match=r"needs ffcv, which is not installed: make setup .* --loader auto"):
        choose_loader("ffcv")
    with pytest.raises(FeedrateError, match=r"nvidia.dali.*uv pip install nvidia-dali-cuda120"):
        choose_loader("dali")
    assert not choose._missing("torchvision")
    monkeypatch.undo()
    assert not choose._is_installed("no_such.module") and choose._is_installed("torch.utils.data")


def test_a_resize_mode_that_a_loader_lacks_is_refused_with_a_remedy():
    records = SyntheticRecords(10, 3, 40, 30)
    plan = Plan(records.widths, records.heights, Sequential(4), View())
    with pytest.raises(FeedrateError, match=r"'area'.*--loader turbo"):
        open_loader("torchvision", records, plan, LoaderOptions(resize="area"))


@pytest.mark.parametrize("resize", get_args(ResizeMode))
def test_whatever_a_run_resizes_by_it_has_a_synthetic_ceiling(resize):
    records = SyntheticRecords(10, 3, 40, 30)
    plan = Plan(records.widths, records.heights, Sequential(4), View())
    open_loader("synthetic", records, plan, LoaderOptions(resize=resize)).close()


@pytest.mark.parametrize("options", [{"num_workers": 0}, {"num_ahead": 0}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(FeedrateError, match="at least 1"):
        LoaderOptions(**options)


def test_auto_keeps_a_small_set_decoded_where_nothing_has_to_be_resized():
    small, large = SyntheticRecords(1000, 3, 32, 32), SyntheticRecords(1_000_000, 3, 32, 32)
    padded = View(PadCrop(4), 32, 0.5)

    def chosen(records, view):
        plan = Plan(records.widths, records.heights, Sequential(4), view)
        return choose_loader("auto", [(records, plan)])

    name, reason = chosen(small, padded)
    assert name == "resident" and "5 MB" in reason  # 40 × 40 px with what lies past the border
    assert chosen(small, View(PadCrop(4), 48))[0] == "turbo"  # resized
    assert chosen(large, padded)[0] == "turbo"  # 3 GB
    assert choose_loader("turbo", [(small, None)]) == ("turbo", "asked for")


def test_auto_never_takes_what_would_be_refused_and_says_why(monkeypatch):
    train, val = SyntheticRecords(1000, 3, 32, 32), SyntheticRecords(100, 3, 32, 32)
    views = (View(PadCrop(4), 32, 0.5), View(CenterCrop(32, 32), 32))
    splits = [
        (records, Plan(records.widths, records.heights, Sequential(4), view))
        for records, view in zip((train, val), views, strict=True)
    ]
    needed = 3 * (1000 * 40**2 + 100 * 32**2)  # what lies past the border of training images is held, too
    for world_size in (1, 2):
        options = LoaderOptions(Shard(0, world_size))
        for share_taken, expected in ((0.79, "resident"), (0.81, "turbo")):
            free = int(world_size * needed / share_taken)
            monkeypatch.setattr(resident_loader, "available_memory_bytes", lambda free=free: free)
            name, reason = choose_loader("auto", splits, options)
            assert name == expected
            loaders = [open_loader(name, *split, options) for split in splits]
            for loader in loaders:
                loader.close()
        assert "'resident' takes 0.01 GB" in reason and ("on 2 ranks" in reason) == (world_size == 2)
        assert "more than 80% of the 0.01 GB of memory free (cpu)" in reason


def test_a_loader_that_must_do_without_the_kernel_says_so(monkeypatch):
    monkeypatch.setenv("FEEDRATE_NATIVE", "0")
    for resize in (None, "area", "exact", "bicubic", "device"):
        assert "FEEDRATE_NATIVE=0" in slower_because("turbo", LoaderOptions(resize=resize))
    assert slower_because("torchvision") == ""


def test_a_loader_that_has_no_use_for_the_kernel_does_not_miss_it(monkeypatch, folder):
    monkeypatch.setenv("FEEDRATE_NATIVE", "0")
    resized = [(folder, Plan(folder.widths, folder.heights, Sequential(8), View(CenterCrop(28, 32), 32), 0))]
    assert "FEEDRATE_NATIVE=0" in slower_because("resident", splits=resized)  # turbo's threads cut and resize
    assert slower_because("resident", LoaderOptions(resize="device"), resized) == ""
    assert slower_because("resident", LoaderOptions(device=torch.device("cuda")), resized) == ""
    assert slower_because("resident") == ""  # nothing to resize
