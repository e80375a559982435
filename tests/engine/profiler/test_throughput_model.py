"""The model of a loop against cases worked out by hand."""

import numpy as np
import pytest

from engine.profiler.throughput_model import Processors, amdahl, fit_interplay, fit_scaling, loop_rate

TWO = Processors(2, 2)


def test_apart_the_slower_side_sets_the_pace():
    assert loop_rate(100, 400, (1.0, 1.0)) == pytest.approx(100)
    assert loop_rate(400, 100, (1.0, 1.0)) == pytest.approx(100)
    assert Processors(8, 0).shares(64) == (1.0, 1.0)  # a device of its own
    assert Processors(8, 2).shares(6) == (1.0, 1.0)  # processors for all


@pytest.mark.parametrize("workers", [2, 3, 4, 16])
@pytest.mark.parametrize(("step", "loading"), [(300, 500), (500, 300), (100, 5000), (5000, 100)])
def test_where_both_could_use_all_processors_their_times_add_up(workers, step, loading):
    expected = 1 / (1 / step + 1 / loading)
    assert loop_rate(step, loading, TWO.shares(workers)) == pytest.approx(expected)


def test_one_worker_beside_two_threads_by_hand():
    # three threads on two processors: each has 2/3 of one; the step then has 4/3 of 2, the worker 2/3 of 1
    assert TWO.shares(1) == pytest.approx((2 / 3, 2 / 3))
    # the step (10 ms) takes 15 ms beside the worker, who makes 0.5 images of 20 ms meanwhile, and 10 ms more alone
    assert loop_rate(100, 50, TWO.shares(1)) == pytest.approx(1 / 0.025)
    # the worker's 2 ms take 3 ms beside the step, which does 2 of its 10 ms meanwhile, and 8 ms alone
    assert loop_rate(100, 500, TWO.shares(1)) == pytest.approx(1 / 0.011)


def test_the_loop_is_never_faster_than_either_side_and_grows_with_both():
    rates = np.geomspace(10, 10_000, 40)
    for workers in (1, 2, 3):
        shares = TWO.shares(workers)
        grid = loop_rate(rates[:, None], rates[None, :], shares)
        assert (grid <= np.minimum(rates[:, None], rates[None, :]) * (1 + 1e-9)).all()
        assert (np.diff(grid, axis=0) >= -1e-9).all() and (np.diff(grid, axis=1) >= -1e-9).all()
        slower = loop_rate(rates[:, None], rates[None, :], shares, 0.7)
        assert (slower <= grid * (1 + 1e-9)).all()


def test_the_measured_loop_is_reproduced_and_a_loss_while_both_run_is_carried_over():
    shares, loss = TWO.shares(2), 0.8
    truth = loop_rate(300, 400, shares, loss)
    found = fit_interplay(300, 400, truth, shares)
    assert found.loop_rate(300, 400, shares) == pytest.approx(truth)
    assert found.efficiency[0] == pytest.approx(loss, abs=0.03)
    assert found.loop_rate(300, 4000, shares) == pytest.approx(loop_rate(300, 4000, shares, loss), rel=0.02)
    # where the loader hardly runs beside the step, the loss is not carried over in full
    assert found.loop_rate(300, 4e6, shares) == pytest.approx(300, rel=0.02)


def test_a_device_apart_is_not_slowed_by_the_loader():
    found = fit_interplay(300, 400, 285, (1.0, 1.0), device_apart=True)
    assert found.efficiency[0] == 1
    assert found.loop_rate(300, 4000, (1.0, 1.0)) == pytest.approx(285)


@pytest.mark.parametrize("contention", [0.0, 0.1, 0.3])
def test_workers_that_were_not_measured_lie_on_amdahls_curve(contention):
    truth = {workers: 100 * float(amdahl(workers, contention)) for workers in (1, 2, 4, 8, 12, 16)}
    found = fit_scaling({workers: truth[workers] for workers in (1, 2, 4, 8)}, 16)
    assert found.rate(12) == pytest.approx(truth[12], rel=0.04)
    assert found.rate(16) == pytest.approx(truth[16], rel=0.06)
    assert found.rate(2) == pytest.approx(truth[2])  # what was measured is not fitted over
    assert found.reach(2) == 0 < found.reach(12) < found.reach(16)


def test_more_workers_than_processors_load_no_faster():
    found = fit_scaling({1: 100.0, 2: 190.0}, 2)
    assert found.rate(3) == found.rate(4) == pytest.approx(190)
    assert fit_scaling({2: 190.0}, 2).rate(1) == pytest.approx(190 / float(amdahl(2, 0.03)), rel=0.01)
