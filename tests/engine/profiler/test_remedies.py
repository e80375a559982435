"""What is proposed is what the run could take: each option is tried on a real set with a real loader."""

from dataclasses import asdict, replace

import pytest
from short_runs import ONE_RANK, short_config

from converters.encode import Encoding
from converters.packing import PackSettings, pack
from converters.sources.records_source import RecordSamples
from engine.config import DataConfig
from engine.data import open_data
from engine.profiler.record import LOADER_STAGES, UNSEEN
from engine.profiler.remedies import Run, remedies
from loaders.errors import FeedrateError
from loaders.records import open_records

RAW = "--write-mode raw"


@pytest.fixture(scope="module")
def path_of(image_folder, tmp_path_factory):
    """Of the images as a folder, packed, packed raw, and by somebody's own records."""
    paths = {"folder": str(image_folder), "own": f"somebodys:own_records@{image_folder}"}
    theirs = tmp_path_factory.mktemp("own")
    (theirs / "somebodys.py").write_text("from loaders.records import open_records as own_records")
    for form, mode in (("packed", "jpg"), ("raw", "raw")):
        folder = tmp_path_factory.mktemp(form) / "set"
        splits = {}
        for split in ("train", "val"):
            splits[split] = RecordSamples(open_records(image_folder, split), str, str(image_folder), b"")
        pack(splits, folder, PackSettings(Encoding(write_mode=mode)), 0)
        paths[form] = str(folder)
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(theirs)
        yield paths


def proposed(run):
    """All remedies of the loader's stages, but for other loaders."""
    texts = {remedy for stage in (*LOADER_STAGES, UNSEEN) for remedy in remedies(stage, run)}
    return {text for text in texts if not text.startswith("--loader")}


def run_of(data, config):
    stored_as, is_raw = data.stored_form
    return Run(data.train.name, asdict(config), stored_as, is_raw, data.train.resize_modes)


@pytest.mark.parametrize("loader", ["turbo", "torchvision"])
@pytest.mark.parametrize("form", ["folder", "packed", "raw", "own"])
def test_each_option_that_is_proposed_is_taken_and_each_that_is_left_out_refused(form, loader, path_of, tmp_path):
    config = short_config(path_of[form], tmp_path, loader=loader)
    data = open_data(config, ONE_RANK, lambda line: None)
    data.close()
    texts = " ".join(proposed(run_of(data, config)))
    for option, changed in (
        ("--data.page-cache memory", {"page_cache": "memory"}),
        ("--data.order block", {"order": "block", "block_lanes": 7}),
        ("--data.resize device", {"resize": "device"}),
        ("--data.resize area", {"resize": "area"}),
    ):
        wanted = replace(config, data=replace(config.data, **changed))
        if option == "--data.resize area":  # "auto" is that for turbo
            texts_of_exact = proposed(replace(run_of(data, config), config={"data": {"resize": "exact"}}))
            is_proposed = option in texts_of_exact
        else:
            is_proposed = option in texts
        if is_proposed:
            open_data(wanted, ONE_RANK, lambda line: None).close()
        else:
            with pytest.raises(FeedrateError):
                opened = open_data(wanted, ONE_RANK, lambda line: None)
                next(iter(opened.train.epoch(0)))


def test_a_set_that_is_not_packed_is_to_be_packed_first_of_all(path_of, tmp_path):
    found = {}
    for form in ("folder", "packed", "raw"):
        config = short_config(path_of[form], tmp_path)
        data = open_data(config, ONE_RANK, lambda line: None)
        data.close()
        run = run_of(data, config)
        assert run.is_raw == (form == "raw")
        found[form] = run
    read, decode = (remedies(stage, found["folder"])[0] for stage in ("read", "decode"))
    assert read.startswith("packing the set (python tools/convert.py …)")
    assert decode.startswith("packing the set (python tools/convert.py …), which notes seek points")
    for form in ("packed", "raw"):
        assert not any("packing the set" in remedy for remedy in proposed(found[form]))
    assert any(RAW in remedy for remedy in proposed(found["packed"]))
    assert not any(RAW in remedy for remedy in proposed(found["raw"]))


def test_of_somebodys_own_records_nothing_is_proposed_that_needs_packed_ones(path_of, tmp_path):
    config = short_config(path_of["own"], tmp_path)
    data = open_data(config, ONE_RANK, lambda line: None)
    data.close()
    texts = " ".join(proposed(run_of(data, config)))
    assert "packing" not in texts and "--data.page-cache" not in texts and "--data.order" not in texts


def test_what_draws_samples_more_than_once_is_not_told_to_read_by_blocks():
    for data, is_proposed in (
        (DataConfig(), True),
        (DataConfig(repeats=2), False),
        (DataConfig(sampling="balanced"), False),
    ):
        run = Run("turbo", {"data": asdict(data)}, "packed", False)
        assert any("--data.order block" in remedy for remedy in remedies("read", run)) == is_proposed
