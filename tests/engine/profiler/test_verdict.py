"""The verdict over made-up numbers: for every side and stage, above and below the slack, on one rank and on several."""

import re
from dataclasses import asdict, replace

import pytest
from made_profiles import SUBJECT, ceilings, profile, rank, rate, stage

from engine.augment.augment_config import AugmentConfig
from engine.config import Config, DataConfig, ExecutionConfig, ModelConfig, OptimConfig
from engine.profiler.bootstrap import chance_above
from engine.profiler.record import COMPUTE_STAGES, STAGES, Rate
from engine.profiler.reports.report_rows import notes
from engine.profiler.verdict import judge

WORKERS = SUBJECT.workers
# of an image, µs: in a worker, of which there are 2; in the loop
IN_WORKERS = {"read": 40.0, "decode": 90.0, "augment": 60.0}
IN_LOOP = {"collate": 3.0, "hand-off": 2.0, "pin": 4.0, "copy": 5.0}
COMPUTED = {"prepare": 10.0, "forward": 30.0, "backward": 50.0, "sync": 8.0, "clip": 2.0, "optimizer": 7.0}


def stages(**us):
    """Every stage, the times of some changed: "hand_off" stands for "hand-off"."""
    changed = {name.replace("_", "-"): value for name, value in us.items()}
    rows = []
    for where, times in (("worker", IN_WORKERS), ("loop", IN_LOOP), ("device", COMPUTED)):
        for name, usual in times.items():
            wall = changed.get(name, usual)
            at_once = WORKERS if where == "worker" else 1
            rounds = tuple(wall * factor for factor in (0.98, 1.0, 1.02))
            rows.append(stage(name, where, wall, ceiling=1e6 * at_once / wall, cpu_us=wall, rounds_us=rounds))
    return rows


def loading(rows):
    """What a loader of these stages gives alone, img/s."""
    in_workers = sum(row.wall_us for row in rows if row.name in IN_WORKERS) / WORKERS
    return 1e6 / max(in_workers, sum(row.wall_us for row in rows if row.name in IN_LOOP))


def computing(rows):
    return 1e6 / sum(row.wall_us for row in rows if row.name in COMPUTED)


def on_gpu(rows, **changes):
    """A loop in which loading and computing hide behind each other."""
    load, step = loading(rows), computing(rows)
    return profile(ceilings(step, load, min(load, step) * 0.99, **changes), rank(stages=rows))


def on_cpu(rows, loop, **changes):
    measured = profile(ceilings(computing(rows), loading(rows), loop, **changes), rank(stages=rows))
    return replace(measured, subject=replace(SUBJECT, device="cpu"))


@pytest.mark.parametrize("name", [name for name in STAGES if name not in ("copy", "other")])
def test_a_stage_that_is_slow_beyond_the_slack_is_named(name):
    verdict = judge(on_gpu(stages(**{name.replace("-", "_"): 1000.0})))
    assert verdict.bottleneck == name
    assert verdict.side == ("compute" if name in COMPUTE_STAGES else "data")
    assert verdict.sentence.startswith(f"{name[0].upper()}{name[1:]}-bound: ")
    assert verdict.confidence >= 0.95 and verdict.margin > 2 and verdict.slow_rank is None
    assert "\n" not in verdict.sentence


@pytest.mark.parametrize(("seen_share", "named"), [(0.9, "collate"), (0.4, "collate"), (0.3, "inconclusive")])
def test_the_heaviest_of_what_a_loader_shows_is_named_only_where_that_is_most_of_what_it_does(seen_share, named):
    (collate,) = [row for row in stages(collate=1000.0) if row.name == "collate"]
    rows = [collate, *(row for row in stages() if row.name in COMPUTED)]
    alone = seen_share * 1e6 / 1000
    measured = profile(ceilings(computing(rows), alone, alone), replace(rank(stages=rows), seen_us=1000.0))
    verdict = judge(measured)
    assert (verdict.bottleneck, verdict.side) == (named, "data")
    assert ("shows (collate) are 30% of its time" in verdict.sentence) == (named == "inconclusive")
    # and where the step limits, the loader's next one is not known either
    slow = [replace(row, wall_us=9000.0, rounds_us=()) if row.name == "forward" else row for row in rows]
    other = judge(replace(measured, ceilings=ceilings(computing(slow), alone, computing(slow)), ranks=(
        replace(measured.shown_rank, stages=tuple(slow)),)))  # fmt: skip
    assert other.bottleneck == "forward" and other.runner_up == ("collate" if named == "collate" else "")


