"""Evaluation counts every image once, and the counts are the same integers however the work is shared."""

import copy
import gc
import json
import threading
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import python, run, torchrun
from short_runs import ONE_RANK
from torch import nn
from torchmetrics.functional import classification

from engine.augment import IMAGENET_CHANNELS, Normalize
from engine.dist import Ranks
from engine.evaluate import Evaluation, _inference_times, answer_of, evaluate, flip_averaged_answer
from engine.profiler.step_clock import StageSpan
from engine.reporting import class_counts
from engine.reporting.class_counts import count_classes
from engine.reporting.prediction_sample import PredictionSample
from engine.reporting.predictions import Predictions
from engine.reporting.run_folder import RunFolder
from engine.step import Precision
from loaders.api import Batch, LoaderOptions
from loaders.choose import open_loader
from loaders.crops import CenterCrop
from loaders.errors import FeedrateError
from loaders.plan import Plan, Sequential, Shard, View
from loaders.records import open_records
from loaders.synthetic_records import SyntheticRecords

EVALUATE_COUNTS = str(Path(__file__).with_name("evaluate_counts.py"))
NORMALIZE = Normalize(IMAGENET_CHANNELS, torch.device("cpu"), channels_last=True)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 3),
    )


def _evaluate(model, images, batch_size, rank=0, world_size=1):
    records = open_records(images, "val")
    plan = Plan(records.widths, records.heights, Sequential(batch_size), View(CenterCrop(16, 18), 16))
    loader = open_loader("turbo", records, plan, LoaderOptions(shard=Shard(rank, world_size), num_workers=1))
    try:
        # each share is evaluated as if alone, and the counts are added by the test
        return evaluate(model, loader, NORMALIZE, Precision("fp32", torch.device("cpu")), ONE_RANK)
    finally:
        loader.close()


def _shares(model, images, batch_size, world_size):
    records = open_records(images, "val")
    plan = Plan(records.widths, records.heights, Sequential(batch_size), View(CenterCrop(16, 18), 16))
    filled = [rank for rank in range(world_size) if rank * batch_size < len(records)]
    assert plan.num_batches(world_size) >= 1
    return [_evaluate(model, images, batch_size, rank, world_size) for rank in filled]


@pytest.mark.parametrize("batch_size", [1, 5, 23, 64])
def test_counts_are_those_of_a_plain_loop_over_single_images(model, image_folder, batch_size):
    records = open_records(image_folder, "val")
    plan = Plan(records.widths, records.heights, Sequential(1), View(CenterCrop(16, 18), 16))
    loader = open_loader("turbo", records, plan, LoaderOptions(num_workers=1))
    model.eval()
    right, loss = 0, 0.0
    with torch.inference_mode():
        for batch in loader.epoch(0):
            logits = model(NORMALIZE(batch.images))
            right += int(logits.argmax() == batch.labels[0])
            loss += nn.functional.cross_entropy(logits, batch.labels).item()
    loader.close()
    result = _evaluate(model, image_folder, batch_size)
    assert (result.num_samples, result.num_top1, result.num_top5) == (23, right, 23)
    assert result.loss == pytest.approx(loss / 23, rel=1e-5)


@pytest.mark.parametrize("world_size", [2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 4, 7])
def test_any_number_of_ranks_counts_the_same_integers_and_the_same_loss(model, image_folder, batch_size, world_size):
    whole = _evaluate(model, image_folder, batch_size)
    shares = _shares(model, image_folder, batch_size, world_size)
    assert sum(share.num_samples for share in shares) == whole.num_samples == 23
    assert sum(share.num_top1 for share in shares) == whole.num_top1
    total = sum(share.loss * share.num_samples for share in shares) / 23
    assert total == pytest.approx(whole.loss, rel=1e-12)


def test_evaluating_leaves_the_model_as_it_was(model, image_folder):
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _evaluate(model, image_folder, 8)
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("where", ["the model", "normalising"])
def test_a_batch_that_memory_does_not_suffice_for_is_told_in_a_sentence(where, image_folder, monkeypatch):
    def too_much(*anything):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    class Hungry(nn.Module):
        def forward(self, images):
            return too_much() if where == "the model" else images

    if where == "normalising":
        monkeypatch.setattr(Normalize, "__call__", too_much)
    told = r"^out of memory in evaluation: 7 images of 16 px a rank do not fit, .* --data\.eval-batch-size-per-rank$"
    with pytest.raises(FeedrateError, match=told):
        _evaluate(Hungry(), image_folder, 7)


