"""What each loader shows of its stages: counted for every image, obeying delays, and changing no pixel."""

import ctypes
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import smooth_picture
from PIL import Image
from stored_samples import LOADERS, for_each, for_each_over_all_records

from loaders import stored_rows
from loaders.api import LoaderOptions, num_ready
from loaders.crops import CenterCrop, RandomResizedCrop
from loaders.epochs import EpochLoader
from loaders.errors import FeedrateError, LoaderError
from loaders.native import library, self_check
from loaders.pixels import Decoder, Renderer, load_rgb
from loaders.plan import Plan, Sequential, Shuffled, View
from loaders.records import open_records
from loaders.stage_times import LOADER_STAGES, Delay, StageTimes
from loaders.thread_team import Part
from loaders.transfer import to_device

NUM_WORKERS = 2
NUM_IMAGES = 32  # of an epoch: 4 batches of 8 out of 37 samples

SLEEP_S = 0.003
SPIN_S = 0.005

every_loader = for_each(LOADERS)
every_loader_over_all_records = for_each_over_all_records(LOADERS)


def drained(loader, epoch=0):
    return [(batch.images.clone(), batch.ids.clone()) for batch in loader.epoch(epoch)]


@pytest.fixture
def times():
    return StageTimes(NUM_WORKERS + 1)


@every_loader
def test_noting_what_stages_take_changes_no_pixel(samples, name, resize, times, open_one):
    untimed = drained(open_one(samples, name, resize))
    timed = drained(open_one(samples, name, resize, stage_times=times))
    for (images, ids), (timed_images, timed_ids) in zip(untimed, timed, strict=True):
        assert torch.equal(images, timed_images) and torch.equal(ids, timed_ids)


def stages_of(case, kind):
    """Those that can be seen of a loader over this kind of records, of whose images each is counted once."""
    read = [] if kind == "cifar" else ["read"]
    decode = [] if kind in ("cifar", "raw") else ["decode"]
    if case.name == "synthetic":
        return ["collate"]
    if case.name == "dali":
        return [*read, "collate"]
    if case.name == "resident":  # all is decoded before; on a CPU threads resize, which hand their batches over
        return ["augment", "collate", *(["hand-off"] if case.resize != "device" else [])]
    return [*read, *decode, "augment", "collate", "hand-off"]


@pytest.fixture(params=["native", "plain"])
def native(request, monkeypatch):
    """With the native kernel and without."""
    if request.param == "plain":
        monkeypatch.setenv("FEEDRATE_NATIVE", "0")
    elif library.load() is None:
        pytest.skip(library.why_not())
    return request.param == "native"


@every_loader_over_all_records
def test_what_exists_is_counted_for_every_image_and_nothing_else(records, case, kind, times, open_one):
    drained(open_one(records, case.name, case.resize, stage_times=times))
    reading = times.read()
    encoded = int((~records.is_raw[ids_of(open_one(records, case.name, case.resize))]).sum())
    counts = dict.fromkeys(stages_of(case, kind), NUM_IMAGES)
    if "decode" in counts:
        counts["decode"] = encoded  # some samples of .beton are stored raw
    assert {stage: figures.count for stage, figures in reading.items()} == counts
    for figures in reading.values():
        assert figures.wall_s > 0 and figures.cpu_s is not None and sum(figures.histogram) == figures.count


def ids_of(loader):
    return [index for batch in loader.epoch(0) for index in batch.ids.tolist()]


def delayed(loader, times, stage, delay):
    """What an epoch's stages take with this delay in one of them."""
    times.delay(stage, delay)
    before = times.read()
    drained(loader)
    times.delay(stage, None)
    return {name: figures.since(before.get(name)) for name, figures in times.read().items()}


def assert_found(loader, times, stages, slow=()):
    """A delay in each stage in turn is waited for by every image in that stage, and in no other stage by all.

    slow  stages that take as long anyway
    """
    for stage in stages:
        reading = delayed(loader, times, stage, Delay("sleep", SLEEP_S))
        assert list(reading) == list(stages)
        assert reading[stage].wall_s >= SLEEP_S * reading[stage].count > 0
        assert reading[stage].quantile_s(0) >= SLEEP_S * 7 / 8
        for name in set(reading) - {stage, *slow}:
            # where nothing is injected the quickest image of all takes less, however busy the machine is
            assert reading[name].quantile_s(0) < SLEEP_S * 7 / 8, (stage, name, reading[name])