@pytest.mark.parametrize("name", sorted({**IN_WORKERS, **IN_LOOP}))
def test_a_delay_that_hides_behind_the_step_changes_nothing(name):
    usual = stages(forward=300.0)  # the step takes 377 µs, the loader 95
    slower = stages(forward=300.0, **{name.replace("-", "_"): 150.0})
    assert loading(slower) > 1.3 * computing(slower)
    assert judge(on_gpu(usual)).bottleneck == judge(on_gpu(slower)).bottleneck == "forward"


@pytest.mark.parametrize("name", [name for name in COMPUTED if name != "backward"])
def test_a_delay_that_hides_behind_the_loader_changes_nothing(name):
    usual, slower = stages(decode=900.0), stages(decode=900.0, **{name: 150.0})
    assert computing(slower) > 1.3 * loading(slower)
    assert judge(on_gpu(usual)).bottleneck == judge(on_gpu(slower)).bottleneck == "decode"


def test_feeding_is_named_where_it_alone_holds_the_step_back():
    rows = stages()
    step, load = computing(rows), loading(rows)
    fed = profile(ceilings(10 * step, load, 0.5 * load, fed=rate(0.5 * load)), rank(stages=rows))
    verdict = judge(fed)
    assert (verdict.bottleneck, verdict.side) == ("copy", "copy")
    assert verdict.ceiling == pytest.approx(0.5 * load)
    not_slower = ceilings(10 * step, load, 0.99 * load, fed=rate(10 * step))
    assert judge(replace(fed, ceilings=not_slower)).bottleneck == "decode"


def test_copying_is_no_stage_of_a_loader_that_is_measured_without_it():
    """All of 10 ms is the loop's thread's own, but for the copy, which goes on beside it."""
    rows = stages(collate=200.0, hand_off=300.0, copy=400.0)
    alone, copied = 1e6 / (200 + 300 + 4), 1e6 / 400
    beside = profile(ceilings(20_000, alone, 0.99 * alone, fed=rate(copied)), rank(stages=rows))
    assert (judge(beside).bottleneck, judge(beside).side, judge(beside).runner_up) == ("hand-off", "data", "copy")
    # one that does not copy whole batches from the host has it among its own
    within = 1e6 / (200 + 300 + 4 + 400)
    own = judge(profile(ceilings(20_000, within, 0.99 * within), rank(stages=rows)))
    assert (own.bottleneck, own.side) == ("copy", "data")
    assert own.advice[0].gain == pytest.approx(904 / 504 / 0.99, rel=0.001)


def test_two_ceilings_that_are_close_or_noisy_get_no_name():
    rows = stages()
    for step, load, spread in ((1000, 1030, 0.02), (1030, 1000, 0.02), (1000, 700, 0.9), (700, 1000, 0.9)):
        loop = 0.95 * min(step, load)
        bounds = ceilings(step, load, loop, step=rate(step, spread), loader={2: replace(rate(load, spread))})
        reversed_rounds = replace(bounds.step, rounds=bounds.step.rounds[::-1])
        verdict = judge(profile(replace(bounds, step=reversed_rounds), rank(stages=rows)))
        assert (verdict.bottleneck, verdict.side) == ("inconclusive", None)
        assert all(advice.gain is None for advice in verdict.advice)
        assert verdict.sentence.endswith("Only both together would make it faster.")


def test_rounds_that_slow_down_together_are_compared_in_pairs():
    slowing = (1000.0, 700.0, 500.0, 350.0, 250.0)
    faster = tuple(1.2 * value for value in slowing)
    assert chance_above(faster, slowing, 1.05) == 1
    assert chance_above(faster[::-1], slowing, 1.05) < 0.95
    assert chance_above(faster, slowing, 1.25) == 0


