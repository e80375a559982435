"""What is noted of the stages of a loader, and how it is read: without any loader."""

import multiprocessing
import pickle
import threading
import time

import numpy as np
import pytest

from loaders.errors import FeedrateError
from loaders.stage_times import LOADER_STAGES, Delay, StageTimes
from loaders.stage_writer import CPU_EVERY_IMAGES, UNTIMED, bucket_of, bucket_start_s

MS = 1_000_000


def note(writer, stage, wall_ns, images=1, cpu_ns=None):
    writer.stage(stage).record(images, wall_ns, cpu_ns)


def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_a_stage_nobody_passed_is_absent_and_stages_come_in_their_order():
    times = StageTimes(2)
    assert times.read() == {}
    for stage in reversed(LOADER_STAGES):
        note(times.writer(1), stage, MS)
    assert tuple(times.read()) == LOADER_STAGES


def test_figures_are_sums_over_writers():
    times = StageTimes(3)
    for index, wall_ns in enumerate((2 * MS, 3 * MS, 5 * MS)):
        note(times.writer(index), "decode", wall_ns, cpu_ns=wall_ns // 2)
    note(times.writer(1), "augment", 8 * MS, images=4)
    reading = times.read()
    assert reading["decode"].count == 3 and reading["decode"].wall_s == pytest.approx(0.010)
    assert reading["decode"].cpu_s == pytest.approx(0.005)
    assert sum(reading["decode"].histogram) == 3
    assert reading["augment"].count == 4 and reading["augment"].wall_s == pytest.approx(0.008)
    assert reading["augment"].histogram[bucket_of(2 * MS)] == 4  # 8 ms for four are 2 ms an image
    assert reading["augment"].cpu_s is None  # nobody looked, so nobody knows


def test_no_image_of_a_thousand_is_lost_by_threads_or_forked_processes():
    times = StageTimes(7)

    def work(index):
        writer = times.writer(index)
        for _ in range(1000):
            with writer.stage("decode"):
                pass

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(index,)) for index in (4, 5, 6)]
    for worker in (*processes, *threads):
        worker.start()
    for worker in (*processes, *threads):
        worker.join()
    reading = times.read()["decode"]
    assert reading.count == sum(reading.histogram) == 7000
    assert reading.sampled_count == 7000 // CPU_EVERY_IMAGES


def test_waiting_is_wall_time_and_work_is_processor_time_too():
    times = StageTimes(1)
    writer = times.writer(0)
    for _ in range(4):
        with writer.stage("read"):
            time.sleep(0.02)
        with writer.stage("decode"):
            burn(0.02)
    reading = times.read()
    assert reading["read"].wall_s >= 0.08 and reading["read"].cpu_s < 0.04
    assert reading["decode"].wall_s >= 0.08 and reading["decode"].cpu_s >= 0.08


def test_processor_time_is_scaled_from_the_images_it_was_read_of():
    times = StageTimes(1)
    writer = times.writer(0)
    for _ in range(2 * CPU_EVERY_IMAGES + 1):
        with writer.stage("decode"):
            burn(0.002)
    reading = times.read()["decode"]
    assert reading.count == 17 and reading.sampled_count == 3
    assert reading.cpu_s >= 17 * 0.002
    with writer.stage("collate", images=CPU_EVERY_IMAGES):  # whole batches: each of them
        pass
    with writer.stage("collate", images=CPU_EVERY_IMAGES):
        pass
    assert times.read()["collate"].sampled_count == 2 * CPU_EVERY_IMAGES


def test_an_exception_passes_and_counts_as_time_for_no_image():
    times = StageTimes(1, {"decode": Delay("sleep", 10.0)})  # which is not obeyed either
    with pytest.raises(KeyError), times.writer(0).stage("decode"):
        time.sleep(0.01)
        raise KeyError
    reading = times.read()["decode"]
    assert reading.count == 0 and sum(reading.histogram) == 0 and 0.01 <= reading.wall_s < 5
    assert reading.quantile_s(0.5) is None


def test_more_time_for_images_counted_elsewhere_is_added_and_not_delayed():
    times = StageTimes(1, {"collate": Delay("sleep", 10.0)})
    note(times.writer(0), "collate", 4 * MS, images=2)
    with times.writer(0).stage("collate", images=0):
        time.sleep(0.01)
    reading = times.read()["collate"]
    assert reading.count == 2 and 0.014 <= reading.wall_s < 5


def test_time_before_others_were_done_is_not_the_stages():
    times = StageTimes(1)
    with times.writer(0).stage("hand-off", images=8) as span:
        time.sleep(0.3)
        done_ns = time.perf_counter_ns()
        span.not_before(done_ns)
        time.sleep(0.01)
    assert 0.01 <= times.read()["hand-off"].wall_s <= (time.perf_counter_ns() - done_ns) / 1e9
    asked_ns = time.perf_counter_ns()
    with times.writer(0).stage("pin", images=8) as span:
        span.not_before(asked_ns - 1000 * MS)  # they were done long before it was asked
    assert times.read()["pin"].wall_s <= (time.perf_counter_ns() - asked_ns) / 1e9


