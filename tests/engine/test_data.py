"""From settings to loaders: which samples they give, in what order, and what is said about it."""

import contextlib
import dataclasses
import json
import shutil
import sys
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from short_runs import ONE_RANK, run_to_end, short_config, start_from

sys.path.append(str(Path(__file__).resolve().parent.parent / "loaders"))
from packed_by_hand import samples_of, write_packed

from converters.command import main as convert
from engine.augment import Normalize
from engine.channels import channels_of
from engine.command_line import load_preset
from engine.config import Config, DataConfig
from engine.data import (
    Data,
    agreed_loader,
    loader_options,
    one_rank_first,
    open_data,
    plan_of,
    preferred_format,
    refuse_classes,
)
from engine.data_path import data_path_to_open, data_then_and_now
from engine.dist import Ranks
from engine.profiler.session import open_source
from engine.safeguards.watchdog import Watchdog
from loaders.api import LoaderOptions
from loaders.beton_records import BetonRecords
from loaders.errors import FeedrateError
from loaders.page_cache import WholeSet
from loaders.plan import BlockShuffled
from loaders.raw_records import RawRecords
from loaders.records import open_records


def test_a_run_that_evaluates_on_what_it_trains_on_warns(image_folder, tmp_path):
    for split, warns in (("val", False), ("train", True)):
        config, told = short_config(image_folder, tmp_path), []
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, eval_split=split))
        open_data(config, ONE_RANK, told.append).close()
        warnings = [line for line in told if "warning: --data.eval-split is train, which is trained on" in line]
        assert len(warnings) == warns


@pytest.fixture(scope="module")
def packed(image_folder, tmp_path_factory) -> Path:
    """The image folder as .beton: 37 training samples, 23 to evaluate."""
    splits = {split: samples_of(image_folder, split) for split in ("train", "val")}
    return write_packed(tmp_path_factory.mktemp("packed"), splits, ("beton",))


def config_of(path: Path, folder: Path, **data) -> Config:
    config = short_config(path, folder)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **data))


@pytest.fixture
def opened(tmp_path):
    """opened(path, **data settings): (Data, what was said); closed after the test."""
    datas: list[Data] = []

    def open_it(path: Path, **data):
        said: list[str] = []
        datas.append(open_data(config_of(path, tmp_path, **data), ONE_RANK, said.append))
        return datas[-1], "\n".join(said)

    yield open_it
    for data in datas:
        data.close()


def ids_of(loader, epoch: int = 0) -> list[int]:
    return [index for batch in loader.epoch(epoch) for index in batch.ids[: batch.num_valid].tolist()]


def test_chosen_classes_and_subsets_alone_are_trained_on_and_evaluated_and_keep_their_labels(packed, opened):
    data, said = opened(packed, classes=("cat", "bee"), subset=15, eval_subset=0.5)
    train, val = open_records(packed, "train"), open_records(packed, "val")
    assert data.num_classes == 3 and len(data.train) == 2
    seen = ids_of(data.train) + ids_of(data.train, 1)
    assert len(set(seen)) <= 15 and {train.labels[index] for index in seen} == {1, 2}
    counted = ids_of(data.evaluation)
    assert len(counted) == len(set(counted)) == 8 and {val.labels[index] for index in counted} <= {1, 2}
    assert "data: 15 of 37 to train on, 8 of 23 to evaluate, 3 classes" in said
    assert "2 classes are chosen; labels and the model's head stay those of the whole set" in said


def test_data_of_another_number_of_classes_than_a_preset_expects_is_refused(packed, opened):
    opened(packed, expected_classes=3)
    with pytest.raises(FeedrateError, match=r"has 3 classes and 10 are expected: .* --data.expected-classes 3"):
        opened(packed, expected_classes=10)


@pytest.mark.parametrize("label", [-1, 2])
def test_labels_that_the_models_head_does_not_have_are_refused_before_anything_is_trained(label):
    good = SimpleNamespace(classes=("ant", "bee"), labels=np.array([0, 1, 1]))
    bad = SimpleNamespace(classes=("ant", "bee"), labels=np.array([0, label, 1]))
    refuse_classes(good, good, DataConfig())
    for pair, split in (((bad, good), "train"), ((good, bad), "val")):
        with pytest.raises(FeedrateError, match=f"labels of '{split}' run from .* and there are 2 classes, 0 to 1"):
            refuse_classes(*pair, DataConfig())


