"""The GPU in name: it lets pass what a GPU does, and refuses, or spoils, what goes wrong on one."""

import copy
import threading

import pytest
import torch
from devices import no_waiting
from nominal_cuda import GPU, UNWRITTEN, entered, nominal_cuda
from torch import nn

CUDA = torch.device("cuda")


@pytest.fixture
def mode():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU, and one in name stands for none")
    with nominal_cuda() as mode:
        yield mode


def small_net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 5))


def test_it_is_gone_after_its_block():
    before = torch.cuda.is_available(), torch.cuda.Stream, torch.autocast
    with nominal_cuda():
        assert torch.cuda.is_available() and entered()
        kept = torch.zeros(3, device=CUDA)
    assert (torch.cuda.is_available(), torch.cuda.Stream, torch.autocast) == before
    assert kept.device.type == "cpu" and entered() is None


def test_what_is_made_of_its_tensors_is_its_own_and_a_copy_on_the_host_is_not(mode):
    host = torch.arange(12.0).view(3, 4)
    moved = host.to(CUDA)
    assert moved.device == GPU and moved.is_cuda and not moved.is_cpu and moved.data_ptr() != host.data_ptr()
    assert {one.device for one in (moved + 1, moved[1:], moved.T, moved.sum(), torch.zeros_like(moved))} == {GPU}
    assert {one.device for one in (moved.cpu(), moved.to("cpu"), host + 1, moved.to(host))} == {torch.device("cpu")}
    assert host.to(moved).device == GPU and torch.equal(moved.cpu(), host)
    assert {parameter.device for parameter in copy.deepcopy(small_net().to(CUDA)).parameters()} == {GPU}


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW], ids=lambda kind: kind.__name__)
def test_it_trains_to_the_bits_of_the_cpu(mode, optimizer):
    found = []
    for device in ("cpu", CUDA):
        net = small_net().to(device, memory_format=torch.channels_last)
        chosen = optimizer(net.parameters(), lr=0.1, foreach=True)
        images, labels = torch.ones(4, 3, 8, 8, device=device), torch.arange(4, device=device)
        for _ in range(3):
            loss = nn.functional.cross_entropy(net(images), labels)
            loss.backward()
            assert {parameter.grad.device.type for parameter in net.parameters()} == {torch.device(device).type}
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            chosen.step()
            chosen.zero_grad()
        found.append([value.cpu() for value in (loss, *net.state_dict().values())])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize(
    "mix",
    [
        lambda moved, host: moved + host,
        lambda moved, host: host * moved,
        lambda moved, host: torch.stack([moved.sum(), host.sum()]),
        lambda moved, host: torch.where(moved > 0, moved, host),
        lambda moved, host: host[moved.long()],
        lambda moved, host: host.sum().add_(moved.sum()),  # a number may be read there, and not written
        lambda moved, host: torch.clamp(moved, host.sum(), host.sum()),
        lambda moved, host: small_net()(moved.view(1, 3, 8, 8)),
        lambda moved, host: small_net().to(CUDA)(host.view(1, 3, 8, 8)),
    ],
)
def test_tensors_of_both_devices_are_not_computed_with(mode, mix):
    host = torch.ones(192)
    with pytest.raises(RuntimeError, match="on the same device"):
        mix(host.to(CUDA), host)


@pytest.mark.parametrize(
    "look",
    [
        lambda moved, host: moved.sum().item(),
        lambda moved, host: float(moved.sum()),
        lambda moved, host: bool(moved.sum() > 0),
        lambda moved, host: moved.tolist(),
        lambda moved, host: moved.cpu(),
        lambda moved, host: host.copy_(moved),
        lambda moved, host: moved.copy_(host),
        lambda moved, host: host.to(CUDA),
        lambda moved, host: host.to(CUDA, non_blocking=True),  # of pageable memory
        lambda moved, host: torch.tensor([1.0], device=CUDA),
        lambda moved, host: moved[moved > 0],
        lambda moved, host: moved[host.long()],
        lambda moved, host: moved.nonzero(),
        lambda moved, host: moved.__setitem__(moved.long(), 2.0),
        lambda moved, host: moved[[0, 2]],
        lambda moved, host: f"{moved.sum():.1f}",
        lambda moved, host: torch.cuda.Stream().synchronize(),
        lambda moved, host: torch.equal(moved, moved),
    ],
)
def test_the_host_is_seen_to_wait(mode, look):
    host = torch.ones(6)
    moved = host.to(CUDA)
    mode.waited.clear()
    with pytest.raises(RuntimeError, match="synchronizing"), no_waiting(GPU):
        look(moved, host)
    assert len(mode.waited) == 1


def test_what_needs_no_waiting_is_let_pass(mode):
    host, moved = torch.ones(6).pin_memory(), torch.zeros(6, device=CUDA)
    with no_waiting(GPU):
        moved.copy_(host, non_blocking=True)
        moved[moved > 0] = 2.0
        moved[torch.arange(3, device=CUDA)] += 1
        result = torch.where(moved > 2, moved, 0.0) * torch.tensor(2.0)
        torch.cuda.Event().record()
    assert result.cpu().tolist() == [6.0] * 3 + [0.0] * 3 and host.is_pinned()


def test_numpy_sees_the_hosts_alone(mode):
    with pytest.raises(TypeError, match=r"Use Tensor.cpu\(\)"):
        torch.zeros(3, device=CUDA).numpy()


def sent_on(stream, slab: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event]:
    with torch.cuda.stream(stream):
        moved = slab.to(CUDA, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record(stream)
    moved.record_stream(torch.cuda.current_stream())
    return moved, copied


def test_a_copy_on_a_side_stream_is_there_for_who_waits_for_it(mode):
    slab = torch.full((4,), 7, dtype=torch.uint8).pin_memory()
    moved, copied = sent_on(torch.cuda.Stream(), slab)
    assert not copied.query()
    torch.cuda.current_stream().wait_event(copied)
    assert moved.tolist() == [7] * 4 and copied.query()


def test_who_does_not_wait_finds_memory_unwritten_or_what_was_written_since(mode):
    slab = torch.full((4,), 7, dtype=torch.uint8).pin_memory()
    moved, copied = sent_on(torch.cuda.Stream(), slab)
    assert moved.tolist() == [UNWRITTEN] * 4
    slab.fill_(9)
    copied.synchronize()
    assert moved.tolist() == [9] * 4


def test_memory_of_a_side_stream_is_not_read_by_another_that_was_not_told(mode):
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        made = torch.zeros(3, device=CUDA)
        made += 1
    torch.cuda.current_stream().wait_stream(side)
    with pytest.raises(AssertionError, match="record_stream"):
        made + 1
    made.record_stream(torch.cuda.current_stream())
    assert (made + 1).tolist() == [2.0] * 3


def test_delays_take_their_time_on_the_device_and_none_of_the_hosts(mode):
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begun.record()
    torch.cuda._sleep(1_000_000_000)
    ended.record()
    assert begun.query() and not ended.query()
    torch.cuda.synchronize()
    assert ended.query() and begun.elapsed_time(ended) >= 500


def test_threads_that_are_started_have_it_too(mode):
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.zeros(3, device=CUDA, pin_memory=False).device))
    thread.start()
    thread.join()
    assert found == [GPU]