@pytest.mark.parametrize("values", ["lognormal", "uniform", "equal"])
def test_quantiles_agree_with_numpy_to_an_eighth(values):
    rng = np.random.default_rng(1)
    wall_ns = {
        "lognormal": rng.lognormal(13, 1.5, 5000),
        "uniform": rng.uniform(200_000, 9_000_000, 5000),
        "equal": np.full(100, 1_234_567.0),
    }[values].astype(np.int64)
    times = StageTimes(1)
    for wall in wall_ns.tolist():
        note(times.writer(0), "decode", wall)
    reading = times.read()["decode"]
    for q in (0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0):
        expected = np.quantile(wall_ns, q, method="inverted_cdf") / 1e9
        assert reading.quantile_s(q) == pytest.approx(expected, rel=0.125), q


def test_buckets_meet_without_gaps_and_hold_every_time():
    starts_ns = [round(bucket_start_s(bucket) * 1e9) for bucket in range(256)]
    assert starts_ns[0] == 0 and starts_ns == sorted(set(starts_ns))
    for bucket in range(1, 256):
        assert bucket_of(starts_ns[bucket]) == bucket and bucket_of(starts_ns[bucket] - 1) == bucket - 1
        assert starts_ns[bucket] <= max(72, 1.126 * starts_ns[bucket - 1])
    assert bucket_of(0) == 0 and bucket_of(10**15) == 255
    assert starts_ns[255] > 200e9


def test_what_came_since_an_earlier_reading():
    times = StageTimes(2)
    note(times.writer(0), "decode", 2 * MS, cpu_ns=MS)
    before = times.read()["decode"]
    note(times.writer(1), "decode", 32 * MS, images=2, cpu_ns=30 * MS)
    since = times.read()["decode"].since(before)
    assert since.count == 2 and since.wall_s == pytest.approx(0.032) and since.cpu_s == pytest.approx(0.030)
    assert since.quantile_s(0.5) == pytest.approx(0.016, rel=0.125)
    assert before.since(None) == before
    assert before.since(before).count == 0 and before.since(before).cpu_s is None


@pytest.mark.parametrize("kind", ["sleep", "spin"])
def test_a_delay_is_obeyed_within_its_stage_and_can_be_changed_at_any_time(kind):
    times = StageTimes(2, {"decode": Delay(kind, 0.03)})
    writer = times.writer(1)

    def passes():
        before = times.read()
        for stage in ("read", "decode", "augment"):
            with writer.stage(stage, images=CPU_EVERY_IMAGES):
                pass
        return {stage: reading.since(before.get(stage)) for stage, reading in times.read().items()}

    first = passes()
    assert first["decode"].wall_s >= 0.24 and first["read"].wall_s < 0.24 and first["augment"].wall_s < 0.24
    assert (first["decode"].cpu_s >= 0.24) == (kind == "spin")
    times.delay("decode", None)
    times.delay("augment", Delay(kind, 0.04))
    second = passes()
    assert second["decode"].wall_s < 0.24 and second["augment"].wall_s >= 0.32


def test_spinning_lets_other_threads_run():
    times = StageTimes(2, {"decode": Delay("spin", 1.0)})  # a busy machine lets the other wake up every 9 ms
    counted = 0

    def spin():
        with times.writer(1).stage("decode"):
            pass

    thread = threading.Thread(target=spin)
    thread.start()
    while thread.is_alive():
        time.sleep(0.001)
        counted += 1
    assert counted > 10


def test_a_delay_reaches_processes_that_run_already():
    times = StageTimes(2)
    context = multiprocessing.get_context("fork")
    changed, done = context.Event(), context.Event()

    def work():
        changed.wait(60)
        with times.writer(1).stage("read"):
            pass
        done.set()

    worker = context.Process(target=work)
    worker.start()
    times.delay("read", Delay("sleep", 0.25))
    changed.set()
    assert done.wait(60)
    worker.join()
    assert times.read()["read"].wall_s >= 0.25


def test_without_stage_times_nothing_is_noted_and_nothing_fails():
    with UNTIMED.stage("decode", 3) as span:
        span.images = 7
        span.not_before(1 << 62)
    with pytest.raises(KeyError), UNTIMED.stage("read"):
        raise KeyError
    assert not UNTIMED.is_on and len(UNTIMED.cells) == 0


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Delay("nap", 0.1), "'nap'.*'sleep' or 'spin'"),
        (lambda: Delay("sleep", 0.0), "more than 0"),
        (lambda: Delay("spin", float("nan")), "more than 0"),
        (lambda: StageTimes(0), "at least 1"),
        (lambda: StageTimes(1).delay("decoding", None), "did you mean decode.*hand-off"),
        (lambda: StageTimes(1, {"forward": Delay("sleep", 1)}), "no stage 'forward'"),
        (lambda: StageTimes(1).writer(0).stage("decoding"), "did you mean decode"),
        (lambda: pickle.dumps(StageTimes(1)), "fork it after"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(make, says):
    with pytest.raises(FeedrateError, match=says) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_elapsed_time_is_the_workers_mean_and_all_of_whoever_asks():
    times = StageTimes(4)
    for number, seconds in enumerate((4, 1, 2, 6)):
        times.writer(number).stage("decode").record(3, seconds * 10**9, None)
    times.writer(0).stage("collate").record(8, 5 * 10**9, None)
    assert times.elapsed_s() == {"decode": 4 + (1 + 2 + 6) / 3, "collate": 5.0}
    assert StageTimes(1).elapsed_s() == {}