def test_top5_of_fewer_than_five_classes_is_always_right_and_more_is_counted():
    class Fixed(nn.Module):
        def forward(self, images):
            return torch.arange(10.0).repeat(len(images), 1)  # class 9 first, class 5 fifth

    class Loader:
        def epoch(self, index, start=0):
            from loaders.api import Batch

            labels = torch.tensor([9, 5, 4, 0, -1, -1])
            yield Batch(torch.zeros(6, 3, 2, 2, dtype=torch.uint8), labels, torch.arange(6), 4)

    result = evaluate(Fixed(), Loader(), NORMALIZE, Precision("fp32", torch.device("cpu")), ONE_RANK)
    assert (result.num_samples, result.num_top1, result.num_top5) == (4, 1, 2)
    assert (result.top1, result.top5) == (0.25, 0.5)
    expected = nn.functional.cross_entropy(torch.arange(10.0).repeat(4, 1), torch.tensor([9, 5, 4, 0])).item()
    assert np.isclose(result.loss, expected)


@dataclass(frozen=True)
class _ThreadRanks(Ranks):
    """Ranks that are threads of this process: they meet where real ones would."""

    meeting: threading.Barrier
    parts: list

    def sum(self, values):
        self.parts[self.rank] = values.clone()
        self.meeting.wait()
        total = torch.stack(self.parts).sum(dim=0)
        self.meeting.wait()
        return values.copy_(total)

    def same_buffers(self, model):
        pass


def _evaluate_1003(model, batch_size, world_size):
    """1,003 images of 12 classes on so many ranks: every rank's evaluation."""
    meeting, parts, results = threading.Barrier(world_size), [None] * world_size, [None] * world_size
    records = SyntheticRecords(1003, 12, 16, 16)
    plan = Plan(records.widths, records.heights, Sequential(batch_size), View(CenterCrop(16, 16), 16))

    def of_rank(rank):
        torch.set_num_threads(1)
        ranks = _ThreadRanks(rank, world_size, rank, world_size, torch.device("cpu"), meeting, parts)
        loader = open_loader("turbo", records, plan, LoaderOptions(shard=ranks.shard, num_workers=1))
        precision = Precision("fp32", ranks.device)
        normalize = Normalize(IMAGENET_CHANNELS, ranks.device, channels_last=True)  # one writes into memory it keeps
        try:
            results[rank] = evaluate(copy.deepcopy(model), loader, normalize, precision, ranks)
        except BaseException:
            meeting.abort()
            raise
        finally:
            loader.close()

    threads = [threading.Thread(target=of_rank, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def _of_12_classes():
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, 12))


@pytest.mark.parametrize("batch_size", [64, 200])  # with 200, some of eight ranks have nothing but padding
def test_1003_images_on_1_to_8_ranks_give_identical_integers(batch_size):
    model = _of_12_classes()
    [alone] = _evaluate_1003(model, batch_size, 1)
    assert alone.num_samples == 1003 == alone.classes.confusion.sum()
    assert alone.num_top1 == np.trace(alone.classes.confusion) and alone.num_top5 > alone.num_top1 > 0
    for world_size in range(2, 9):
        for result in _evaluate_1003(model, batch_size, world_size):
            assert (result.num_samples, result.num_top1, result.num_top5) == (1003, alone.num_top1, alone.num_top5)
            np.testing.assert_array_equal(result.classes.confusion, alone.classes.confusion)
            assert result.classes.macro_f1 == alone.classes.macro_f1
            assert result.loss == pytest.approx(alone.loss, rel=1e-12)


def test_three_real_processes_count_what_one_does():
    alone = python(EVALUATE_COUNTS)
    assert alone.returncode == 0, alone.stderr
    together = run(torchrun(3, EVALUATE_COUNTS))
    assert together.returncode == 0, together.stderr
    one, three = (json.loads(result.stdout.strip().splitlines()[-1]) for result in (alone, together))
    assert one["num_samples"] == 1003
    assert three == one


