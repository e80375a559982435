"""Mixup and CutMix against their definitions, image by image, and what their draws depend on."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch.nn import functional

from engine.augment.augment_config import AugmentConfig
from engine.augment.draws import draws_of
from engine.augment.erasing import Erasing
from engine.augment.mixing import Mixing, partners

CLASSES = 5
BOTH = AugmentConfig(mixup_alpha=0.4, cutmix_alpha=1.0, mix_each="sample", mix_probability=0.8)


def _batch(num=16, height=12, width=20):
    generator = torch.Generator().manual_seed(num)
    images = torch.randn(num, 3, height, width, generator=generator)
    return images, torch.randint(0, CLASSES, (num,), generator=generator)


def _draws(ids, step=7, seed=3):
    return draws_of(seed, step, np.asarray(ids, dtype=np.int64))


@pytest.mark.parametrize("each", ["batch", "sample"])
@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_images_and_targets_are_the_definition_applied_row_by_row(each, mixup, cutmix):
    config = AugmentConfig(mixup_alpha=mixup, cutmix_alpha=cutmix, mix_each=each, mix_probability=0.9)
    mixing, (images, labels) = Mixing(config, CLASSES), _batch()
    kinds = set()
    for step in range(12):
        draws = _draws(range(100, 116), step)
        own, boxes, kept = mixing.shares(draws, 12, 20)
        partner = partners(draws)
        mixed, targets = mixing(images, labels, draws)
        for i in range(16):
            j = partner[i]
            top, left, bottom, right = boxes[i]
            expected = np.float32(own[i]) * images[i] + np.float32(1 - own[i]) * images[j]
            expected[:, top:bottom, left:right] = images[j, :, top:bottom, left:right]
            torch.testing.assert_close(mixed[i], expected, rtol=1e-6, atol=1e-6)
            area = (bottom - top) * (right - left)
            assert kept[i] == (own[i] if area == 0 else 1 - area / 240)
            assert area == 0 or own[i] == 1, "one kind a row"
            target = np.zeros(CLASSES)
            target[labels[i]] += kept[i]
            target[labels[j]] += 1 - kept[i]
            np.testing.assert_allclose(targets[i].numpy(), target, atol=1e-6)
            kinds.add("cutmix" if area else "mixup" if own[i] < 1 else "none")
    assert kinds == {"none", *(["mixup"] if mixup else []), *(["cutmix"] if cutmix else [])}


def test_the_loss_of_mixed_targets_is_the_mixed_loss_of_both_labels_with_smoothing():
    config = AugmentConfig(mixup_alpha=1.0, mix_each="sample")
    mixing, (images, labels) = Mixing(config, CLASSES), _batch()
    draws = _draws(range(16))
    _, targets = mixing(images, labels, draws)
    logits = torch.randn(16, CLASSES, generator=torch.Generator().manual_seed(1))
    own = torch.from_numpy(mixing.shares(draws, 12, 20)[2])

    def smoothed(of_labels):
        log_probabilities = logits.double() - logits.double().exp().sum(1, keepdim=True).log()
        return -0.9 * log_probabilities[torch.arange(16), of_labels] - 0.1 * log_probabilities.mean(1)

    plain = (own * smoothed(labels) + (1 - own) * smoothed(labels[partners(draws)])).mean()
    loss = functional.cross_entropy(logits, targets, label_smoothing=0.1)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0])
def test_shares_are_spread_as_beta_and_the_box_has_the_area_they_say(alpha):
    draws = _draws(range(20_000))
    own, _, _ = Mixing(AugmentConfig(mixup_alpha=alpha, mix_each="sample"), CLASSES).shares(draws, 64, 64)
    assert stats.kstest(own, stats.beta(alpha, alpha).cdf).pvalue > 0.001
    _, boxes, kept = Mixing(AugmentConfig(cutmix_alpha=alpha, mix_each="sample"), CLASSES).shares(draws, 640, 640)
    tall, wide = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    whole = (boxes[:, 0] > 0) & (boxes[:, 1] > 0) & (boxes[:, 2] < 640) & (boxes[:, 3] < 640)
    assert (tall[whole] == wide[whole]).all(), "the image's shape"
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= 640).all()
    # before it is cut at the border, a box has 1 - Beta of the area: those around the middle are never cut
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    middle = whole & (np.abs(centre - 320).max(axis=1) < 20)
    small = kept[middle] > 0.2  # any such box fits
    assert stats.kstest(kept[middle][small], lambda x: _truncated(x, alpha)).pvalue > 0.001


def _truncated(x, alpha):
    """Distribution of Beta(alpha, alpha) given that it is above 0.2."""
    beta = stats.beta(alpha, alpha)
    return (beta.cdf(x) - beta.cdf(0.2)) / beta.sf(0.2)


def test_partners_are_a_permutation_without_fixed_points_drawn_for_the_step():
    seen = set()
    for step in range(20):
        partner = partners(_draws(range(50, 61), step))
        assert sorted(partner) == list(range(11)) and all(partner[i] != i for i in range(11))
        seen.add(tuple(partner))
    assert len(seen) == 20
    assert partners(_draws([4])).tolist() == [0]


def test_what_a_row_gets_depends_on_seed_step_and_id_and_not_on_its_place_or_its_neighbours():
    mixing = Mixing(BOTH, CLASSES)
    ids = np.arange(1000, 1024)
    whole = mixing.shares(_draws(ids), 32, 32)
    for ranks in (2, 3):
        parts = [mixing.shares(_draws(part), 32, 32) for part in np.split(ids, ranks)]
        for of_whole, *of_parts in zip(whole, *parts, strict=True):
            np.testing.assert_array_equal(of_whole, np.concatenate(of_parts))
    for of_whole, turned in zip(whole, mixing.shares(_draws(ids[::-1]), 32, 32), strict=True):
        np.testing.assert_array_equal(of_whole, turned[::-1])
    assert not np.array_equal(whole[2], mixing.shares(_draws(ids, step=8), 32, 32)[2])
    assert not np.array_equal(whole[2], mixing.shares(_draws(ids, seed=4), 32, 32)[2])


def test_by_batch_all_rows_of_all_ranks_share_one_draw():
    mixing = Mixing(AugmentConfig(mixup_alpha=0.4, cutmix_alpha=1.0), CLASSES)
    for step in range(10):
        own, boxes, kept = mixing.shares(_draws(range(8), step), 32, 32)
        other = mixing.shares(_draws(range(100, 108), step), 32, 32)
        assert len(set(own)) == len(set(kept)) == len(np.unique(boxes, axis=0)) == 1
        for one, two in zip((own, boxes, kept), other, strict=True):
            np.testing.assert_array_equal(one, two)


def test_probabilities_choose_whether_and_which():
    config = AugmentConfig(mixup_alpha=1, cutmix_alpha=1, mix_probability=0.6, cutmix_share=0.25, mix_each="sample")
    own, boxes, _ = Mixing(config, CLASSES).shares(_draws(range(20_000)), 640, 640)
    is_cut = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) > 0
    assert (own < 1).mean() == pytest.approx(0.45, abs=0.01)
    assert is_cut.mean() == pytest.approx(0.15, abs=0.01)


def test_a_sample_that_stands_in_a_batch_twice_has_draws_of_its_own_each_time():
    draws = _draws([5, 9, 5, 5])
    values = draws.uniform("anything")
    assert len(set(values)) == 4
    assert values[0] == _draws([5]).uniform("anything")[0]


def test_uniform_draws_are_uniform_and_never_0_or_1():
    values = _draws(range(50_000)).uniform("spread")
    assert stats.kstest(values, "uniform").pvalue > 0.001
    assert values.min() > 0 and values.max() < 1
    counts = np.bincount(_draws(range(50_000)).below(7, "seven"), minlength=7)
    assert stats.chisquare(counts).pvalue > 0.001


def test_golden_draws():
    """A change of these breaks every checkpoint of an augmented run and needs a reason in docs/LOG.md."""
    draws = _draws(range(6))
    assert [hex(bits) for bits in draws.bits("golden").tolist()] == [
        *("0x8db71cd86b41d95f", "0x1ede7431f2d65f72", "0x4023f26117948f73"),
        *("0x20ab3de207532d7c", "0xb904f91e325474f1", "0x41b6cd631ceaf556"),
    ]
    assert partners(draws).tolist() == [5, 0, 1, 4, 2, 3]
    assert draws.below(14, "policy 0 operation").tolist() == [7, 11, 8, 3, 3, 6]
    config = AugmentConfig(cutmix_alpha=1.0, erase_probability=0.9, mix_each="sample")
    assert Mixing(config, 5).shares(draws, 32, 32)[1].tolist() == [
        *([0, 0, 7, 11], [0, 16, 11, 32], [5, 21, 25, 32]),
        *([0, 5, 20, 31], [0, 15, 13, 32], [15, 4, 32, 28]),
    ]
    assert Erasing(config).boxes(draws, 32, 32).tolist() == [
        *([3, 10, 11, 28], [26, 14, 31, 26], [2, 2, 11, 16]),
        *([5, 3, 22, 21], [22, 10, 29, 30], [14, 12, 21, 18]),
    ]