@pytest.mark.parametrize(
    ("evaluated", "told"),
    [
        (("ant", "cow"), "'train' has 2 classes and 'val' has 2, and label 1 is 'bee' in the former and 'cow' in the"),
        (("bee", "ant"), "'train' has 2 classes and 'val' has 2, and label 0 is 'ant' in the former and 'bee' in the"),
        (("ant",), "'train' has 2 classes and 'val' has 1, and label 1 is 'bee' in the former and no class in the"),
    ],
)
def test_of_splits_with_other_classes_the_first_label_that_differs_is_named(evaluated, told):
    labels = np.array([0])
    train, val = (SimpleNamespace(classes=names, labels=labels) for names in (("ant", "bee"), evaluated))
    with pytest.raises(FeedrateError, match=f"{told} latter: .* --data.eval-split$"):
        refuse_classes(train, val, DataConfig())


def test_nothing_chosen_is_everything_as_ever(packed, opened):
    data, said = opened(packed)
    assert len(ids_of(data.train)) == 35 and sorted(ids_of(data.evaluation)) == list(range(23))
    assert "data: 37 to train on, 23 to evaluate, 3 classes" in said
    assert "sampling" not in data.train.identity()["stream"]


def test_the_order_by_blocks_takes_its_size_from_the_stored_bytes_and_says_so(packed, opened):
    records = open_records(packed, "train")
    mib = 5 * float(records.sizes.mean()) / 2**20
    data, said = opened(packed, order="block", block_mib=mib, blocks_mixed=2, block_lanes=7, views=1)
    assert "order by blocks of 5 samples, 2 mixed at a time in each of 7 lanes, 0.0 GB in memory over all ranks" in said
    assert data.train.identity()["stream"]["order"] == {
        "kind": "BlockShuffled", "global_batch_size": 7, "block_samples": 5, "blocks_mixed": 2, "lanes": 7,
    }  # fmt: skip
    assert len(set(ids_of(data.train))) == 35


@pytest.mark.parametrize("per", ["class", "sample"])
@pytest.mark.parametrize("ending", ["npy", "txt"])
def test_weights_are_read_from_a_file_a_class_or_a_sample_each(packed, opened, tmp_path, per, ending):
    labels = open_records(packed, "train").labels
    weights = np.array([0, 1.5, 0]) if per == "class" else np.where(labels == 1, 0.25, 0)
    path = tmp_path / f"weights.{ending}"
    np.save(path, weights) if ending == "npy" else np.savetxt(path, weights)
    data, _ = opened(packed, sampling="weighted", weights=str(path))
    seen = ids_of(data.train)
    assert len(seen) == 35 and set(labels[seen].tolist()) == {1}


@pytest.mark.parametrize("to", ["beton", "raw", "shards"])
def test_a_weight_means_the_same_image_for_a_folder_and_its_packed_set(image_folder, opened, tmp_path, to, capsys):
    out = tmp_path / "out"
    assert (
        convert(["folder", "--source", str(image_folder), "--out", str(out), "--to", to, "--workers", "1"], "", None)
        == 0
    )
    capsys.readouterr()
    folder, packed = open_records(image_folder, "train"), open_records(out, "train")
    names = packed.in_source.names()
    wanted = [5, 17]  # of the folder
    weights = np.zeros(37)
    weights[wanted] = 1
    np.save(tmp_path / "w.npy", weights)
    settings = {"sampling": "weighted", "weights": str(tmp_path / "w.npy")}
    data, said = opened(image_folder, **settings)
    assert set(ids_of(data.train)) == set(wanted)
    assert "w.npy, one a training sample in the order in which they are stored" in said
    data, said = opened(out, **settings)
    seen = set(ids_of(data.train))
    expected = [str(Path(folder.where(index)).relative_to(image_folder / "train")) for index in wanted]
    assert sorted(names[index] for index in seen) == expected and seen != set(wanted)
    told = "one a training sample in the order of the source that they were packed from"
    assert f"weights: 37 of {tmp_path / 'w.npy'}, {told}, {image_folder}" in said
    assert "weights:" not in opened(out, sampling="balanced")[1]


