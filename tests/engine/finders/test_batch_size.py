"""The batch-size finder: its search against trying everything, and real trials in real processes."""

import dataclasses
import multiprocessing
import os
import signal
import sys

import pytest
import torch
import torch._dynamo
from commands import REPOSITORY, run, short_options
from short_runs import ONE_RANK, short_config

from engine.finders import batch_size
from engine.finders.batch_size import _measure_in_processes, _measure_on_device, find_batch_size, largest_fitting
from loaders.errors import FeedrateError
from tools.find_batch_size import _find

MIB = 2**20


@pytest.mark.parametrize("multiple", [1, 3, 8])
@pytest.mark.parametrize("most", [1, 8, 37, 64, 100])
def test_the_search_finds_what_trying_everything_finds_and_tries_few(multiple, most):
    for room in range(most + 3):
        tried = []

        def fits(number, room=room, tried=tried):
            tried.append(number)
            return number <= room

        best = max((n for n in range(0, most + 1, multiple) if n <= room), default=0)
        assert largest_fitting(fits, multiple, most) == best
        assert len(tried) == len(set(tried)) and all(0 < number <= most for number in tried)
        assert len(tried) <= 2 * (most // multiple + 1).bit_length()


def test_the_search_never_tries_more_than_twice_what_fits():
    tried = []
    assert largest_fitting(lambda number: tried.append(number) or number <= 5, 1, 10**6) == 5
    assert max(tried) <= 2 * 5


def test_the_largest_size_of_a_schedule_counts(image_folder, tmp_path, monkeypatch):
    asked = []

    def measure_nothing(config, num_classes, size_px, limit_bytes):
        asked.append(size_px)
        return lambda num_images: 1

    monkeypatch.setattr(batch_size, "_measure_in_processes", measure_nothing)
    config = short_config(image_folder, tmp_path)
    data = dataclasses.replace(config.data, size_schedule=((0, 12), (1, 48), (9, 96)))
    found = find_batch_size(dataclasses.replace(config, data=data), ONE_RANK, 2**50, 8, lambda text: None)
    assert found.size_px == 48  # it ends before epoch 9
    assert asked == [48]


def test_trials_are_measured_apart_and_ended_where_they_take_too_much(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path)
    unlimited = _measure_in_processes(config, 3, 32, limit_bytes=2**50)
    small, large = unlimited(8), unlimited(128)
    # cifar_resnet20 keeps at least an input and an output of its 19 convolutions: 120 more images, and what that takes
    assert large - small > 120 * 19 * 16 * 8 * 8 * 4
    assert _measure_in_processes(config, 3, 32, limit_bytes=(small + large) // 2)(128) is None
    assert multiprocessing.active_children() == []


def test_on_a_device_each_trial_is_compiled_however_many_sizes_are_tried(image_folder, tmp_path, monkeypatch):
    """As torch counts: a limit of sizes, beyond which it goes on uncompiled without a word."""
    compiled, compile_it = [], torch.compile

    def note(graph, inputs):
        compiled.extend(len(each) for each in inputs if isinstance(each, torch.Tensor) and each.shape[1:] == (3, 8, 8))
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda model, **asked: compile_it(model, **asked, backend=note))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 0)
    config = short_config(image_folder, tmp_path)
    config = dataclasses.replace(config, execution=dataclasses.replace(config.execution, compile=True))
    with torch._dynamo.config.patch(recompile_limit=1):  # the step raises it to 4; monkeypatch would take it away
        measure = _measure_on_device(config, ONE_RANK, 3, 8, None)
        assert [measure(num_images) for num_images in range(2, 8)] == [0] * 6
    assert compiled == [2, 3, 4, 5, 6, 7]


def test_on_a_cpu_the_limit_must_be_given(image_folder, tmp_path):
    with pytest.raises(FeedrateError, match="--memory-bytes must say how much there is"):
        find_batch_size(short_config(image_folder, tmp_path), ONE_RANK, None, 8, print)


def test_where_there_are_no_data_the_command_that_packs_them_is_named(tmp_path):
    missing = tmp_path / "imagenet-500"
    with pytest.raises(FeedrateError, match="does not exist: pack it by 'python tools/convert.py imagenet"):
        find_batch_size(short_config(missing, tmp_path), ONE_RANK, 2**40, 8, lambda text: None)