def _answers(num=400, num_classes=7, seed=0):
    """Labels and answers; class 5 is never answered and has images, class 6 neither."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes - 1, num)
    predicted = np.where(rng.random(num) < 0.6, labels, rng.integers(0, num_classes - 2, num))
    predicted[predicted == 5] = 0
    return labels, predicted


@pytest.mark.parametrize("most", [2000, 3])  # with a matrix, and without one
def test_counts_and_figures_of_classes_are_those_of_a_plain_loop(monkeypatch, most):
    monkeypatch.setattr(class_counts, "MAX_CONFUSION_CLASSES", most)
    labels, predicted = _answers()
    counts = count_classes(torch.from_numpy(predicted), torch.from_numpy(labels), 7, ONE_RANK)
    f1 = []
    for c in range(7):
        right = sum(1 for is_, taken in zip(labels, predicted, strict=True) if is_ == taken == c)
        samples, answered = (labels == c).sum(), (predicted == c).sum()
        assert (counts.num_samples[c], counts.num_right[c], counts.num_predicted[c]) == (samples, right, answered)
        if samples:
            assert counts.accuracies[c] == right / samples
        if samples + answered:
            f1.append(2 * right / (samples + answered))
            assert counts.f1[c] == f1[-1]
    assert np.isnan(counts.accuracies[6]) and np.isnan(counts.f1[6]) and counts.accuracies[5] == 0
    assert len(f1) == 6 and counts.macro_f1 == pytest.approx(np.mean(f1), rel=1e-15)
    theirs = classification.multiclass_f1_score(
        torch.from_numpy(predicted), torch.from_numpy(labels), 7, average="macro"
    )
    assert counts.macro_f1 == pytest.approx(theirs.item(), rel=1e-6)
    if most == 3:
        assert counts.confusion is None
        return
    assert counts.confusion.dtype == np.int64
    for is_ in range(7):
        for taken in range(7):
            assert counts.confusion[is_, taken] == ((labels == is_) & (predicted == taken)).sum()


class _Batches:
    """A loader of given batches."""

    def __init__(self, *batches):
        self.batches = batches

    def epoch(self, index, start=0):
        yield from self.batches


def _noise(num, num_valid, seed):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (num, 3, 16, 16), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 12, (num,), generator=generator)
    labels[num_valid:] = -1
    return Batch(images, labels, torch.arange(num), num_valid)


def test_with_mirror_images_the_logits_of_both_are_averaged():
    model, batches = _of_12_classes().eval(), [_noise(8, 8, 0), _noise(8, 5, 1)]
    precision = Precision("fp32", torch.device("cpu"))
    result = evaluate(model, _Batches(*batches), NORMALIZE, precision, ONE_RANK, flip_averaged_answer)
    losses, num_right = [], 0
    with torch.inference_mode():
        for batch in batches:
            for image, label in zip(batch.images[: batch.num_valid], batch.labels, strict=False):
                both = torch.stack([image, torch.from_numpy(image.numpy()[:, :, ::-1].copy())])
                logits = model(NORMALIZE(both)).mean(dim=0)
                losses.append(nn.functional.cross_entropy(logits, label).item())
                num_right += int(logits.argmax() == label)
    assert result.num_top1 == num_right
    assert result.loss == pytest.approx(np.mean(losses), rel=1e-5)
    plain = evaluate(model, _Batches(*batches), NORMALIZE, precision, ONE_RANK)
    assert abs(plain.loss - result.loss) > 1e-4
    mirrored = [Batch(batch.images.flip(3), batch.labels, batch.ids, batch.num_valid) for batch in batches]
    again = evaluate(model, _Batches(*mirrored), NORMALIZE, precision, ONE_RANK, flip_averaged_answer)
    assert again.loss == pytest.approx(result.loss, rel=1e-6)


@pytest.mark.parametrize("flips", [False, True])
def test_shifted_images_have_a_quarter_of_the_answer_each(flips):
    model, batch = _of_12_classes().eval(), _noise(8, 8, 0)
    inputs = NORMALIZE(batch.images)
    padded = torch.from_numpy(np.pad(inputs.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), "reflect"))
    expected = torch.zeros(8, 12)
    for offset, weight in ((0, 0.25), (2, 0.5), (4, 0.25)):
        view = padded[:, :, offset : offset + 16, offset : offset + 16].clone()
        for seen in (view, view.flip(3)) if flips else (view, view):
            expected += weight / 2 * model(seen)
    with torch.inference_mode():
        found = answer_of(flips, shift_px=2)(model, inputs)
    torch.testing.assert_close(found, expected)
    assert answer_of(flips)(model, inputs).sub(expected).abs().max() > 1e-3


def test_inference_time_is_of_all_batches_but_the_first_which_stands_apart():
    first = {"first batch": StageSpan(1, 3.0, (3.0, 3.0, 3.0))}
    rest = {"other batches": StageSpan(2, 0.8, (0.4, 0.5, 0.5))}
    assert _inference_times(first | rest, 4, ONE_RANK) == (0.8 / 8, 3.0)
    assert _inference_times(first, 4, ONE_RANK) == (None, 3.0)


def test_the_first_images_are_kept_with_their_answers_and_no_padding():
    sample, model = PredictionSample(7), _of_12_classes().eval()
    batches = [_noise(4, 4, 0), _noise(4, 2, 1), _noise(4, 4, 2)]
    evaluate(model, _Batches(*batches), NORMALIZE, Precision("fp32", torch.device("cpu")), ONE_RANK, watch=sample)
    kept = sample.read()
    valid = [(batch.images[i], int(batch.labels[i])) for batch in batches for i in range(batch.num_valid)]
    assert len(kept) == 7
    for (image, label, predicted), (expected_image, expected_label) in zip(kept, valid, strict=False):
        assert torch.equal(image, expected_image) and label == expected_label
        assert predicted == model(NORMALIZE(image[None])).argmax().item()
    assert PredictionSample(0).read() == []


def test_of_equal_logits_all_who_look_see_the_class_that_is_counted():
    """bfloat16 often gives two classes the same; torch's topk and argmax take one each."""

    class Undecided(nn.Module):
        def forward(self, inputs):
            return torch.zeros(len(inputs), 12)

    sample, predictions = PredictionSample(7), Predictions(12)

    def watch(*seen):
        sample(*seen)
        predictions(*seen)

    precision = Precision("fp32", torch.device("cpu"))
    result = evaluate(Undecided(), _Batches(_noise(8, 7, 0)), NORMALIZE, precision, ONE_RANK, watch=watch)
    [counted] = np.flatnonzero(result.classes.num_predicted)
    assert {predicted for _, _, predicted in sample.read()} == {counted}
    answers = predictions.read(ONE_RANK)
    assert {one.predicted for one in answers} == {counted}
    others = set(range(12)) - {counted}
    assert all({label for label, _ in one.runners_up} == others for one in answers)