def test_bad_samples_that_packing_left_out_keep_their_weights(image_folder, opened, tmp_path, capsys):
    plain, out = tmp_path / "plain", tmp_path / "out"
    shutil.copytree(image_folder, plain)
    broken = sorted((plain / "train" / "ant").iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:300])
    words = ["folder", "--source", str(plain), "--out", str(out), "--on-bad", "skip", "--workers", "1"]
    assert convert(words, "", None) == 0
    capsys.readouterr()
    names = open_records(out, "train").in_source.names()
    weights = np.zeros(37)
    weights[2] = 1
    np.save(tmp_path / "w.npy", weights)
    data, _ = opened(out, sampling="weighted", weights=str(tmp_path / "w.npy"))
    third = sorted((image_folder / "train" / "ant").iterdir())[2]
    assert {names[index] for index in ids_of(data.train)} == {f"ant/{third.name}"}
    np.save(tmp_path / "w.npy", weights[:36])  # as many as were packed
    with pytest.raises(FeedrateError, match="or 37, one a training sample of the source, with those that packing left"):
        opened(out, sampling="weighted", weights=str(tmp_path / "w.npy"))


def test_weights_that_count_what_has_no_number_in_the_source_are_refused_and_not_shifted(
    image_folder, opened, tmp_path, capsys
):
    plain, out = tmp_path / "plain", tmp_path / "out"
    shutil.copytree(image_folder, plain)
    (plain / "train" / "ant" / "0.jpg").symlink_to("/nowhere")  # torchvision's ImageFolder lists it
    words = ["folder", "--source", str(plain), "--out", str(out), "--on-bad", "skip", "--workers", "1"]
    assert convert(words, "", None) == 0
    capsys.readouterr()
    settings = {"sampling": "weighted", "weights": str(tmp_path / "w.npy")}
    np.save(tmp_path / "w.npy", np.ones(38))
    with pytest.raises(FeedrateError, match="or 37, one a training sample"):
        opened(out, **settings)
    np.save(tmp_path / "w.npy", np.ones(37))
    assert "weights: 37 of" in opened(out, **settings)[1]
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["source"]["num_listed"]  # as packing wrote it before it was noted
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert "weights: 37 of" in opened(out, **settings)[1]


def test_where_turbo_resizes_on_the_device_it_takes_the_raw_pixels_that_are_there(image_folder, opened, tmp_path):
    splits = {split: samples_of(image_folder, split) for split in ("train", "val")}
    both = write_packed(tmp_path / "both", splits, ("beton", "raw"))
    raw = write_packed(tmp_path / "raw", splits, ("raw",))
    expected, _ = opened(raw, resize="device")
    for loader in ("turbo", "auto"):
        config = config_of(both, tmp_path, resize="device")
        config = dataclasses.replace(config, loader=loader)
        with contextlib.closing(open_data(config, ONE_RANK, lambda text: None)) as data:
            assert data.train.name == data.evaluation.name == "turbo"
            for loader_here, loader_there in ((data.train, expected.train), (data.evaluation, expected.evaluation)):
                for batch, other in zip(loader_here.epoch(0), loader_there.epoch(0), strict=True):
                    assert torch.equal(batch.images, other.images)
        with open_source(config, ONE_RANK, lambda text: None) as source:
            assert source.records.is_raw.all()
    assert not preferred_format(config_of(both, tmp_path)) and not open_records(both, "train").is_raw.all()
    for kind, format in ((RawRecords, "raw"), (BetonRecords, "beton"), (BetonRecords, "shards")):
        assert isinstance(open_records(both, "train", prefers=format), kind)
    assert len(open_records(image_folder, "train", prefers="raw")) == 37
    with pytest.raises(FeedrateError, match="anew with --to raw, or with --write-mode raw"):
        opened(image_folder, resize="device")


def test_balanced_draws_repeats_and_views_reach_the_loader(packed, opened):
    labels = open_records(packed, "train").labels
    data, _ = opened(packed, sampling="balanced")
    counts = np.bincount(labels[[index for epoch in range(20) for index in ids_of(data.train, epoch)]])
    assert np.all(np.abs(counts - 700 / 3) < 6 * np.sqrt(700 * 2 / 9))
    data, _ = opened(packed, repeats=5)
    assert Counter(Counter(ids_of(data.train)).values()) == {5: 7}
    data, _ = opened(packed, batch_size=14, views=7)
    ids = ids_of(data.train)
    assert len(data.train) == 18 and ids[::7] == ids[6::7] and len(set(ids)) == 36


