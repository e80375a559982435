"""Predictions of made profiles whose truth is known; nothing is run."""

import dataclasses

import numpy as np
import pytest
from made_profiles import RESOURCES, SUBJECT, ceilings, profile, rank, rate, stage

from engine.profiler.record import ProcessRecord, Rate
from engine.profiler.throughput_model import Processors, amdahl, loop_rate
from engine.profiler.what_if import Change, NotPredictable, Predictor, hold_out, plain_changes, predict_all

WORKERS = {
    workers: Change(f"{workers} workers", {"data.workers": workers}, workers=workers) for workers in range(1, 17)
}


def made(found, *ranks, cpus=2, **subject):
    """On a CPU unless said otherwise, of 10,000 images of 10 kB."""
    resources = dataclasses.replace(RESOURCES, cpus_available=cpus)
    told = [dataclasses.replace(one, resources=resources) for one in (ranks or (rank(),))]
    fields = {"device": "cpu", "num_samples": 10_000, "stored_bytes": 10**8, "memory_bytes": 10**9, **subject}
    return dataclasses.replace(profile(found, *told), subject=dataclasses.replace(SUBJECT, **fields))


def truth(workers, step=900.0, one_worker=150.0, contention=0.05, cpus=8, threads=8, efficiency=0.85):
    """(loader alone, loop) of a machine that is as the model says."""
    loading = one_worker * amdahl(min(workers, cpus), contention)
    return float(loading), float(loop_rate(step, loading, Processors(cpus, threads).shares(workers), efficiency))


def noisy(value, generator, share=0.02):
    return Rate(tuple(value * generator.normal(1, share, 5)))


def test_without_a_change_the_loop_is_what_it_is():
    found = made(ceilings(300, 500, 180))
    row = Predictor(found).predict(Change("none"))
    assert row.predicted == pytest.approx(180) and row.low < 180 < row.high
    assert row.error is None and row.measured is None


def test_intervals_hold_the_truth_as_often_as_they_say():
    """Of machines that are as the model says, profiled with noise: 95 % or more, since doubt in the model is added."""
    generator, held, total = np.random.default_rng(5), 0, 0
    for _ in range(20):
        rates = {workers: noisy(truth(workers)[0], generator) for workers in (1, 2, 4, 8)}
        found = ceilings(900, 1, 1, step=noisy(900, generator), loader=rates, loop=noisy(truth(4)[1], generator))
        predictor = Predictor(dataclasses.replace(made(found, cpus=8, workers=4), config={"execution": {"threads": 8}}))
        for workers in (1, 3, 6, 8):
            row = predictor.predict(WORKERS[workers])
            assert row.low <= row.predicted <= row.high
            held += row.low <= truth(workers)[1] <= row.high
            total += 1
    assert held / total >= 0.95


def test_a_prediction_does_not_see_what_is_held_out():
    found = made(ceilings(900, 1, 250, loader={1: rate(150), 2: rate(290), 4: rate(99)}), cpus=8)
    with_it, without = Predictor(found), Predictor(hold_out(found, 4))
    assert with_it.predict(WORKERS[4]).predicted < 150 < without.predict(WORKERS[4]).predicted
    with pytest.raises(ValueError, match="configured"):
        hold_out(found, 2)


def test_more_than_is_measured_is_doubted_more():
    predictor = Predictor(made(ceilings(9000, 1, 280, loader={1: rate(150), 2: rate(290)}), cpus=64))
    widths = []
    for workers in (2, 4, 8, 16):
        row = predictor.predict(WORKERS[workers])
        widths.append((row.high - row.low) / row.predicted)
    assert widths == sorted(widths) and widths[-1] > 2 * widths[0]


