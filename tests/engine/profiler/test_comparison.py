import itertools
from dataclasses import replace

import numpy as np
import pytest
from shown_profiles import bare, full, slower, with_subject

from engine.profiler.record import Rate
from engine.profiler.record_json import write_profile
from engine.profiler.reports.comparison import compare, ratio, read_report, refuse_unlike
from loaders.errors import FeedrateError


def with_ceilings(profile, **changes):
    return replace(profile, ceilings=replace(profile.ceilings, **changes))


def with_shares(profile, **shares):
    """The main rank's stages with other shares of the loop."""
    rank = profile.ranks[0]
    stages = tuple(replace(s, critical_share=shares.get(s.name, s.critical_share)) for s in rank.stages)
    return replace(profile, ranks=(replace(rank, stages=stages), *profile.ranks[1:]))


def test_the_ratios_interval_is_that_of_all_ways_to_draw_the_rounds_again():
    a, b = Rate((100.0, 104.0, 99.0)), Rate((90.0, 97.0, 91.0))
    medians = [[np.median(drawn) for drawn in itertools.product(rate.rounds, repeat=3)] for rate in (a, b)]
    exact = [of_b / of_a for of_a in medians[0] for of_b in medians[1]]
    low, high = np.percentile(exact, (2.5, 97.5))
    got = ratio(a.rounds, b.rounds)
    assert got.value == 91 / 100
    assert (got.low, got.high) == (pytest.approx(low), pytest.approx(high))
    assert got.differs and got.slower_than(0.01) and not got.slower_than(0.05)


def test_two_rounds_have_no_interval_and_never_count_as_slower():
    got = ratio((100.0, 101.0), (50.0, 51.0, 52.0))
    assert (got.low, got.high, got.differs, got.slower_than(0.1)) == (None, None, False, False)


def test_noise_alone_is_rarely_called_slower_and_a_real_loss_nearly_always():
    generator = np.random.default_rng(1)

    def rounds(mean):
        return tuple(mean * (1 + 0.02 * generator.standard_normal(5)))

    same = [ratio(rounds(1000), rounds(1000)).slower_than(0) for _ in range(200)]
    at_the_limit = [ratio(rounds(1000), rounds(950)).slower_than(0.05) for _ in range(200)]
    lost = [ratio(rounds(1000), rounds(880)).slower_than(0.05) for _ in range(200)]
    assert np.mean(same) <= 0.06 and np.mean(at_the_limit) <= 0.06 and np.mean(lost) >= 0.9


def test_of_two_equal_profiles_nothing_differs():
    compared = compare(full(), full())
    assert compared.sentence.startswith("No difference beyond noise: the loop makes 5,050 img/s in A, 5,050 in B")
    assert all(row.ratio.value == 1 and not row.ratio.differs for row in compared.rates)
    assert all(row.difference_us == 0 for row in compared.stages if row.name != "pin")
    assert compared.settings == ()


def test_the_stage_that_grew_is_named_and_stages_add_up_to_the_loops_time():
    a = full()
    # 198 µs an image of which forward has 9.7 % → 10 % more time, all of it in forward
    b = with_ceilings(a, loop=slower(a.ceilings.loop, 1 / 1.1))
    shares = {s.name: s.critical_share / 1.1 for s in a.ranks[0].stages if s.critical_share is not None}
    b = with_shares(b, **{**shares, "forward": (0.097 + 0.1) / 1.1})
    compared = compare(a, b)
    assert compared.sentence.startswith("B's loop is 9.1% slower: 5,050 img/s in A, 4,591 in B")
    assert compared.sentence.endswith("; of 19.8 µs more an image, forward has 19.8 µs.")
    for side, profile in enumerate((a, b)):
        total = sum(row.loop_us[side] for row in compared.stages if row.loop_us[side] is not None)
        assert total == pytest.approx(1e6 / profile.ceilings.loop.median)
    back = compare(b, a)
    assert "10% faster" in back.sentence and back.sentence.endswith("less an image, forward has 19.8 µs.")


