"""Training runs on a GPU: bit-exact resume with each loader, losses of the CPU, precisions, and no hidden waiting."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest
import resume_program
import torch
from commands import REPOSITORY, run, short_options
from devices import CPU, CUDA, no_waiting, on_a_gpu, on_each_device, on_each_gpu
from short_runs import ranks_on, short_config

from engine.augment.augment_config import AugmentConfig
from engine.build import build_run
from engine.config import Config, ExecutionConfig, OptimConfig
from engine.loop import train
from engine.optimisation.average import AverageConfig
from engine.reporting.display import Display
from engine.safeguards.interrupt import StopRequest
from loaders.choose import LOADER_NAMES, choose_loader
from loaders.errors import FeedrateError

# as in the resume matrix; a signal in evaluation is its own matter: on a GPU it is looked for every two seconds
CUTS = {"twice in one epoch": [[7, 9]], "epoch boundary": [[6]], "another number of workers": [[4]]}
EVERYTHING = {
    "optim": OptimConfig(
        learning_rate=0.05,
        clip_norm=1.0,
        label_smoothing=0.1,
        accumulate=2,
        lookahead_every_updates=2,
        rate_factors=(("*.bias", 3.0),),
        frozen_epochs=(("*.bias", 1, 2),),
    ),
    "average": AverageConfig(ema_decay=0.9),
    "augment": AugmentConfig(mixup_alpha=0.2, erase_probability=0.5, brightness=0.2, shift_px=1),
}


@pytest.fixture(params=LOADER_NAMES)
def loader(request) -> str:
    try:
        choose_loader(request.param)
    except FeedrateError as error:
        pytest.skip(str(error))
    return request.param


@pytest.fixture(autouse=True)
def _threads_stay():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def config_on(device: torch.device, images: Path, folder: Path, loader: str = "turbo", **execution) -> Config:
    """Two epochs of five batches; every step's loss is logged."""
    config = short_config(images, folder / f"{device.type}-{loader}", loader)
    return dataclasses.replace(
        config,
        execution=ExecutionConfig(device=device.type, threads=1, **execution),
        run=dataclasses.replace(config.run, log_every_steps=1, checkpoint_every_steps=0, checkpoint_every_epochs=0),
    )


def packed_for(loader: str, images: Path, folder: Path) -> Path:
    """What the loader reads: ffcv no folders."""
    if loader != "ffcv":
        return images
    convert = [sys.executable, str(REPOSITORY / "tools" / "convert.py"), "folder", "--source", str(images)]
    packed = run([*convert, "--out", str(folder / "packed"), "--to", "beton", "--workers", "1"])
    assert packed.returncode == 0, packed.stderr
    return folder / "packed"


def losses(config: Config, device: torch.device) -> list[float]:
    """Of every step of a run."""
    stop = StopRequest()
    try:
        with build_run(config, ranks_on(device), Display(is_main=False), stop) as built:
            assert train(built)
    finally:
        stop.restore()
    metrics = Path(config.run.folder) / config.name / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "step"]


@pytest.mark.parametrize(
    ("device", "loader"),
    [(CPU, "turbo"), *(pytest.param(CUDA, name, marks=on_a_gpu) for name in LOADER_NAMES)],
    indirect=["loader"],
    ids=lambda value: getattr(value, "type", value),
)
def test_a_run_cut_back_and_resumed_ends_with_the_same_bits(device, loader, image_folder, tmp_path):
    images = packed_for(loader, image_folder, tmp_path)
    chosen = {"loader": loader, "execution.device": device.type}
    options = [*short_options(images, tmp_path / "runs", **chosen), "--execution.deterministic"]
    situations = CUTS if device.type == "cuda" else {"twice in one epoch": CUTS["twice in one epoch"]}
    wanted = json.dumps({"options": options, "situations": situations})
    ended = run([sys.executable, resume_program.__file__, wanted])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    same = json.loads(ended.stdout.strip().splitlines()[-1])["same"]
    assert same == {name: [True] * len(cuts) for name, cuts in situations.items()}


@on_each_device
def test_losses_of_some_steps_are_those_of_the_cpu(device, loader, image_folder, tmp_path):
    images = packed_for(loader, image_folder, tmp_path)
    expected = losses(config_on(CPU, images, tmp_path / "expected", loader), CPU)
    found = losses(config_on(device, images, tmp_path / "found", loader), device)
    assert len(found) == len(expected) == 10 and len(set(expected)) == 10
    if device.type == "cpu":
        assert found == expected
    else:
        # sums are rounded in another order, and dali's pixels are off by a few levels; training lets both grow
        first, all_steps = (5e-2, 0.3) if loader == "dali" else (1e-3, 0.1)
        assert found[0] == pytest.approx(expected[0], rel=first)
        assert found == pytest.approx(expected, rel=all_steps)


@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
@on_each_device
def test_lower_precisions_train_as_float32_does(device, precision, image_folder, tmp_path):
    exact = losses(config_on(device, image_folder, tmp_path / "fp32"), device)
    found = losses(config_on(device, image_folder, tmp_path / precision, precision=precision), device)
    assert len(found) == len(exact) == 10
    assert found[0] == pytest.approx(exact[0], rel=2e-2)
    assert found == pytest.approx(exact, rel=0.3)
    if precision != "tf32":  # on a CPU it is float32
        assert found != exact


@pytest.mark.parametrize("settings", [{}, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@on_each_device
def test_nothing_within_the_loop_between_two_logs_makes_the_host_wait(
    device, precision, settings, image_folder, tmp_path
):
    config = config_on(device, image_folder, tmp_path, precision=precision)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, batch_size=4), **settings)
    stop, guarded = StopRequest(), 0
    try:
        with build_run(config, ranks_on(device), Display(is_main=False), stop) as built:
            for step, batch in enumerate(built.data.train.epoch(0)):
                # the first window allocates the optimizer's state, and kernels are loaded
                if step < 4:
                    one_step(built, batch, step)
                    continue
                with no_waiting(device):
                    one_step(built, batch, step)
                guarded += 1
    finally:
        stop.restore()
    assert guarded == 5
    assert built.progress.batch == 9


def one_step(built, batch, step: int) -> None:
    """What engine/loop.py does with a batch, from its arrival to where it would log."""
    loss, num_correct = built.step(batch.images, batch.labels, batch.ids, step)
    built.watch.note(step, batch.ids, loss)
    built.averages.after_step(step)
    built.progress.record(batch.ids, loss, num_correct, batch.substitutions)


@on_each_gpu
def test_waiting_would_be_seen(device):
    with pytest.raises(RuntimeError), no_waiting(device):
        torch.ones(1, device=device).item()
