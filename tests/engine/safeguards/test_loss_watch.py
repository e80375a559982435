"""A loss that is no number is found at its step, and nothing that follows from it is kept."""

import json

import pytest
import torch
from commands import TRAIN, run, short_options, torchrun
from short_runs import ONE_RANK, short_config
from torch import nn

from engine.build import build_run
from engine.loop import train
from engine.reporting.display import Display
from engine.safeguards.interrupt import StopRequest
from engine.safeguards.loss_watch import LossWatch, advice
from loaders.errors import FeedrateError

ADVICE = "lower --optim.learning-rate, or clip gradients with --optim.clip-norm"
NAN, INF = float("nan"), float("inf")


def _watch(losses):
    watch = LossWatch(torch.device("cpu"))
    for number, loss in enumerate(losses):
        ids = torch.tensor([10 * number, 10 * number + 1])
        watch.note(100 + number, ids, torch.tensor(loss))
        ids.zero_()  # a loader uses its memory again
    return watch


@pytest.mark.parametrize("losses", [[0.5, NAN], [0.5, NAN, 0.25, INF], [0.5, NAN, NAN]])
def test_the_first_of_several_is_named_with_all_its_samples(losses):
    with pytest.raises(FeedrateError, match="at step 101 the loss is nan on rank 0, of the samples 10, 11: lower"):
        _watch(losses).refuse_alarm(ONE_RANK)


def test_of_many_samples_the_first_are_named_and_a_file_holds_them_all(tmp_path):
    ids = list(range(500, 4596))
    watch = LossWatch(torch.device("cpu"), tmp_path)
    watch.note(7, torch.tensor(ids), torch.tensor(NAN))
    listed = tmp_path / "not-finite-rank0.txt"
    first = "500, 501, 502, 503, 504, 505, 506, 507"
    with pytest.raises(FeedrateError) as raised:
        watch.refuse_alarm(ONE_RANK)
    assert str(raised.value).startswith(
        f"at step 7 the loss is nan on rank 0, of 4096 samples, the first {first} (all in {listed}): lower"
    )
    assert [int(line) for line in listed.read_text().splitlines()] == ids
    model = nn.BatchNorm2d(3)
    model.weight.data[1] = NAN
    watch = LossWatch(torch.device("cpu"), tmp_path / "full")  # no such folder: as a disk that takes nothing
    watch.note(7, torch.tensor(ids), torch.tensor(0.5))
    with pytest.raises(FeedrateError, match=f"no numbers any more, of 4096 samples, the first {first}: l"):
        watch.refuse(model, ONE_RANK)


def test_infinity_is_no_number_either():
    with pytest.raises(FeedrateError, match="at step 100 the loss is -inf"):
        _watch([-INF, 1.0]).refuse_alarm(ONE_RANK)


def test_good_losses_are_forgotten_and_the_watch_goes_on():
    watch = _watch([0.5, 1e30])
    watch.refuse_alarm(ONE_RANK)
    watch.note(102, torch.tensor([7]), torch.tensor(NAN))
    with pytest.raises(FeedrateError, match="at step 102 the loss is nan on rank 0, of the samples 7:"):
        watch.refuse_alarm(ONE_RANK)


@pytest.mark.parametrize("poison", [NAN, INF])
def test_a_model_with_a_weight_or_statistic_that_is_no_number_is_refused(poison):
    for part in ("weight", "running_var"):
        model = nn.BatchNorm2d(3)
        _watch([0.5]).refuse(model, ONE_RANK)
        getattr(model, part).data[1] = poison
        with pytest.raises(FeedrateError, match="weights of the model are no numbers any more"):
            _watch([0.5]).refuse(model, ONE_RANK)


class _Breaks(nn.Module):
    """Its answers are no numbers from call `after` in training on."""

    def __init__(self, model, after):
        super().__init__()
        self.inner, self.left = model, after

    def forward(self, images):
        logits = self.inner(images)
        if self.training:
            self.left -= 1
            if self.left < 0:
                return logits * NAN
        return logits


@pytest.mark.parametrize("log_every_steps", [1, 4])
def test_a_run_stops_at_that_step_names_the_batch_and_leaves_only_sound_checkpoints(
    image_folder, tmp_path, log_every_steps
):
    config = short_config(image_folder, tmp_path, "synthetic")
    stop = StopRequest()
    try:
        with build_run(config, ONE_RANK, Display(is_main=False), stop) as built:
            built.step._model = _Breaks(built.step.module, after=3)
            ids = [batch.ids.tolist() for batch in built.data.train.epoch(0)][3]
            with pytest.raises(FeedrateError) as raised:
                train(built)
    finally:
        stop.restore()
    newest = tmp_path / "short" / "checkpoints" / "step-00000003.pt"
    assert str(raised.value).endswith(f"{ADVICE}; {newest} is from before, and good")
    assert f"at step 3 the loss is nan on rank 0, of the samples {', '.join(map(str, ids))}: lower" in str(raised.value)
    folder = tmp_path / "short"
    assert sorted(path.name for path in (folder / "checkpoints").glob("*.pt")) == [
        f"step-{step:08d}.pt" for step in (1, 2, 3)
    ]
    for path in (folder / "checkpoints").glob("*.pt"):
        state = torch.load(path, weights_only=True)["model"]
        assert all(tensor.isfinite().all() for tensor in state.values())
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        assert "NaN" not in line and json.loads(line)["step"] < 3


def test_weights_poisoned_by_a_finite_loss_are_not_kept(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path, "synthetic")
    stop = StopRequest()
    try:
        with build_run(config, ONE_RANK, Display(is_main=False), stop) as built:
            next(built.step.module.parameters()).register_hook(lambda gradient: gradient * NAN)
            with pytest.raises(FeedrateError, match="weights of the model are no numbers any more") as raised:
                train(built)
    finally:
        stop.restore()
    assert not list((tmp_path / "short").rglob("*.pt"))
    assert str(raised.value).endswith(f"{ADVICE}; there is no checkpoint yet")


@pytest.mark.parametrize(("precision", "is_named"), [("fp32", False), ("tf32", False), ("bf16", False), ("fp16", True)])
def test_another_precision_is_advised_only_where_numbers_end_early(precision, is_named):
    more = ", or use --execution.precision bf16" if is_named else ""
    assert advice(precision, None) == f"{ADVICE}{more}; there is no checkpoint yet"


def test_two_ranks_end_together_by_one_sentence_each(image_folder, tmp_path):
    options = {"optim.learning-rate": 1e30, "optim.warmup-epochs": 0}
    result = run(torchrun(2, TRAIN, *short_options(image_folder, tmp_path, **options)))
    assert result.returncode != 0
    told = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert told and all("no number" in line or "the loss is" in line for line in told), result.stderr
    assert 'Traceback (most recent call last):\n  File "' + TRAIN not in result.stderr