def test_of_few_rounds_the_difference_must_be_larger_since_they_soon_agree_by_accident():
    few = {"step": rate(1000, 0.01, rounds=2)}
    for times, named in ((1.1, False), (1.5, True)):
        bounds = ceilings(0, 0, 650, **few, loader={2: rate(1000 / times, 0.01, rounds=2)})
        assert (judge(profile(bounds, rank(stages=stages()))).side == "data") is named


def test_two_stages_that_weigh_alike_leave_the_side_without_a_stage():
    verdict = judge(on_gpu(stages(decode=400.0, augment=405.0)))
    assert (verdict.bottleneck, verdict.side) == ("inconclusive", "data")
    assert verdict.runner_up in ("decode", "augment")


def test_workers_share_their_stages_and_the_loop_does_not():
    """100 µs in the loop's one thread hold it back more than 150 in each of 2 workers."""
    rows = stages(read=10.0, decode=100.0, augment=40.0, hand_off=100.0)
    assert loading(rows) == pytest.approx(1e6 / 112)
    assert judge(on_gpu(rows, step=rate(90_000))).bottleneck == "hand-off"


def test_a_loader_that_shows_no_stages_is_still_told_to_be_the_slower():
    measured = profile(ceilings(1000, 400, 395), rank(stages=[stage("decode", wall_us=None, note="opaque")]))
    verdict = judge(measured)
    assert (verdict.bottleneck, verdict.side, verdict.margin) == ("inconclusive", "data", pytest.approx(2.5))
    assert verdict.sentence.startswith("Data-bound: ") and "cannot be seen" in verdict.sentence


@pytest.mark.parametrize("name", ["read", "decode", "augment", "forward", "backward", "optimizer"])
def test_on_shared_processors_the_stage_with_the_most_processor_time_is_named(name):
    rows = stages(**{name: 500.0})
    load, step = loading(rows), computing(rows)
    both = 1 / (1 / load + 1 / step)
    verdict = judge(on_cpu(stages(**{name: 500.0}), min(both, 0.8 * min(load, step))))
    assert (verdict.bottleneck, verdict.side) == (name, "shared processors")


def test_on_a_cpu_whose_loader_only_waits_the_loader_is_named():
    """Reading that sleeps takes no processor from the step: the loop is as fast as the loader alone."""
    rows = [replace(row, cpu_us=1.0) if row.name == "read" else row for row in stages(read=3000.0)]
    assert judge(on_cpu(rows, 0.99 * loading(rows))).bottleneck == "read"


def using(measured, cpus, **changes):
    """The same profile of a run that used so many of its two processors."""
    one = measured.ranks[0]
    return replace(measured, ranks=(replace(one, resources=replace(one.resources, cpus_used=cpus), **changes),))


def test_processors_that_others_use_are_not_called_shared_and_no_side_is_named_for_them():
    """The loop falls below both ceilings, but not because of what the run itself asks of the processors."""
    rows = stages(decode=500.0)
    measured = on_cpu(rows, 0.6 * loading(rows))
    assert judge(measured).side == "shared processors"
    verdict = judge(using(measured, 0.4))
    assert (verdict.bottleneck, verdict.side) == ("inconclusive", None)
    assert verdict.runner_up == "decode" and verdict.margin > 2
    assert "neither explains 40% of its time. The run itself uses 20% of the processors." in verdict.sentence
    assert "only both together" not in verdict.sentence.lower() and "-bound" not in verdict.sentence
    assert all(advice.gain is None for advice in verdict.advice)


def test_a_loop_far_below_both_ceilings_of_a_device_is_held_up_by_neither():
    rows = stages(decode=900.0)
    load = loading(rows)
    for share, named in ((0.9, "decode"), (0.6, "inconclusive")):
        verdict = judge(profile(ceilings(computing(rows), load, share * load), rank(stages=rows)))
        assert verdict.bottleneck == named
    assert "neither explains 40% of its time" in verdict.sentence
    # where the rounds differ that much nobody can be sure, and the slower side is named
    noisy = rate(0.6 * load, spread=1.6)
    assert judge(profile(ceilings(computing(rows), load, 0, loop=noisy), rank(stages=rows))).bottleneck == "decode"


