"""Slow weights against their recurrence written out plainly."""

import copy
import dataclasses

import pytest
import torch
from devices import no_waiting, on_each_gpu
from short_runs import resumed_after, run_to_end, short_config, start_from
from small_training import small_net

from engine.optimisation.average import AverageConfig
from engine.optimisation.lookahead import Lookahead
from engine.optimisation.optim_config import OptimConfig
from loaders.errors import FeedrateError

EVERY_3RD = OptimConfig(lookahead_every_updates=3, lookahead_share=0.8)
WITH_EMA_AND_SWA = AverageConfig(ema_decay=0.9, swa_start_epoch=1, swa_learning_rate=0.02)


def _move(model, seed):
    """As an update would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator))
            else:
                tensor.add_(1)


def test_every_so_many_updates_and_after_the_last_weights_are_set_to_the_slow_ones():
    model, plain = small_net(), small_net()
    lookahead, slow = Lookahead(model, EVERY_3RD, num_updates=8), None
    for update in range(8):
        _move(model, update)
        _move(plain, update)
        lookahead.after_update(update)
        fast = {name: tensor for name, tensor in plain.state_dict().items() if tensor.is_floating_point()}
        slow = slow or {name: tensor.double() for name, tensor in fast.items()}
        if update in (2, 5, 7):
            kept = 1.0 if update == 7 else 0.8 * ((update + 1) / 8) ** 3  # at the end as they are
            slow = {name: kept * old + (1 - kept) * fast[name].double() for name, old in slow.items()}
            for name, tensor in fast.items():
                tensor.copy_(slow[name])
        for name, tensor in plain.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], tensor)
    assert model[1].num_batches_tracked == 8, "counted, not averaged"


def test_past_the_end_of_a_run_they_keep_what_they_do_at_its_end():
    model = small_net()
    lookahead = Lookahead(model, dataclasses.replace(EVERY_3RD, lookahead_share=1.0), num_updates=3)
    lookahead.after_update(2)
    slow = copy.deepcopy(lookahead.state_dict())
    _move(model, 0)
    lookahead.after_update(29)
    assert all(torch.equal(parameter, slow[name]) for name, parameter in model.named_parameters())


def test_where_it_is_off_nothing_moves_and_nothing_is_kept():
    model = small_net()
    before = copy.deepcopy(model.state_dict())
    lookahead = Lookahead(model, OptimConfig(), num_updates=2)
    for update in range(2):
        lookahead.after_update(update)
    assert lookahead.state_dict() == {}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_had_none_before_begins_with_the_next_update():
    model = small_net()
    lookahead = Lookahead(model, EVERY_3RD, num_updates=9)
    lookahead.load_state_dict({})
    _move(model, 0)
    lookahead.after_update(6)
    slow = lookahead.state_dict()
    assert all(torch.equal(slow[name], parameter) for name, parameter in model.named_parameters())


@pytest.mark.parametrize(("accumulate", "average"), [(1, AverageConfig()), (2, WITH_EMA_AND_SWA)])
def test_a_run_resumed_at_any_batch_ends_with_the_same_bits(image_folder, tmp_path, accumulate, average):
    config = short_config(image_folder, tmp_path / "whole")
    plain = run_to_end(dataclasses.replace(config, run=dataclasses.replace(config.run, folder=str(tmp_path / "plain"))))
    optim = dataclasses.replace(config.optim, lookahead_every_updates=2, accumulate=accumulate)
    config = dataclasses.replace(config, optim=optim, average=average)
    expected = run_to_end(config)
    assert expected["metrics"] != plain["metrics"]
    for step in range(1, 10):
        assert resumed_after(config, step) == expected, f"resumed after step {step}"


def test_a_run_may_begin_with_it_where_its_checkpoint_has_none(image_folder, tmp_path):
    config = short_config(image_folder, tmp_path / "whole")
    run_to_end(config)
    start_from(tmp_path / "whole" / "short", 6, tmp_path / "again" / "short")
    allowed = dataclasses.replace(config.run, folder=str(tmp_path / "again"), allow_change=("config",))
    optim = dataclasses.replace(config.optim, lookahead_every_updates=2)
    assert run_to_end(dataclasses.replace(config, optim=optim, run=allowed))["position"] == [2, 0]


@on_each_gpu
def test_it_reads_nothing_from_the_device(device):
    model = small_net().to(device)
    lookahead = Lookahead(model, EVERY_3RD, num_updates=6)
    lookahead.after_update(2)  # loads kernels
    with no_waiting(device):
        for update in range(3, 6):
            lookahead.after_update(update)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"lookahead_every_updates": -1}, "lookahead_every_updates is -1: it must be 0 or more"),
        ({"lookahead_share": 1.5}, "lookahead_share is 1.5: it must lie between 0 and 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(change, sentence):
    with pytest.raises(FeedrateError, match=sentence):
        OptimConfig(**change)