def test_bad_samples_may_be_substituted_in_training_and_never_in_evaluation(packed, opened):
    config = config_of(packed, packed, on_bad="substitute", max_bad=3)
    options = loader_options(config.data, ONE_RANK)
    assert (options.on_bad, options.max_bad) == ("substitute", 3)
    data, _ = opened(packed, on_bad="substitute", max_bad=3)  # evaluation would refuse it
    assert len(ids_of(data.evaluation)) == 23


def test_the_whole_set_is_brought_into_memory_or_refused_in_one_sentence(packed, opened, image_folder, monkeypatch):
    _, said = opened(packed, page_cache="memory")
    assert "reading into memory" in said and "100 %" in said
    with pytest.raises(FeedrateError, match="needs a packed set") as caught:
        opened(image_folder, page_cache="memory")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(WholeSet, "refusal", lambda self: "it does not fit")
    with pytest.raises(FeedrateError, match="it does not fit"):
        opened(packed, page_cache="memory")


def test_where_one_rank_lacks_the_memory_all_use_the_same_loader():
    class Two(Ranks):
        """Another rank answers, too."""

        def gather(self, value):
            return [value, ("turbo", "there is no room")]

    said = []
    ranks = Two(0, 1, 0, 1, torch.device("cpu"))
    assert agreed_loader("torchvision", [], LoaderOptions(), ranks, said.append) == "turbo"
    assert said[0] == "loader: turbo (there is no room)"
    assert agreed_loader("torchvision", [], LoaderOptions(), ONE_RANK, said.append) == "torchvision"


def test_reading_into_memory_moves_so_that_no_watchdog_takes_it_for_a_hang(packed, tmp_path, monkeypatch):
    stages = []
    monkeypatch.setattr(Watchdog, "at", lambda self, stage: stages.append(stage))
    run_to_end(dataclasses.replace(config_of(packed, tmp_path, page_cache="memory"), epochs=1))
    assert any(stage.startswith("opening the data (reading into memory: ") for stage in stages)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"order": "block", "block_lanes": 7}, "no part of a packed file"),
        ({"classes": ("bea",)}, "no class 'bea': did you mean bee"),
        ({"subset": 38}, "1 … 37"),
        ({"repeats": 10**21}, "use fewer"),
        ({"subset": 3}, "at most 3"),
        ({"eval_subset": 0.001}, "makes 0 samples"),
        ({"sampling": "weighted", "weights": "/nowhere"}, "/nowhere cannot be read|/nowhere not found"),
    ],
)
def test_what_does_not_fit_the_set_is_refused_in_one_sentence(image_folder, opened, changes, says):
    with pytest.raises(FeedrateError, match=says) as caught:
        opened(image_folder, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("content", "says"), [("1\n2\n", "3 are needed, one a class, or 37"), ("1\nx\n3", "does not")])