def test_close_ceilings_far_above_the_loop_are_not_said_to_hold_it_up_together():
    rows = stages()
    bounds = ceilings(1000, 1030, 0, loop=rate(600, spread=1.6))
    sentence = judge(profile(bounds, rank(stages=rows))).sentence
    assert sentence.startswith("Inconclusive: the step at 1,000") and "Only both" not in sentence
    assert sentence.endswith("It may be something else that holds it up.")


def test_even_shared_processors_explain_only_so_much():
    """Two workers and two threads of the step on two processors get half of them each, and lose some of that."""
    rows = stages(decode=500.0)
    both = 1 / (1 / loading(rows) + 1 / computing(rows))
    assert judge(on_cpu(rows, 0.7 * both)).side == "shared processors"
    verdict = judge(on_cpu(rows, 0.4 * both))
    assert (verdict.bottleneck, verdict.side) == ("inconclusive", None)


def test_what_the_loops_own_thread_does_for_the_loader_comes_on_top_of_the_step():
    rows = stages(collate=300.0, forward=100.0)
    load, step = loading(rows), computing(rows)
    together = 1 / (1 / load + 1 / step)  # 309 and 177 µs
    assert together < 0.7 * load
    assert judge(using(on_cpu(rows, 0.97 * together), 0.4)).bottleneck == "collate"
    assert judge(using(on_cpu(rows, 0.7 * together), 0.4)).bottleneck == "inconclusive"


@pytest.mark.parametrize("kind", ["a loader that does not tell what is ready", "resizing on the device"])
def test_batches_that_are_made_when_they_are_asked_for_take_their_time_beside_the_step(kind):
    rows = stages(decode=500.0)
    load, step = loading(rows), computing(rows)
    measured = on_gpu(rows, loop=rate(0.97 / (1 / load + 1 / step)))
    assert judge(measured).bottleneck == "inconclusive"  # nothing else is made ahead of
    if kind == "resizing on the device":
        measured = replace(measured, subject=replace(measured.subject, resize="device"))
    else:
        one = measured.ranks[0]
        measured = replace(measured, ranks=(replace(one, queue=replace(one.queue, ready=None)),))
    assert judge(measured).bottleneck == "decode"


def with_rest(rows, of_rest, of_read=0.1):
    """Shares of the loop's time: `of_rest` is in no stage."""
    shares = {"read": of_read, "other": of_rest}
    busy = sum(row.wall_us for row in rows if row.name in COMPUTED)
    left = 1 - of_read - of_rest
    rows = [
        replace(row, critical_share=left * row.wall_us / busy) if row.name in COMPUTED else row
        for row in [*rows, stage("other", "loop", None)]
    ]
    return [replace(row, critical_share=shares.get(row.name, row.critical_share)) for row in rows]


def test_what_is_in_no_stage_is_named_where_it_is_most_of_a_loop_far_below_both_ceilings():
    rows = stages(decode=500.0)
    load, step = loading(rows), computing(rows)
    for of_rest, named in ((0.6, "other"), (0.2, "inconclusive")):
        measured = profile(ceilings(step, load, 0.5 * load), rank(stages=with_rest(rows, of_rest)))
        verdict = judge(measured)
        assert (verdict.bottleneck, verdict.side) == (named, None)
    verdict = judge(profile(ceilings(step, load, 0.5 * load), rank(stages=with_rest(rows, 0.6))))
    assert verdict.sentence.startswith("Other-bound: ") and "other is 60% of its time" in verdict.sentence
    assert verdict.advice[0].gain == pytest.approx(2, rel=0.01) and "--average.ema-every-updates" in (
        verdict.advice[0].text
    )


def test_what_comes_after_every_step_is_named_where_it_is_the_longest_part_of_a_slow_step():
    """Averages of the weights are in the step alone, too, and in no stage of it."""
    rows = stages()  # backward takes 50 of 107 µs
    for of_rest, named in ((0.2, "backward"), (0.5, "other")):
        shared = with_rest(rows, of_rest, of_read=0.0)
        step = 1e6 * (1 - of_rest) / 107
        verdict = judge(profile(ceilings(step, 30_000, 0.99 * step), rank(stages=shared)))
        assert (verdict.bottleneck, verdict.side) == (named, "compute")
    assert verdict.advice[0].gain == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize(("of_rest", "of_step", "named"), [(0.1, 0.88, "backward"), (0.55, 0.3, "other")])
