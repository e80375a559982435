"""Augmentation within the step: against plain float32 arithmetic, resumed, on other ranks, and without waiting."""

import dataclasses
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from commands import TRAIN, run, short_options, torchrun
from devices import CPU, no_waiting, on_each_gpu
from short_runs import ONE_RANK, outcome, resumed_after, run_to_end, short_config
from torch import nn

from engine.augment import Normalize, batch_transform
from engine.augment.augment_config import AugmentConfig
from engine.augment.batch_transform import UNCHANGED, build_augmentation
from engine.augment.draws import draws_of
from engine.augment.erasing import Erasing
from engine.augment.mixing import Mixing, partners
from engine.config import Config, OptimConfig
from engine.optimisation.optim import build_optimizer
from engine.step import TrainStep
from loaders.errors import FeedrateError
from loaders.records import ChannelStatistics

CHANNELS = ChannelStatistics((120.0, 110.0, 100.0), (60.0, 50.0, 40.0), "this test")
EVERYTHING = AugmentConfig(
    policy="rand",
    brightness=0.4,
    contrast=0.4,
    saturation=0.4,
    hue=0.1,
    jitter_probability=0.8,
    shift_px=2,
    erase_probability=0.5,
    erase_fill="colour",
    mixup_alpha=0.2,
    cutmix_alpha=1.0,
    mix_each="sample",
)


def _batch(num=8, side=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (num, side, side, 3), dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)
    return images, torch.randint(0, 5, (num,), generator=generator), torch.arange(40 * seed, 40 * seed + num)


def _model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 5))


@pytest.mark.parametrize("transform", [UNCHANGED, build_augmentation(AugmentConfig(), 0, 5)])
def test_where_nothing_is_augmented_a_batch_is_handed_on_and_nothing_drawn(transform, monkeypatch):
    def draws_nothing(*_):
        raise AssertionError("something was drawn")

    monkeypatch.setattr(batch_transform, "draws_of", draws_nothing)
    images, labels, ids = _batch()
    assert transform.before_normalising(images, ids, 3) is images
    handed_on = transform.after_normalising(images, labels, ids, 3)
    assert handed_on[0] is images and handed_on[1] is labels
    erasing = build_augmentation(AugmentConfig(erase_probability=0.5), 0, 5)
    assert erasing.before_normalising(images, ids, 3) is images  # nor in the one moment that has no stage
    with pytest.raises(AssertionError, match="something was drawn"):
        erasing.after_normalising(images.float(), labels, ids, 3)