def test_a_file_of_other_weights_is_refused_in_one_sentence(image_folder, opened, tmp_path, content, says):
    (tmp_path / "weights.txt").write_text(content)
    with pytest.raises(FeedrateError, match=says) as caught:
        opened(image_folder, sampling="weighted", weights=str(tmp_path / "weights.txt"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("stored", "says"),
    [
        (None, "does not hold weights"),  # a file of no bytes
        ([1, float("nan"), 1], "weights.npy holds weights that are negative, infinite or no numbers"),
        ([1, -1, 1], "weights.npy holds weights that are negative"),
        ([1j, 1, 1], "its values are complex128"),
        (["1", "2", "3"], "numbers are needed"),
        ([0, 0, 0], "of one chosen sample at least above 0"),
    ],
)
def test_a_file_of_no_weights_is_refused_in_one_sentence(image_folder, opened, tmp_path, stored, says, recwarn):
    path = tmp_path / "weights.npy"
    path.touch() if stored is None else np.save(path, np.array(stored))
    with pytest.raises(FeedrateError, match=says) as caught:
        opened(image_folder, sampling="weighted", weights=str(path))
    assert "\n" not in str(caught.value)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"subset": 0.0}, "subset of 0.0"),
        ({"eval_subset": 2.5}, "whole number"),
        ({"subset": float("inf")}, "inf"),
        ({"sampling": "weighted"}, "--data.weights must name"),
        ({"weights": "w.npy"}, "--data.sampling weighted"),
        ({"sampling": "balanced", "repeats": 2}, "use one of them"),
        ({"order": "block", "repeats": 2}, "--data.order shuffled"),
        ({"order": "block", "sampling": "balanced"}, "--data.order shuffled"),
        ({"classes": ("ant", "ant")}, "named once"),
        ({"views": 3}, "multiple of the 3 views"),
        ({"views": 0}, "views is 0"),
        ({"block_mib": 0.0}, "block_mib is 0.0"),
        ({"max_bad": -1}, "max_bad is -1"),
        ({"size_ramp": (1, 2, 3)}, "smallest and largest side"),
        ({"size_ramp": (160, 192, 1, 2), "size_schedule": ((0, 160),)}, "without a size_schedule"),
        ({"size_ramp": (160, 190, 1, 2)}, "multiples of 32"),
        ({"size_schedule": ((1, 160),)}, "start at epoch 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_sentence(settings, says):
    with pytest.raises(FeedrateError, match=says) as caught:
        DataConfig(**settings)
    assert "\n" not in str(caught.value)


def test_sizes_may_follow_a_schedule_or_ffcvs_ramp_also_from_a_preset(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[data]\nsize_schedule = [[0, 160], [71, 192]]\nclasses = ['ant']\nsubset = 1")
    data = load_preset(str(path)).data
    assert data.train_view() == DataConfig(size_ramp=(160, 192, 65, 76)).train_view()
    assert [data.train_view().size_at(epoch) for epoch in (0, 70, 71)] == [160, 160, 192]
    for text, says in (
        ("size_schedule = [0, 160]", "it must be a list"),
        ("size_schedule = [[0, 160, 2]]", "must have 2 values"),
        ("size_schedule = [[0, 'a']]", "must be of type int"),
        ("classes = [3]", "must be of type str"),
    ):
        path.write_text(f"[data]\n{text}")
        with pytest.raises(FeedrateError, match=says) as caught:
            load_preset(str(path))
        assert "\n" not in str(caught.value)


def test_a_whole_run_with_blocks_views_and_growing_images(packed, tmp_path):
    config = config_of(
        packed, tmp_path, order="block", block_mib=0.01, block_lanes=7, batch_size=14, views=2,
        size_schedule=((0, 16), (1, 24)),
    )  # fmt: skip
    result = run_to_end(config)
    epochs = [line for line in result["metrics"] if line["kind"] == "epoch"]
    assert len(epochs) == 2 and all(line["num_evaluated"] == 23 for line in epochs)
    assert result["position"] == [2, 0]
    json.dumps(plan_of(open_records(packed, "train"), config).identity())
    assert isinstance(plan_of(open_records(packed, "train"), config).order, BlockShuffled)


def test_a_packed_set_beside_is_read_unless_it_is_not_preferred(image_folder, tmp_path):
    plain = tmp_path / "plain"
    data = DataConfig(path=str(plain))
    assert data_path_to_open(data) == str(plain)
    write_packed(tmp_path / "plain-packed", {"train": samples_of(image_folder, "train")}, ("beton",))
    assert data_path_to_open(data) == data_path_to_open(DataConfig(path=f"{plain}/")) == str(plain) + "-packed"
    assert data_path_to_open(DataConfig(path=str(plain), prefer_packed=False)) == str(plain)


def test_a_run_whose_data_were_packed_since_names_both_and_goes_on_with_the_folder_itself(image_folder, tmp_path):
    plain = tmp_path / "plain"
    shutil.copytree(image_folder, plain)
    whole = run_to_end(short_config(plain, tmp_path / "whole"))
    start_from(tmp_path / "whole" / "short", 4, tmp_path / "cut" / "short")
    splits = {split: samples_of(image_folder, split) for split in ("train", "val")}
    splits["train"].pop()  # as the converters leave out what is stored twice
    packed = write_packed(tmp_path / "plain-packed", splits, ("beton",))
    with pytest.raises(FeedrateError) as refused:
        run_to_end(short_config(plain, tmp_path / "cut"))
    told = str(refused.value)
    assert "stream.data was " in told and "\n" not in told
    assert (
        f". The run began with --data.path {plain}, and {packed} is read now: if that was packed since,"
        f" --data.no-prefer-packed reads {plain} itself. Start another run" in told
    )
    assert run_to_end(config_of(plain, tmp_path / "cut", prefer_packed=False)) == whole


def test_of_another_set_that_is_read_packed_nothing_is_said_of_packing_it_since(image_folder, tmp_path):
    plain = tmp_path / "plain"
    packed = write_packed(tmp_path / "plain-packed", {"train": samples_of(image_folder, "train")}, ("beton",))
    file = tmp_path / "config.toml"
    file.write_text(f'data = {{path = "{tmp_path / "other"}"}}')
    told = data_then_and_now(file, DataConfig(path=str(plain)))
    assert told == f"The run began with --data.path {tmp_path / 'other'}, and {packed} is read now"
    file.write_text(f'data = {{path = "{plain}/"}}')
    assert f"--data.no-prefer-packed reads {plain} itself" in data_then_and_now(file, DataConfig(path=str(plain)))


def test_of_other_data_both_paths_are_named_and_of_other_settings_none(image_folder, packed, tmp_path):
    config = short_config(image_folder, tmp_path)
    run_to_end(dataclasses.replace(config, epochs=1))
    with pytest.raises(FeedrateError, match=f"began with --data.path {image_folder}, and {packed} is read now. Start"):
        run_to_end(dataclasses.replace(short_config(packed, tmp_path), epochs=1))
    with pytest.raises(FeedrateError, match="epochs was 1 and is 2. Start") as refused:
        run_to_end(config)
    assert "data.path" not in str(refused.value)
    for content in (None, b"\xff", b"data = 3", b"[data"):
        file = tmp_path / "config.toml"
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_bytes(content)
        assert data_then_and_now(file, config.data) == f"Now {image_folder} is read"


def test_a_constant_channel_is_normalised_to_0_and_said_and_the_run_learns(packed, tmp_path, capsys):
    shutil.copytree(packed, tmp_path / "constant")
    manifest = tmp_path / "constant" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["statistics"]["mean"][1], content["statistics"]["std"][1] = 77.0, 0.0
    manifest.write_text(json.dumps(content))
    said = []
    data = open_data(config_of(tmp_path / "constant", tmp_path), ONE_RANK, said.append)
    data.close()
    assert "the green channel is the same everywhere: its pixels are normalised to 0" in said
    normalised = Normalize(data.channels, ONE_RANK.device, channels_last=True)(
        torch.full((2, 3, 4, 4), 77, dtype=torch.uint8)
    )
    assert normalised.isfinite().all() and not normalised[:, 1].any() and normalised[:, 0].all()
    run_to_end(config_of(tmp_path / "constant", tmp_path / "runs"))
    whole = open_records(packed, "train").channels
    assert channels_of(open_records(packed, "train")) == whole, "of other sets nothing is changed"


class _Side:
    """One of two ranks, each in a thread of this process."""

    def __init__(self, local_rank, meeting, faults):
        self.local_rank, self._meeting, self._faults = local_rank, meeting, faults

    def together(self, act):
        try:
            act()
        except FeedrateError as error:
            self._faults.append(str(error))
        self._meeting.wait(60)
        faults = list(self._faults)
        self._meeting.wait(60)
        if faults:
            raise FeedrateError(faults[0])


@pytest.mark.parametrize("who", [True, False], ids=["the first", "another"])
def test_what_one_rank_cannot_open_all_refuse_with_its_sentence(who):
    asked, told, faults, meeting = [], [], [], threading.Barrier(2)

    def refuse(is_first):
        asked.append(is_first)
        if is_first == who:
            raise FeedrateError("nope does not exist")

    def open_as(local_rank):
        try:
            one_rank_first(_Side(local_rank, meeting, faults), lambda: refuse(local_rank == 0))
        except FeedrateError as error:
            told.append(str(error))

    threads = [threading.Thread(target=open_as, args=(local_rank,)) for local_rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told == ["nope does not exist"] * 2
    assert asked == ([True] if who else [True, False])  # after the first has refused nobody opens anything