def test_a_gain_is_no_more_than_the_share_of_the_loop_that_is_told_beside_it(of_rest, of_step, named):
    """The step alone was measured in turns of their own, in which this machine was faster."""
    rows = with_rest(stages(), of_rest, of_read=0.0)
    share = max(row.critical_share for row in rows if row.critical_share is not None)
    step = computing(rows)
    verdict = judge(profile(ceilings(step, 30_000, of_step * step), rank(stages=rows)))
    assert verdict.bottleneck == named and f"{named} is {share:.0%} of its time" in verdict.sentence
    assert verdict.advice[0].text.startswith(named)
    assert verdict.advice[0].gain == pytest.approx(1 / (1 - share))


def test_what_is_left_of_a_loop_whose_loader_is_not_seen_is_not_named():
    rows = [replace(row, critical_share=None) if row.name == "read" else row for row in with_rest(stages(), 0.8)]
    measured = profile(ceilings(9000, 4000, 1000), rank(stages=rows))
    assert judge(measured).bottleneck == "inconclusive"


def test_two_equal_costs_on_the_same_cores_get_no_stage_but_the_side():
    rows = stages(decode=200.0, forward=205.0)
    verdict = judge(on_cpu(rows, 0.5 * min(loading(rows), computing(rows))))
    assert (verdict.bottleneck, verdict.side) == ("inconclusive", "shared processors")


def cold(rows, stored_gb, loop_cold):
    measured = on_gpu(rows, loop_cold=rate(loop_cold), cold=rate(loop_cold), cold_share=1.0)
    return replace(measured, subject=replace(SUBJECT, stored_bytes=round(stored_gb * 1e9), memory_bytes=10**10))


def test_a_set_larger_than_memory_waits_for_reading_where_the_cold_loop_is_slower():
    rows = stages(decode=900.0)
    slow, same = loading(rows) / 3, loading(rows)
    assert judge(cold(rows, 20, same)).bottleneck == "decode"
    verdict = judge(cold(rows, 20, slow))
    assert (verdict.bottleneck, verdict.side, verdict.runner_up) == ("read", "data", "decode")
    assert verdict.advice[0].gain == pytest.approx(0.99 * 3, rel=0.01)
    # 20 GB cannot be kept in 10, and a sweep in memory says nothing of storage
    assert len(verdict.advice) == 1 and "--data.page-cache" not in verdict.advice[0].text
    assert "the set takes 20.0 GB, more than the 10.0 GB of memory" in verdict.sentence


def test_the_sizes_of_a_small_set_under_a_small_limit_are_told_apart():
    measured = cold(stages(decode=900.0), 20, 100.0)
    small = replace(measured.subject, stored_bytes=52_400_000, memory_bytes=31_000_000)
    assert "takes 52.4 MB, more than the 31.0 MB of memory" in judge(replace(measured, subject=small)).sentence


def slowed(measured, factor):
    """The same profile of a machine so many times as slow."""
    bounds = measured.ceilings
    slow = {
        name: None if old is None else Rate(tuple(value / factor for value in old.rounds))
        for name, old in (("step", bounds.step), ("loop", bounds.loop), ("loop_cold", bounds.loop_cold))
    }
    loaders = {number: Rate(tuple(value / factor for value in old.rounds)) for number, old in bounds.loader.items()}
    return replace(measured, ceilings=replace(bounds, loader=loaders, **slow))


@pytest.mark.parametrize("factor", [1e4, 1e6])
@pytest.mark.parametrize(
    "measured",
    [
        on_gpu(stages(decode=900.0)),
        on_gpu(stages(forward=900.0)),
        on_gpu(stages(forward=85.0)),  # neither side is clearly the lower
        on_cpu(stages(), 0.5 * loading(stages())),
        cold(stages(decode=900.0), 20, 300.0),
        cold(stages(decode=900.0), 5, 300.0),
    ],
)
def test_a_rate_far_below_one_image_a_second_is_never_told_as_none(measured, factor):
    usual, sentence = judge(measured), judge(slowed(measured, factor)).sentence
    assert judge(slowed(measured, factor)).bottleneck == usual.bottleneck
    assert re.search(r"\b0\.\d\d\b|<0\.01", sentence)
    assert not re.search(r"(?<![\d.,<])0(?![\d.,%])|\b0 img/s", sentence), sentence


