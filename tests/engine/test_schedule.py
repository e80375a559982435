import pytest
import torch

from engine.config import OptimConfig
from engine.schedule import build_schedule


@pytest.mark.parametrize("total", [(1, 7), (3, 50), (16, 11)])
@pytest.mark.parametrize("rise_share", [0.1, 0.3, 0.7])
def test_onecycle_is_torchs(total, rise_share):
    epochs, steps = total
    schedule = build_schedule(OptimConfig(learning_rate=0.4, schedule="onecycle", rise_share=rise_share), epochs, steps)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.4, total_steps=epochs * steps, pct_start=rise_share, cycle_momentum=False
    )
    for step in range(epochs * steps):
        assert schedule(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9), step
        optimizer.step()
        if step + 1 < epochs * steps:
            reference.step()


def test_cosine_rises_linearly_then_falls_towards_zero():
    schedule = build_schedule(OptimConfig(learning_rate=1.0, schedule="cosine", warmup_epochs=2), 10, 100)
    assert schedule(0) == pytest.approx(1 / 200)
    assert schedule(99) == pytest.approx(0.5)
    assert schedule(199) == schedule(200) == pytest.approx(1.0)
    assert schedule(600) == pytest.approx(0.5)  # halfway down
    assert 0 < schedule(999) < 1e-4


def test_no_warm_up_starts_at_the_peak():
    assert build_schedule(OptimConfig(learning_rate=0.3, warmup_epochs=0), 2, 10)(0) == pytest.approx(0.3)