def test_a_trial_tells_what_is_wrong_with_the_settings(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, name="resnet19"))
    with pytest.raises(FeedrateError, match="unknown model 'resnet19'"):
        find_batch_size(config, ONE_RANK, 2**40, 8, print)


def ends(config, num_classes, num_images, size_px, sending):
    """Stands for a trial: ends its process by the signal of that number."""
    os.kill(os.getpid(), num_images)


def leaves(config, num_classes, num_images, size_px, sending):
    """Stands for a trial: ends its process with the status of that number."""
    sys.exit(num_images)


def test_only_a_trial_that_the_system_killed_does_not_fit(image_folder, tmp_path, monkeypatch):
    measure = _measure_in_processes(short_config(image_folder, tmp_path), 3, 32, limit_bytes=2**50)
    monkeypatch.setattr(batch_size, "_try_in_process", ends)
    assert measure(signal.SIGKILL.value) is None
    with pytest.raises(FeedrateError, match="a trial ended with SIGSEGV, which is not for lack of memory"):
        measure(signal.SIGSEGV.value)
    monkeypatch.setattr(batch_size, "_try_in_process", leaves)
    with pytest.raises(FeedrateError, match="a trial ended with exit status 3"):
        measure(3)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            RuntimeError("sizes differ"),
            "8 images of 32 px fails, and not for lack of memory (RuntimeError: sizes differ)",
        ),
        (MemoryError(), None),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), None),
    ],
)
def test_a_step_that_fails_is_not_one_that_does_not_fit(image_folder, tmp_path, monkeypatch, capsys, error, told):
    def fail(*arguments, **named):
        raise error

    monkeypatch.setattr(batch_size, "build_step", fail)
    receiving, sending = multiprocessing.Pipe(duplex=False)
    batch_size._try_in_process(short_config(image_folder, tmp_path), 3, 8, 32, sending)
    sent = receiving.recv()
    assert sent is None if told is None else told in sent
    assert ("Traceback" in capsys.readouterr().err) == (told is not None)


def test_more_images_than_there_are_is_said_and_not_tried(image_folder, tmp_path):
    with pytest.raises(FeedrateError, match="'train' has 37 images, fewer than --multiple 38: give 37 or less"):
        find_batch_size(short_config(image_folder, tmp_path), ONE_RANK, 2**40, 38, print)


def test_the_command_prints_each_trial_and_the_option_to_use(image_folder, tmp_path):
    options = short_options(image_folder, tmp_path, **{"data.size-px": 64})
    tool = [sys.executable, str(REPOSITORY / "tools" / "find_batch_size.py"), "--multiple", "18", *options]
    result = run([*tool, "--memory-bytes", str(2**40)])
    assert result.returncode == 0, result.stderr
    assert [line.split(":")[0] for line in result.stdout.splitlines()[:2]] == [
        "18 images of 64 px",
        "36 images of 64 px",  # there are 37 to train on
    ]
    assert "36 images of 64 px a rank fit, at " in result.stdout and "--data.batch-size 36 " in result.stdout
    result = run([*tool, "--memory-bytes", str(50 * MIB)])
    assert result.returncode == 2 and result.stderr == (
        "error: not even 18 images of 64 px fit: try a smaller --multiple, smaller images (--data.size-px), another"
        " model, or --execution.checkpoint-activations\n"
    )


@pytest.mark.parametrize("option", ["--multiple", "--memory-bytes"])
def test_nothing_is_tried_with_less_than_one(option):
    with pytest.raises(FeedrateError, match=f"^{option} is 0: it must be 1 or more$"):
        _find([option, "0"])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_its_own_memory_is_the_limit(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path)
    ranks = dataclasses.replace(ONE_RANK, device=torch.device("cuda", 0))
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 256 * MIB / total))
    data = dataclasses.replace(config.data, size_px=256)
    try:
        found = find_batch_size(dataclasses.replace(config, data=data), ranks, None, 1, print)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert 0 < found.num_images < 37 and found.peak_bytes <= 256 * MIB