def test_a_slow_rank_far_below_one_image_a_second_has_a_rate_too():
    measured, _ = together(ranks_of("forward", 4e7))
    assert "keep the run at 0.05 img/s" in judge(measured).sentence


def test_of_a_set_that_memory_holds_only_the_first_epoch_reads():
    rows = stages(decode=900.0)
    verdict = judge(cold(rows, 5, loading(rows) / 3))
    assert verdict.bottleneck == "decode"
    assert f"in the first epoch, it is {loading(rows) / 3:,.0f}" in verdict.sentence


def ranks_of(slow_stage, slower_us, data_wait_us=(0.0, 0.0)):
    """Two ranks alike but for one stage of rank 1, and for what each waits for data."""
    found = []
    for number in range(2):
        rows = [
            row for row in stages(**({slow_stage: slower_us} if number and slow_stage else {})) if row.name != "sync"
        ]
        own = sum(row.wall_us for row in rows if row.name in COMPUTED) + data_wait_us[number]
        rows.append(stage("sync", "device", 500.0))
        one = rank(number, own, rows)
        found.append(
            replace(one, data_wait_share=data_wait_us[number] / own, own_rounds_us=(own * 0.99, own, own * 1.01))
        )
    return found


def together(ranks):
    rows = ranks[0].stages
    slowest = max(one.own_us for one in ranks)
    bounds = ceilings(2e6 / slowest, 2 * loading(stages()) * 5, 2e6 / slowest, no_sync=rate(2e6 / slowest))
    return replace(profile(bounds, *ranks), subject=replace(SUBJECT, world_size=2)), rows


@pytest.mark.parametrize("name", ["prepare", "forward", "backward", "optimizer"])
def test_a_slow_rank_is_named_by_its_own_stage_and_not_called_sync(name):
    measured, _ = together(ranks_of(name, 400.0))
    verdict = judge(measured)
    assert (verdict.slow_rank, verdict.bottleneck, verdict.side) == (1, name, "compute")
    assert "on rank 1" in verdict.sentence and verdict.margin > 3


def test_a_rank_with_slow_data_is_named_by_the_loaders_stage():
    measured, _ = together(ranks_of("read", 900.0, (2.0, 400.0)))
    verdict = judge(measured)
    assert (verdict.slow_rank, verdict.bottleneck, verdict.side) == (1, "read", "data")


def test_ranks_that_are_alike_are_not_told_apart_and_their_exchange_is():
    measured, _ = together(ranks_of(None, 0.0))
    verdict = judge(measured)
    assert (verdict.slow_rank, verdict.bottleneck, verdict.side) == (None, "sync", "compute")


def test_a_rank_that_is_slow_in_some_rounds_only_is_not_called_slow():
    measured, _ = together(ranks_of(None, 0.0))
    noisy = replace(measured.ranks[1], own_us=160.0, own_rounds_us=(60.0, 160.0, 99.0))
    verdict = judge(replace(measured, ranks=(measured.ranks[0], noisy)))
    # nor is a stage that both have named while it may be the rank
    assert (verdict.slow_rank, verdict.bottleneck, verdict.side) == (None, "inconclusive", None)
    assert "rank 1 may be slow" in verdict.sentence and 0.05 < verdict.confidence < 0.95


def test_advice_stands_in_order_of_what_the_next_ceiling_allows():
    rows = stages(decode=900.0, augment=300.0)
    verdict = judge(on_gpu(rows, loader={2: rate(loading(rows)), 4: rate(1.5 * loading(rows))}))
    step, load = computing(rows), loading(rows)
    without_decode = min(step, load * (900 + 300 + 40) / (300 + 40))
    without_augment = min(step, load * (900 + 300 + 40) / (900 + 40))
    gains = [advice.gain * 0.99 * load for advice in verdict.advice]
    assert gains == pytest.approx(sorted([without_decode, 1.5 * load, without_augment], reverse=True), rel=0.001)
    assert verdict.advice[1].text == "4 workers in place of 2 (--data.workers 4)"
    assert verdict.advice[0].text.startswith("decode: ")


