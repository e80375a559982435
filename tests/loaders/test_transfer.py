"""Host to device: nothing copied on the CPU, nothing overwritten or mixed up on CUDA."""

import itertools
from contextlib import nullcontext
from dataclasses import dataclass, replace

import pytest
import torch
from devices import keep_busy, no_waiting, on_each_gpu

from loaders import transfer
from loaders.api import Batch, Substitution
from loaders.errors import LoaderError
from loaders.stage_times import Delay, StageTimes
from loaders.stage_writer import UNTIMED
from loaders.transfer import _copied, send, to_device


class Source:
    """Batches in one slab that is overwritten when the next is asked for, as the contract allows."""

    def __init__(self, num_batches: int, pinned: bool) -> None:
        self.slab = torch.zeros(64, 128, 128, 3, dtype=torch.uint8, pin_memory=pinned)
        self.num_batches = num_batches
        self.closed = False

    def batches(self):
        try:
            for number in range(self.num_batches):
                self.slab.fill_(number)
                ids = torch.arange(64) + number
                yield Batch(self.slab.permute(0, 3, 1, 2), ids % 7, ids, 64)
        finally:
            self.closed = True


def test_on_the_cpu_batches_are_handed_through():
    source = Source(3, pinned=False)
    batches = to_device(source.batches(), torch.device("cpu"))
    assert next(batches).images.data_ptr() == source.slab.data_ptr()
    batches.close()
    assert source.closed


def test_on_the_cpu_there_is_no_stage_pin_and_no_stage_copy():
    times = StageTimes(1)
    for _ in to_device(Source(3, pinned=False).batches(), torch.device("cpu"), times.writer(0)):
        pass
    assert times.read() == {}


def test_a_plain_copy_to_a_device_is_timed_and_delayed():
    times = StageTimes(1, {"copy": Delay("sleep", 0.002)})
    for batch in to_device(Source(3, pinned=False).batches(), torch.device("meta"), times.writer(0)):
        assert batch.images.device.type == "meta"
    reading = times.read()
    assert list(reading) == ["copy"] and reading["copy"].count == 3 * 64
    assert reading["copy"].wall_s >= 3 * 64 * 0.002 > reading["copy"].cpu_s


@dataclass(frozen=True, kw_only=True)
class Noted(Batch):
    """A batch with something more."""

    note: str


def noted(num_batches: int, pinned: bool):
    """Batches of pixels alone, of another number each time, as parts of one slab; with notes and substitutions."""
    slab = torch.zeros(4096, 3, dtype=torch.uint8, pin_memory=pinned)
    for number in range(num_batches):
        pixels = slab[: 1000 + 100 * number]
        pixels.fill_(number)
        ids = torch.arange(8)
        yield Noted(pixels, ids, ids, 8, (Substitution(number, 1, "gone"),), note=f"number {number}")


def assert_whole(batches: list[Noted]) -> None:
    for number, batch in enumerate(batches):
        assert batch.images.shape == (1000 + 100 * number, 3) and bool((batch.images == number).all())
        assert type(batch) is Noted and batch.note == f"number {number}"
        assert batch.substitutions == (Substitution(number, 1, "gone"),)


def test_what_else_a_batch_carries_stays_with_it():
    copied = _copied(
        noted(3, pinned=False), torch.device("cpu"), UNTIMED
    )  # a plain copy, as for devices without streams
    assert_whole([replace(batch, images=batch.images.clone()) for batch in copied])