def test_steps_with_erasing_and_mixing_are_the_plain_arithmetic():
    augment = AugmentConfig(erase_probability=0.6, mixup_alpha=0.4, cutmix_alpha=1.0, mix_each="sample")
    optim = OptimConfig(learning_rate=0.1, momentum=0.0, weight_decay=0.0, label_smoothing=0.1)
    config, model, plain = Config(seed=9, optim=optim, augment=augment), _model(), _model()
    step = TrainStep(
        model,
        build_optimizer(optim, model),
        lambda step: 0.1,
        Normalize(CHANNELS, torch.device("cpu"), False),
        config,
        ONE_RANK,
        batch_transform=build_augmentation(augment, 9, 5),
    )
    mean, std = torch.tensor(CHANNELS.mean).view(3, 1, 1), torch.tensor(CHANNELS.std).view(3, 1, 1)
    for number in range(3):
        images, labels, ids = _batch(seed=number)
        loss, num_correct = step(images, labels, ids, number)
        draws = draws_of(9, number, ids.numpy())
        erased = [(image.float() - mean) / std for image in images]
        for image, (top, left, bottom, right) in zip(erased, Erasing(augment).boxes(draws, 12, 12), strict=True):
            image[:, top:bottom, left:right] = 0
        own, boxes, kept = Mixing(augment, 5).shares(draws, 12, 12)
        inputs, targets = [], torch.zeros(8, 5)
        for i, j in enumerate(partners(draws)):
            mixed = float(own[i]) * erased[i] + (1 - float(own[i])) * erased[j]
            top, left, bottom, right = boxes[i]
            mixed[:, top:bottom, left:right] = erased[j][:, top:bottom, left:right]
            inputs.append(mixed)
            targets[i, labels[i]] += kept[i]
            targets[i, labels[j]] += 1 - kept[i]
        logits = plain(torch.stack(inputs))
        smoothed = 0.9 * targets + 0.1 / 5
        expected = -(smoothed * torch.log_softmax(logits, dim=1)).sum(dim=1).mean()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
        assert num_correct == (logits.argmax(dim=1) == labels).sum(), "right is who answers the image's own label"
        gradients = torch.autograd.grad(expected, list(plain.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(plain.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_with_everything_off_a_batch_stays_the_very_same():
    images, labels, ids = _batch()
    transform = build_augmentation(AugmentConfig(), 0, 5)
    assert transform.before_normalising(images, ids, 0) is images
    out = transform.after_normalising(images, labels, ids, 0)
    assert out[0] is images and out[1] is labels


def test_everything_on_is_a_pure_function_of_seed_step_and_ids_and_leaves_the_batch_alone():
    images, labels, ids = _batch(side=32)
    before = images.clone()

    def result(seed=1, step=5, ids=ids):
        transform = build_augmentation(EVERYTHING, seed, 5)
        normalised = transform.before_normalising(images, ids, step).float() / 255
        return transform.after_normalising(normalised, labels, ids, step)

    first, again = result(), result()
    assert torch.equal(images, before)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    for other in (result(seed=2), result(step=6), result(ids=ids + 1)):
        assert not torch.equal(first[0], other[0])
    torch.testing.assert_close(first[1].sum(1), torch.ones(8))


def test_pixels_and_erasing_are_the_same_on_any_number_of_ranks():
    images, _, ids = _batch(12, side=32)
    transform = build_augmentation(dataclasses.replace(EVERYTHING, mixup_alpha=0, cutmix_alpha=0), 1, 5)

    def result(rows):
        pixels = transform.before_normalising(images[rows], ids[rows], 3)
        return transform.after_normalising(pixels.float(), ids[rows] % 5, ids[rows], 3)[0]

    whole = result(slice(None))
    for world_size in (2, 3, 4):
        size = 12 // world_size
        parts = torch.cat([result(slice(rank * size, (rank + 1) * size)) for rank in range(world_size)])
        # the draws are the same; a mean over an image may be summed in another order
        assert (parts - whole).abs().max() <= 1 and (parts != whole).float().mean() < 0.01


def _config(images, folder):
    return dataclasses.replace(short_config(images, folder, "synthetic"), augment=EVERYTHING)


def test_an_augmented_run_resumes_to_the_bit(image_folder, tmp_path):
    config = _config(image_folder, tmp_path / "whole")
    expected = run_to_end(config)
    plain = run_to_end(dataclasses.replace(config, name="plain", augment=AugmentConfig()))
    assert plain["state_sha256"] != expected["state_sha256"]
    for step in (3, 5, 8):
        assert resumed_after(config, step) == expected, f"resumed after step {step}"


@pytest.mark.parametrize(
    "change", [{"mixup_alpha": 0.3}, {"policy": "trivial"}, {"erase_area": (0.1, 0.2)}, {"mix_each": "batch"}]
)
def test_a_checkpoint_of_another_augmentation_is_refused_by_name(image_folder, tmp_path, change):
    config = dataclasses.replace(_config(image_folder, tmp_path), epochs=1)
    run_to_end(config)
    [name] = change
    with pytest.raises(FeedrateError, match=f"config.augment.{name}"):
        run_to_end(dataclasses.replace(config, augment=dataclasses.replace(EVERYTHING, **change)))


def test_two_ranks_train_with_everything_on(image_folder, tmp_path):
    options = {
        "augment.policy": "trivial",
        "augment.hue": 0.2,
        "augment.erase-probability": 0.5,
        "augment.cutmix-alpha": 1.0,
        "data.eval-flip": True,
        "epochs": 1,
    }
    words = [word for word in short_options(image_folder, tmp_path, **options) if word != "True"]
    done = run(torchrun(2, TRAIN, *words))
    assert done.returncode == 0, done.stderr
    assert np.isfinite(outcome(tmp_path / "ddp")["metrics"][-1]["train_loss"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"policy_operations": 0}, "policy_operations is 0: it must be 1 or more"),
        ({"policy_magnitude": 31}, "policy_magnitude is 31: it must lie between 0 and 30"),
        ({"hue": 0.6}, "hue is 0.6: it must lie between 0 and 0.5"),
        ({"brightness": -1.0}, "brightness is -1.0: it must be 0 or more"),
        ({"mixup_alpha": float("nan")}, "mixup_alpha is nan: it must be 0 or more"),
        ({"mix_probability": 1.5}, "mix_probability is 1.5: it must lie between 0 and 1"),
        ({"erase_area": (0.5, 0.2)}, "the smaller first, 1 at most"),
        ({"erase_area": (0.5, 1.2)}, "the smaller first, 1 at most"),
        ({"erase_ratio": (0.0, 2.0)}, "two numbers above 0"),
    ],
)
def test_a_bad_setting_is_refused_by_one_sentence(setting, message):
    with pytest.raises(FeedrateError) as refusal:
        AugmentConfig(**setting)
    assert message in str(refusal.value)


@on_each_gpu
@pytest.mark.parametrize("policy", ["rand", "trivial"])
def test_on_cuda_the_host_never_waits_and_the_images_are_the_cpus(policy, device):
    images, labels, ids = _batch(32, side=48)
    config = dataclasses.replace(EVERYTHING, policy=policy)
    results = []
    for place in (CPU, device):
        transform = build_augmentation(config, 1, 5)
        for step in (0, 1):  # the first call loads kernels
            moved, targets = images.to(place), labels.to(place)
            with no_waiting(place) if step else nullcontext():
                pixels = transform.before_normalising(moved, ids, step)
                mixed, shares = transform.after_normalising(pixels.float(), targets, ids, step)
        results.append((mixed.cpu(), shares.cpu()))
    (mixed, shares), (on_cuda, shares_on_cuda) = results
    torch.testing.assert_close(shares, shares_on_cuda)
    assert ((mixed - on_cuda).abs() > 2).float().mean() < 0.01