def test_a_stages_own_time_is_compared_by_its_rounds_where_both_have_some():
    def with_rounds(profile, rounds):
        rank = profile.ranks[0]
        stages = tuple(replace(s, rounds_us=rounds if s.name == "decode" else ()) for s in rank.stages)
        return replace(profile, ranks=(replace(rank, stages=stages), *profile.ranks[1:]))

    rounds = (100.0, 104.0, 99.0), (150.0, 152.0, 149.0)
    rows = {row.name: row for row in compare(*(with_rounds(full(), own) for own in rounds)).stages}
    assert rows["decode"].wall_ratio == ratio(*rounds) and rows["decode"].wall_ratio.differs
    assert rows["read"].wall_ratio is None
    one_sided = compare(with_rounds(full(), rounds[0]), full()).stages
    assert all(row.wall_ratio is None for row in one_sided)


def test_what_one_side_lacks_is_none_and_not_0():
    compared = compare(full(), bare())
    rates = {row.label: row for row in compared.rates}
    assert rates["cold loader"].b is None and rates["cold loader"].ratio is None
    assert rates["step alone"].ratio.low is None
    stages = {row.name: row for row in compared.stages}
    assert stages["decode"].loop_us[1] is None and stages["decode"].difference_us is None
    assert "pin" not in stages  # neither side saw it
    assert "fewer than 3 rounds" in compared.sentence


def test_settings_and_machines_that_differ_are_listed():
    b = replace(
        full(), config={"seed": 0, "data": {"path": "x", "workers": 8, "order": "block"}}, environment={"cpus": 4}
    )
    named = {name: values for name, *values in compare(full(), b).settings}
    assert named == {
        "data.path": ["data/imagenet-packed", "x"],
        "data.order": ["n/a", "block"],
        "model.name": ["resnet50", "n/a"],
        "machine's cpus": ["16", "4"],
        "machine's gpus": ["['a GPU', 'a GPU']", "None"],
    }


def test_what_was_measured_counts_and_not_how_it_was_asked_for():
    """What "auto" and 0 became on each side; ranks and device stand first, being decisive."""
    asked = replace(full(), config={"loader": "auto", "data": {"workers": 0}, "execution": {"device": "auto"}})
    b = with_subject(
        asked, world_size=1, device="cpu", loader="torchvision", workers=3, stored_bytes=10, memory_bytes=9
    )
    assert compare(asked, b).settings == (
        ("device", "cuda", "cpu"),
        ("ranks", "2", "1"),
        ("data.workers", "8", "3"),
        ("loader", "turbo", "torchvision"),
        ("set fits in memory", "True", "False"),
        ("set's stored bytes", "n/a", "10"),
    )
    named = replace(full(), config={"loader": "turbo", "data": {"workers": 8}, "execution": {"device": "cuda"}})
    assert compare(asked, named).settings == ()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": "resnet18"}, "model (resnet50 and resnet18)"),
        ({"path": "data/cifar10"}, "data (imagenet and cifar10)"),
        ({"num_samples": 5}, "images (1281167 and 5)"),
        ({"split": "val"}, "split (train and val)"),
        ({"size_px": 160}, "image size (224 and 160)"),
    ],
)
def test_other_data_or_models_are_refused_by_name(changes, named):
    with pytest.raises(FeedrateError) as caught:
        refuse_unlike(full(), with_subject(full(), **changes))
    assert named in str(caught.value)


def test_the_same_images_elsewhere_or_packed_and_other_settings_are_compared():
    refuse_unlike(full(), with_subject(full(), path="/mnt/imagenet", workers=2, loader="dali", batch_size=64))


def test_a_report_is_found_by_its_name_or_in_a_runs_folder(tmp_path):
    write_profile(tmp_path / "run" / "profile" / "report.json", full())
    for path in ("run", "run/profile", "run/profile/report.json"):
        assert read_report(tmp_path / path) == full()
    with pytest.raises(FeedrateError, match="holds no profile"):
        read_report(tmp_path)


@pytest.mark.parametrize("rounds", [(), (0.0, 1.0), (-1.0,)])
def test_a_report_with_impossible_rates_is_refused(rounds, tmp_path):
    write_profile(tmp_path / "report.json", with_ceilings(full(), loop=Rate(rounds)))
    with pytest.raises(FeedrateError, match="not rates above 0"):
        read_report(tmp_path)