def test_a_faster_side_is_never_predicted_to_slow_the_loop():
    predictor = Predictor(made(ceilings(300, 500, 180)))
    for side in ("step", "loading"):
        predicted = [predictor.predict(Change("x", **{side: (factor,) * 5})).predicted for factor in (0.5, 1, 2, 8)]
        assert predicted == sorted(predicted) and predicted[-1] > 1.2 * predicted[0]
    # loading at no cost leaves the step alone
    assert predictor.predict(Change("x", loading=(1e6,) * 5)).predicted == pytest.approx(300, rel=0.02)


def test_on_a_gpu_the_lower_ceiling_is_met():
    found = ceilings(1000, 400, 390, fed=rate(900), loader={2: rate(400), 1: rate(205)})
    predictor = Predictor(made(found, device="cuda", cpus=16))
    assert predictor.predict(WORKERS[4]).predicted == pytest.approx(390 / 400 * 780, rel=0.05)
    assert predictor.predict(WORKERS[16]).predicted == pytest.approx(390 / 400 * 900, rel=0.02)


def test_storage_and_memory_by_hand():
    # in memory 10 ms an image, from storage 30: waiting for it takes 20
    found = made(ceilings(1000, 200, 100, loop_cold=rate(1000 / 30)), stored_bytes=10**10, memory_bytes=10**9)
    predictor = Predictor(found)

    def predicted(**known):
        return predictor.predict(Change("x", **known)).predicted

    assert predicted() == pytest.approx(1000 / 30)  # it does not fit
    assert predicted(storage=2.0) == pytest.approx(1000 / 20)
    assert predicted(storage=0.5) == pytest.approx(1000 / 50)
    assert predictor.predict(Change("x", bytes_per_image=10**5)).predicted == pytest.approx(100)  # now it fits
    half = dataclasses.replace(found, subject=dataclasses.replace(found.subject, memory_bytes=6 * 10**9))
    assert Predictor(half).predict(Change("x", in_memory=0.5)).predicted == pytest.approx(1000 / 20)
    # half as large, but still too large
    smaller = predictor.predict(Change("x", bytes_per_image=5 * 10**5))
    assert smaller.predicted == pytest.approx(1000 / 20) and smaller.disk_mb_per_s == pytest.approx(50 * 0.5)


def test_what_it_takes_and_costs():
    stages = (stage("decode", cpu_us=4000.0), stage("forward", "loop", cpu_us=6000.0))
    row = Predictor(made(ceilings(300, 500, 150), rank(stages=stages)), price_per_hour=3.0).predict(Change("none"))
    assert row.epoch_minutes == pytest.approx(10_000 / 150 / 60)
    assert row.cost == pytest.approx(row.epoch_minutes / 60 * 3)
    assert row.cpu_share == pytest.approx(1.5 / 2)  # what the record says was used
    assert row.memory_bytes == RESOURCES.memory_bytes and row.disk_mb_per_s == pytest.approx(1.5)
    assert Predictor(made(ceilings(300, 500, 150))).predict(Change("none")).cost is None


def test_memory_is_of_all_ranks_and_more_workers_take_what_a_worker_takes():
    pss = (5 * 10**9, 10**8, 3 * 10**8)  # the rank's own process first
    processes = tuple(
        ProcessRecord(7 + at, "python", 1.0, 9 * 10**9, size, None, None, None) for at, size in enumerate(pss)
    )
    resources = dataclasses.replace(RESOURCES, memory_bytes=6 * 10**9, processes=processes)
    found = made(ceilings(300, 500, 150, loader={2: rate(500), 1: rate(260)}), cpus=8)
    told = dataclasses.replace(rank(), resources=resources)
    one = Predictor(dataclasses.replace(found, ranks=(told,)))
    assert one.predict(WORKERS[4]).memory_bytes == pytest.approx(6.4e9)
    assert one.predict(WORKERS[1]).memory_bytes == pytest.approx(5.8e9)  # fewer give theirs back
    two = Predictor(dataclasses.replace(found, ranks=(told, dataclasses.replace(told, rank=1))))
    assert two.predict(Change("none")).memory_bytes == 12 * 10**9
    assert two.predict(WORKERS[4]).memory_bytes == pytest.approx(12.8e9)
    elsewhere = dataclasses.replace(told, rank=1, host="there")
    assert Predictor(dataclasses.replace(found, ranks=(told, elsewhere))).predict(WORKERS[4]).memory_bytes == 6.4e9
    with pytest.raises(NotPredictable, match=r"needs 1\.2 GB more, and 1\.0 GB are free"):
        two.predict(WORKERS[5])