@pytest.mark.parametrize(
    ("slow", "option", "other", "had"),
    [
        ("forward", "--execution.precision bf16", ModelConfig(), ExecutionConfig(precision="bf16")),
        ("backward", "--execution.compile", ModelConfig(), ExecutionConfig(compile=True)),
        ("optimizer", "--optim.name sgd", OptimConfig(name="adamw"), OptimConfig()),
        ("clip", "--optim.clip-norm 0", OptimConfig(clip_norm=1.0), OptimConfig(clip_value=1.0)),
        ("clip", "--optim.clip-value 0", OptimConfig(clip_value=1.0), OptimConfig(clip_norm=1.0)),
        ("read", "--data.order block", DataConfig(), DataConfig(order="block")),
        ("read", "--data.page-cache memory", DataConfig(), DataConfig(page_cache="memory")),
        ("prepare", "fewer augmentations", AugmentConfig(mixup_alpha=0.2), AugmentConfig()),
        ("prepare", "fewer augmentations", AugmentConfig(shift_px=2), AugmentConfig()),
        ("augment", "--data.resize area", DataConfig(resize="exact"), DataConfig()),
        ("augment", "--data.resize device", DataConfig(), DataConfig(resize="device")),
    ],
)
def test_what_is_set_already_is_not_advised(slow, option, other, had):
    def advised(settings):
        names = {ExecutionConfig: "execution", OptimConfig: "optim", DataConfig: "data", AugmentConfig: "augment"}
        section = names.get(type(settings), "model")
        measured = replace(on_gpu(stages(**{slow: 1000.0})), config=asdict(Config(**{section: settings})))
        verdict = judge(measured)
        assert verdict.bottleneck == slow
        return verdict.advice[0].text

    assert option in advised(other) and option not in advised(had)


def test_of_a_set_larger_than_memory_reading_by_blocks_is_not_advised_where_it_is_set():
    measured = cold(stages(decode=900.0), 20, 100.0)
    assert "--data.order block" in judge(measured).advice[0].text
    by_blocks = replace(measured, config=asdict(Config(data=DataConfig(order="block"))))
    assert "--data.order block" not in judge(by_blocks).advice[0].text


@pytest.mark.parametrize(("others", "says"), [(None, ""), (0.05, ""), (0.4, "note"), (1.3, "uncertain")])
def test_what_other_programs_used_is_said_and_much_of_it_lowers_the_confidence(others, says):
    measured = on_gpu(stages(decode=900.0))
    alone = judge(measured)
    beside = replace(measured, others_cpus=others)
    beside = replace(beside, verdict=judge(beside))
    verdict = beside.verdict
    assert verdict.bottleneck == alone.bottleneck == "decode"
    told = f"other programs used {others} of 2 processors meanwhile"
    assert (told in notes(beside)) == (says == "note")
    assert (f"Uncertain: {told}" in verdict.sentence) == (says == "uncertain")
    left = 0.35 if says == "uncertain" else 1
    assert verdict.confidence == pytest.approx(alone.confidence * left)


def test_more_workers_are_not_advised_where_they_bring_nothing():
    rows = stages(decode=900.0)
    verdict = judge(on_gpu(rows, loader={2: rate(loading(rows)), 4: rate(1.02 * loading(rows))}))
    assert not any("workers in place" in advice.text for advice in verdict.advice)


def test_what_would_limit_next_is_the_runner_up():
    assert judge(on_gpu(stages(decode=900.0))).runner_up == "backward"  # the loader would then outrun the step
    assert judge(on_gpu(stages(decode=900.0, augment=800.0))).runner_up == "augment"


@pytest.mark.parametrize(("of_decode", "told"), [(0.6, True), (0.06, False)])
def test_the_share_of_the_loop_is_told_where_it_is_the_most_and_not_where_it_hides_behind_computing(of_decode, told):
    shares = {"decode": of_decode, "forward": 0.4}
    rows = [replace(row, critical_share=shares.get(row.name)) for row in stages(decode=1000.0)]
    sentence = judge(on_gpu(rows)).sentence
    assert sentence.startswith("Decode-bound") and ("decode is 60% of its time" in sentence) is told
    assert ("of its time" in sentence) is told