class Pageable:
    """Stands for a tensor that is asked to go to a GPU, and notes how."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def pin_memory(self) -> "Pageable":
        self.asked.append("pinned")
        return self

    def to(self, device: torch.device, **how: object) -> "Pageable":
        self.asked.append((device.type, how))
        return self


def test_what_is_sent_to_cuda_is_pinned_before_and_not_waited_for_and_elsewhere_just_moved():
    host = Pageable()
    send(host, torch.device("cuda", 0))
    assert host.asked == ["pinned", ("cuda", {"non_blocking": True})]
    numbers = torch.arange(3)
    assert send(numbers, torch.device("cpu")) is numbers
    assert send(numbers, torch.device("meta")).device.type == "meta"


class AtOnce:
    """Stands for a stream, or an event, of a GPU that does everything at once."""

    device = torch.device("cpu")

    def __init__(self, enable_timing: bool = False) -> None: ...
    def record(self, stream: "AtOnce") -> None: ...
    def query(self) -> bool:
        return True

    def elapsed_time(self, other: "AtOnce") -> float:
        return 2.0

    def wait_event(self, event: "AtOnce") -> None: ...
    def synchronize(self) -> None: ...


@pytest.fixture
def streams_made(monkeypatch):
    """What each stream is made for, on a CPU that stands for GPUs of which number 1 is the current one."""
    made, empty_like = [], torch.empty_like
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made.append(device) or AtOnce())
    monkeypatch.setattr(torch.cuda, "Event", AtOnce)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: AtOnce())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    monkeypatch.setattr(torch, "empty_like", lambda like, pin_memory: empty_like(like))
    transfer._stream_of.cache_clear()
    yield made
    transfer._stream_of.cache_clear()


def test_all_epochs_of_all_loaders_copy_on_one_stream_a_device(streams_made):
    for name in ("cuda", "cuda:1", "cuda:0", "cuda", "cuda:0"):
        batches = [to_device(Source(3, pinned=False).batches(), torch.device(name)) for _ in range(2)]
        for number, pair in enumerate(zip(*batches, strict=True)):
            assert all(batch.ids[0] == number for batch in pair)
    assert streams_made == [1, 0]


@pytest.mark.parametrize("num_batches", [1, 2, 3])
def test_each_copy_is_timed_also_that_of_a_single_batch(streams_made, num_batches):
    times = StageTimes(1)
    batches = to_device(Source(3, pinned=False).batches(), torch.device("cuda"), times.writer(0))
    taken = list(itertools.islice(batches, num_batches))
    batches.close()
    copied = min(3, num_batches + (num_batches > 1))  # the next is under way, but behind the first
    assert len(taken) == num_batches
    assert {stage: found.count for stage, found in times.read().items()} == {"pin": 64 * copied, "copy": 64 * copied}


def numbered(asked, fails_at=None):
    """Four batches in one slab; `asked` grows with each that is made. In place of one comes LoaderError."""
    source = Source(4, pinned=False)
    for number, batch in enumerate(source.batches()):
        asked.append(number)
        if number == fails_at:
            raise LoaderError(f"batch {number} is none")
        yield batch


def test_the_first_batch_does_not_wait_for_the_second_and_each_later_one_is_copied_ahead(streams_made):
    asked, found = [], []
    for batch in to_device(numbered(asked), torch.device("cuda")):
        found.append((int(batch.ids[0]), asked[-1]))
    assert found == [(0, 0), (1, 2), (2, 3), (3, 3)]


@pytest.mark.parametrize("fails_at", [0, 1, 2, 3])
def test_an_error_comes_after_the_batch_before_it(streams_made, fails_at):
    found = []
    with pytest.raises(LoaderError, match=f"batch {fails_at} is none"):
        for batch in to_device(numbered([], fails_at), torch.device("cuda")):
            found.append(int(batch.ids[0]))
    assert found == list(range(fails_at))


@on_each_gpu
def test_on_cuda_sending_does_not_wait_and_what_is_sent_may_change_at_once(device):
    host = torch.zeros(100_000, dtype=torch.int64)
    sent = []
    for number in range(20):
        keep_busy(device)
        host.fill_(number)
        with no_waiting(device):
            sent.append(send(host, device))
    assert all(bool((one == number).all()) for number, one in enumerate(sent))


@on_each_gpu
def test_on_cuda_epochs_leave_no_memory_behind_on_streams_of_their_own(device):
    reserved_bytes = []
    for _ in range(12):
        for batch in to_device(Source(6, pinned=True).batches(), device):
            batch.images.float().mean()
        del batch
        torch.cuda.synchronize(device)
        reserved_bytes.append(torch.cuda.memory_reserved(device))
    assert reserved_bytes[-1] - reserved_bytes[2] < 20 << 20


@on_each_gpu
@pytest.mark.parametrize("pinned", [True, False])
def test_on_cuda_batches_of_any_length_arrive_whole_with_what_else_they_carry(pinned, device):
    batches = list(to_device(noted(20, pinned), device))
    assert all(batch.images.device.type == "cuda" for batch in batches)
    assert_whole(batches)


@on_each_gpu
@pytest.mark.parametrize("pinned", [True, False])
def test_on_cuda_batches_are_whole_though_their_slab_is_overwritten_and_the_device_is_busy(pinned, device):
    source = Source(20, pinned)
    sums = []
    for number, batch in enumerate(to_device(source.batches(), device)):
        assert batch.images.device.type == batch.labels.device.type == "cuda" and batch.ids.device.type == "cpu"
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        assert batch.ids.tolist() == [n + number for n in range(64)]
        keep_busy(device)
        sums.append(batch.images.float().mean())  # read long after the next copy was started
    assert [round(value.item()) for value in sums] == list(range(20))
    assert source.closed


@on_each_gpu
def test_on_cuda_an_error_comes_after_the_batches_before_it(device):
    def failing():
        yield from Source(3, pinned=True).batches()
        raise LoaderError("sample 7")

    batches = to_device(failing(), device)
    assert [next(batches).ids[0].item() for _ in range(3)] == [0, 1, 2]
    with pytest.raises(LoaderError, match="sample 7"):
        next(batches)


@on_each_gpu
def test_on_cuda_leaving_early_closes_the_source(device):
    source = Source(20, pinned=True)
    batches = to_device(source.batches(), device)
    next(batches)
    batches.close()
    assert source.closed


@on_each_gpu
@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("stage", ["pin", "copy"])
def test_on_cuda_pinning_and_copying_are_told_apart(pinned, stage, device):
    times = StageTimes(1, {stage: Delay("sleep", 0.001)})
    for _ in to_device(Source(20, pinned).batches(), device, times.writer(0)):
        pass
    reading = times.read()
    assert list(reading) == (["copy"] if pinned else ["pin", "copy"])
    assert all(figures.count == 20 * 64 for figures in reading.values())
    for name, figures in reading.items():
        assert (figures.quantile_s(0) >= 0.0008) == (name == stage)
        assert figures.cpu_s < 20 * 64 * 0.001