def test_answers_are_those_of_each_batch_in_order_of_id_without_padding_in_the_memory_of_arrays():
    num_batches, size, generator = 20, 1000, torch.Generator().manual_seed(0)
    ids = torch.randperm(num_batches * size, generator=generator)
    ids[ids >= 19_500] = -1
    logits = torch.randn(num_batches * size, 4, generator=generator)
    labels = torch.arange(len(ids)) % 4
    predictions = Predictions(2)
    for part in torch.arange(len(ids)).split(size):
        batch = Batch(torch.empty(size, 3, 1, 1), labels[part], ids[part], size)
        predictions(batch, logits[part], logits[part].argmax(1))
    tracemalloc.start()
    try:
        answers = predictions.read(ONE_RANK)
        kept = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert kept < 100 * len(answers)  # an object each takes 400 bytes and more
    assert [one.id for one in answers] == list(range(19_500))
    places = ids.argsort()[500:].tolist()
    shares, classes = (of.tolist() for of in logits.softmax(1).topk(2, 1))
    for one, place in zip(answers, places, strict=True):
        assert one.label == labels[place] and (one.predicted, one.probability) == (classes[place][0], shares[place][0])
        assert one.runners_up == ((classes[place][1], shares[place][1]),)


def test_no_tensor_is_kept_of_each_batch():
    """It would lie where the batch's large ones have been: on a CPU no later one would fit there."""
    predictions, num_alive = Predictions(2), []

    def watch(*seen):
        predictions(*seen)
        num_alive.append(sum(type(one) is torch.Tensor for one in gc.get_objects()))

    precision = Precision("fp32", torch.device("cpu"))
    batches = [_noise(4, 4, seed) for seed in range(20)]
    evaluate(_of_12_classes().eval(), _Batches(*batches), NORMALIZE, precision, ONE_RANK, watch=watch)
    assert len(num_alive) == 20 and num_alive[-1] <= num_alive[2]


def test_an_evaluation_is_written_with_its_classes_and_its_matrix(tmp_path):
    labels, predicted = _answers(num_classes=3 + 4)
    counts = count_classes(torch.from_numpy(predicted), torch.from_numpy(labels), 7, ONE_RANK)
    evaluation = Evaluation(400, int(counts.num_right.sum()), 399, 1.5, counts, None, 0.1)
    names = tuple("abcdefg")
    RunFolder(tmp_path, writes=True).log_evaluation(3, evaluation, names)
    RunFolder(tmp_path, writes=True).log_evaluation(3, evaluation, names, "evaluation-ema")
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["epoch"] == 3 and report["num_top1"] == np.trace(counts.confusion)
    assert report["top1"] == report["num_top1"] / 400 and report["macro_f1"] == counts.macro_f1
    assert [row["class"] for row in report["classes"]] == list(names)
    assert report["classes"][6]["accuracy"] is None and report["classes"][6]["f1"] is None
    assert report["classes"][0]["accuracy"] == counts.num_right[0] / counts.num_samples[0]
    for file in ("confusion.npy", "evaluation-ema-confusion.npy"):
        np.testing.assert_array_equal(np.load(tmp_path / file), counts.confusion)
    RunFolder(tmp_path / "other", writes=False).log_evaluation(0, evaluation, names)
    assert not (tmp_path / "other").exists()