@every_loader
def test_a_delay_appears_in_its_stage_alone(samples, case, times, open_one):
    # tensor operations for a whole batch at a time, whose threads wait for each other where others want the processors
    slow = ["augment"] if (case.name, case.resize) == ("resident", "device") else []
    loader = open_one(samples, case.name, case.resize, stage_times=times)
    assert_found(loader, times, stages_of(case, case.kinds[0]), slow)


@pytest.mark.parametrize("kind", ["folder", "beton", "raw"])
@pytest.mark.parametrize("resize", ["area", "exact"])
def test_a_delay_of_turbo_appears_in_its_stage_with_the_kernel_and_without(
    records, kind, resize, native, times, open_one
):
    case = next(case for case in LOADERS if (case.name, case.resize) == ("turbo", resize))
    assert_found(open_one(records, "turbo", resize, stage_times=times), times, stages_of(case, kind))


def test_waiting_in_a_stage_is_not_in_its_processor_time_and_work_is(folder, native, times, open_one):
    loader = open_one(folder, "turbo", "area", stage_times=times)
    for stage in ("read", "decode", "augment", "collate", "hand-off"):
        waiting = delayed(loader, times, stage, Delay("sleep", SPIN_S))[stage]
        assert waiting.cpu_s < SPIN_S * waiting.count <= waiting.wall_s
        for name, figures in delayed(loader, times, stage, Delay("spin", SPIN_S)).items():
            assert (figures.cpu_s >= SPIN_S * figures.count) == (name == stage), (stage, name, figures)


def test_samples_left_to_others_are_read_twice_and_counted_once(tmp_path, native, times, open_one):
    pixels = smooth_picture(60, 50, 3)
    for number in range(8):
        (tmp_path / "ant").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "ant" / f"{number}.{'png' if number % 2 else 'jpg'}")
    records = open_records(tmp_path, "train")
    drained(open_one(records, "turbo", "area", stage_times=times))
    reading = times.read()
    assert {stage: figures.count for stage, figures in reading.items()} == dict.fromkeys(
        stages_of(turbo(), "folder"), 8
    )


def test_a_sample_that_gives_way_to_another_is_two_that_were_read(damaged_folder, native, times, open_one):
    loader = open_one(damaged_folder, "turbo", "area", order=Shuffled(37), on_bad="substitute", stage_times=times)
    (batch,) = loader.epoch(0)
    assert len(batch.substitutions) == 1
    counts = {stage: figures.count for stage, figures in times.read().items()}
    assert counts == {"read": 38, "decode": 37, "augment": 37, "collate": 37, "hand-off": 37}


@pytest.fixture
def damaged_folder(image_folder, tmp_path):
    shutil.copytree(image_folder / "train", tmp_path / "train")
    records = open_records(tmp_path, "train")
    Path(records.where(5)).write_bytes(b"nothing")
    return records


def turbo():
    return next(case for case in LOADERS if case.name == "turbo")


def test_the_kernel_notes_what_python_would(times):
    kernel = library.load()
    if kernel is None:
        pytest.skip(library.why_not())
    kernel.feedrate_note.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    kernel.feedrate_note.restype = None
    rng = np.random.default_rng(0)
    walls = [
        0,
        1,
        63,
        64,
        71,
        72,
        10**12,
        *(2**n - 1 for n in range(40)),
        *rng.lognormal(12, 4, 500).astype(int).tolist(),
    ]
    ours = StageTimes(1)
    for number, wall_ns in enumerate(walls):
        stage, images, cpu_ns = number % 3, int(number % 5 > 0), wall_ns // 2 if number % 8 else -1
        kernel.feedrate_note(times.writer(2).cells.ctypes.data, stage, images, wall_ns, cpu_ns)
        ours.writer(0).stage(LOADER_STAGES[stage]).record(images, wall_ns, None if cpu_ns < 0 else cpu_ns)
    assert times.read() == ours.read() and tuple(ours.read()) == ("read", "decode", "augment")