def test_what_cannot_be_known_or_had_is_refused_with_its_reason():
    found = made(ceilings(300, 500, 150))
    with pytest.raises(NotPredictable, match="how fast storage is was not measured"):
        Predictor(found).predict(Change("slower storage", storage=0.5, in_memory=0.0))
    large = made(ceilings(300, 500, 150, loop_cold=rate(90)), stored_bytes=10**10)
    with pytest.raises(NotPredictable, match=r"needs 10\.0 GB more, and 1\.0 GB are free"):
        Predictor(large).predict(Change("all of it", in_memory=1.0))
    changes, refused = plain_changes(found)
    assert any("GPU decode: there is no GPU here" in reason for reason in refused)
    assert any("storage and memory" in reason for reason in refused)
    assert not any("storage" in change.text for change in changes)
    _, reasons = predict_all(large, plain_changes(large)[0])
    assert any("half of the set in memory: it needs 5.0 GB more" in reason for reason in reasons)


def test_all_of_the_set_in_memory_is_predicted_with_the_memory_that_is_missing():
    large = made(ceilings(300, 500, 150, loop_cold=rate(90)), stored_bytes=10**10)
    rows = {row.change: row for _, row in predict_all(large, plain_changes(large)[0])[0]}
    row = rows["all of the set in memory (9.00 GB more than are free)"]
    assert row.predicted == pytest.approx(150) and row.settings == {"data.page_cache": "memory"}
    assert row.memory_bytes == RESOURCES.memory_bytes + 10**10
    fitting = made(ceilings(300, 500, 150, loop_cold=rate(90)))
    assert not any("all of the set" in change.text for change in plain_changes(fitting)[0])


def test_a_set_that_the_run_keeps_in_memory_is_there_however_little_is_left_beside_it():
    found = made(ceilings(300, 500, 150, loader={1: rate(260), 2: rate(500)}), stored_bytes=10**9, memory_bytes=10**8)
    with pytest.raises(NotPredictable, match="how fast storage is"):
        Predictor(found).predict(WORKERS[1])
    kept = Predictor(dataclasses.replace(found, config={"data": {"page_cache": "memory"}}))
    assert kept.predict(WORKERS[1]).predicted > 0
    assert kept.predict(Change("x", bytes_per_image=1.09e5)).predicted == pytest.approx(150)  # 90 MB more than now
    with pytest.raises(NotPredictable, match="how fast storage is"):
        kept.predict(Change("x", bytes_per_image=1.11e5))


def test_several_views_of_a_sample_make_an_epoch_longer_and_are_read_once():
    found = made(ceilings(300, 500, 150))
    once = Predictor(found, 3.0).predict(Change("none"))
    row = Predictor(dataclasses.replace(found, config={"data": {"views": 4}}), 3.0).predict(Change("none"))
    assert row.epoch_minutes == pytest.approx(4 * once.epoch_minutes) and row.cost == pytest.approx(4 * once.cost)
    assert row.disk_mb_per_s == pytest.approx(once.disk_mb_per_s / 4)


def test_a_loader_without_workers_has_no_such_prediction():
    changes, refused = plain_changes(made(ceilings(300, 500, 150), cpus=4))
    assert not changes and any(reason.startswith("workers: ") for reason in refused)


def test_every_useful_number_of_workers_is_predicted():
    changes, _ = plain_changes(made(ceilings(300, 500, 150, loader={1: rate(260), 2: rate(500)})))
    assert [change.settings for change in changes] == [{"data.workers": number} for number in (1, 3, 4)]