def test_the_time_of_reading_that_fails_is_no_other_samples(folder, monkeypatch):
    """By a clock that only reading moves."""
    now_ns, read = [0], folder.read

    def reading(index):
        now_ns[0] += 1000 if index == 3 else 10
        if index == 3:
            raise LoaderError("sample 3 cannot be read")
        return read(index)

    monkeypatch.setattr(folder, "read", reading)
    monkeypatch.setattr(stored_rows.time, "perf_counter_ns", lambda: now_ns[0])
    rows = Plan(folder.widths, folder.heights, Sequential(8), View(CenterCrop(28, 32), 32)).rows(0, 0)
    table, _ = stored_rows.StoredRows(folder, StageTimes(1).writer(0)).table(rows, Part(0, 0, 8))
    assert table["read_wall_ns"].tolist() == [10, 10, 10, -1, 10, 10, 10, 10]


def test_a_kernel_of_another_layout_is_not_used(monkeypatch):
    kernel = library.load()
    if kernel is None:
        pytest.skip(library.why_not())
    assert self_check.difference(kernel) == ""
    monkeypatch.setattr(self_check, "ROW_CELLS", 2000)
    assert "layout" in self_check.difference(kernel)
    monkeypatch.undo()
    monkeypatch.setattr(StageTimes, "read", lambda times: {})
    assert "otherwise than Python reads" in self_check.difference(kernel)


# what is ready to be handed out


@every_loader
def test_what_is_ready_grows_to_what_may_be_made_ahead_and_is_none_where_nobody_can_tell(samples, case, open_one):
    loader = open_one(samples, case.name, case.resize, num_ahead=2)
    if case.name not in ("turbo", "torchvision", "ffcv"):
        assert num_ready(loader) is None
        return
    assert num_ready(loader) == 0
    batches = loader.epoch(0)
    for given in range(1, 5):
        next(batches)
        left_and_room = min(4 - given, 2)
        wait_until(lambda most=left_and_room: num_ready(loader) == most)
    assert list(batches) == []
    assert num_ready(loader) == 0
    early = loader.epoch(1)
    next(early)
    early.close()
    assert num_ready(loader) == 0


def test_a_batch_that_is_not_finished_is_not_ready(folder, times, open_one):
    times.delay("augment", Delay("sleep", 0.2))
    loader = open_one(folder, "turbo", "area", num_ahead=3, num_workers=1, stage_times=times)
    batches = loader.epoch(0)
    next(batches)
    assert num_ready(loader) < 3  # the next takes 1.6 s


def wait_until(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@every_loader
def test_too_few_rows_are_refused_before_anything_starts(samples, name, resize, open_one):
    with pytest.raises(FeedrateError, match="2 rows are too small for 2 workers"):
        open_one(samples, name, resize, stage_times=StageTimes(2))


def test_a_loader_of_your_own_need_not_count_what_is_ready():
    class Own:
        pass

    assert num_ready(Own()) is None


class OwnLoader(EpochLoader):
    """As docs/extending.md says."""

    name = "own"
    resize_modes = ("area",)

    def _batches(self, epoch, start):
        return to_device(self._host_batches(epoch, start), self._options.device, self._caller)

    def _host_batches(self, epoch, start):
        times = self._writer(0)
        decode = Decoder()
        for number in range(start, len(self)):
            rows = self._rows(epoch, number)
            images = torch.zeros(len(rows), rows.size_px, rows.size_px, 3, dtype=torch.uint8)
            render = Renderer(rows.size_px, rows.fill, "area")
            for row in range(rows.num_valid):
                pixels = load_rgb(self._records, int(rows.ids[row]), decode, times)
                with times.stage("augment"):
                    render(pixels, rows.rects[row].tolist(), bool(rows.flips[row]), images[row].numpy())
            yield self._batch(images, rows)


def test_a_loader_of_your_own_shows_what_it_notes(folder, times):
    plan = Plan(folder.widths, folder.heights, Shuffled(8), View(RandomResizedCrop(), 32))
    for options in (LoaderOptions(num_workers=1), LoaderOptions(num_workers=1, stage_times=times)):
        loader = OwnLoader(folder, plan, options)
        drained(loader)
        assert num_ready(loader) is None
    counts = {stage: figures.count for stage, figures in times.read().items()}
    assert counts == dict.fromkeys(["read", "decode", "augment", "collate"], NUM_IMAGES)
