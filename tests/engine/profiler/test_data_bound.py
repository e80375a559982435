"""When a run is called data-bound, and what is said then."""

import pytest

from engine.profiler.data_bound import NUM_INTERVALS, SHARE, DataBound, DataBoundWatch, warning
from engine.profiler.meter import Reading
from engine.profiler.remedies import Run, remedies


def interval(wait_share, seconds=10.0, first_batch_s=0.0, first_step_s=0.0, num_images=100, num_first_images=0):
    """An interval whose waiting, beside a first batch's, is that share of the time without first batch and step."""
    wait_s = first_batch_s + wait_share * seconds
    return Reading(
        seconds + first_batch_s + first_step_s, num_images, wait_s, first_batch_s, first_step_s, num_first_images
    )


WAITING, FINE = interval(SHARE + 0.1), interval(SHARE - 0.01)


def test_it_speaks_once_after_several_intervals_in_a_row():
    watch = DataBoundWatch()
    said = [watch.note(WAITING, {}) is not None for _ in range(4 * NUM_INTERVALS)]
    assert said == [number == NUM_INTERVALS - 1 for number in range(4 * NUM_INTERVALS)]


def test_an_interval_in_which_it_does_not_wait_ends_the_row():
    watch = DataBoundWatch()
    row = [*[WAITING] * (NUM_INTERVALS - 1), FINE] * 5
    assert all(watch.note(recent, {}) is None for recent in row)
    assert [watch.note(WAITING, {}) is not None for _ in range(NUM_INTERVALS)][-1]


def test_an_epochs_start_does_not_count():
    watch = DataBoundWatch()
    starting = interval(0.0, first_batch_s=60.0, first_step_s=1.0, num_first_images=8)
    nothing_else = interval(0.0, seconds=0.0, first_batch_s=60.0, first_step_s=1.0, num_images=8, num_first_images=8)
    assert all(watch.note(starting, {}) is None for _ in range(2 * NUM_INTERVALS))
    # an interval that is all start neither adds to a row nor ends it
    row = [WAITING, nothing_else] * NUM_INTERVALS
    assert [watch.note(recent, {}) is not None for recent in row].index(True) == 2 * (NUM_INTERVALS - 1)


def test_waiting_that_a_gpu_works_through_does_not_count():
    watch = DataBoundWatch()
    busy = Reading(10.0, 100, 8.0, 0.0, step_s=9.0)
    assert all(watch.note(busy, {}) is None for _ in range(2 * NUM_INTERVALS))


def test_the_costliest_stage_is_that_of_the_row():
    watch = DataBoundWatch()
    watch.note(FINE, {"read": 100.0, "decode": 1.0})
    for number in range(1, NUM_INTERVALS):
        watch.note(WAITING, {"read": 100.0 + number, "decode": 1.0 + 3 * number})
    found = watch.note(WAITING, {"read": 100.0 + NUM_INTERVALS, "decode": 1.0 + 3 * NUM_INTERVALS})
    assert found.wait_share == pytest.approx(SHARE + 0.1)
    assert (found.stage, found.stage_share) == ("decode", 0.75)


@pytest.mark.parametrize(
    ("stage", "loader", "cpu_share", "named", "not_named"),
    [
        ("decode", "torchvision", 0.95, ["--loader turbo", "--preset 256", "--write-mode raw"], ["--data.workers"]),
        ("decode", "turbo", 0.95, ["--preset 256"], ["--loader turbo", "--data.workers"]),
        ("decode", "turbo", 0.5, ["more --data.workers than 3, since 50% of the processors are idle"], []),
        ("read", "turbo", 0.95, ["--data.page-cache memory", "--data.order block", "faster disk"], ["--loader turbo"]),
        ("copy", "turbo", 0.1, ["--loader resident"], ["--data.workers"]),
        ("collate", "turbo", 0.95, ["collate takes most (80%)"], ["; try"]),
    ],
)
def test_the_warning_names_the_stage_and_what_would_help_there(stage, loader, cpu_share, named, not_named):
    other = "augment" if stage != "augment" else "read"
    text = warning(DataBound(0.34, {stage: 4.0, other: 1.0}), Run(loader), 3, cpu_share)
    assert "data-bound: it waits for images 34% of its time" in text
    assert f"{stage} takes most (80%)" in text and "tools/profile.py" in text
    assert all(words in text for words in named) and not any(words in text for words in not_named)


def test_what_the_warning_proposes_are_options_that_there_are():
    from engine.config import Config
    from engine.option_names import option_names
    from engine.profiler.record import STAGES

    words = [word for stage in STAGES for remedy in remedies(stage, Run("any")) for word in remedy.split()]
    options = {word.strip("(),") for word in words if word.strip("(").startswith("--")}
    of_convert = {"--preset", "--write-mode"}
    assert options >= of_convert and options - of_convert <= set(option_names(Config))


def test_a_loader_without_stages_is_said_to_show_none():
    text = warning(DataBound(0.5, {}), Run("mine"), 2, 0.1)
    assert "loader 'mine' shows no stages" in text and "tools/profile.py" in text


def test_where_the_stages_shown_cannot_have_taken_the_waiting_none_is_blamed():
    watch = DataBoundWatch()
    watch.note(FINE, {"collate": 1.0})
    for _ in range(NUM_INTERVALS):
        found = watch.note(WAITING, {"collate": 1.25})
    assert found.wait_s == pytest.approx(9.0)
    text = warning(found, Run("mine:Mine"), 2, 0.9)
    assert "(collate) took 0.2 s while it waited 9.0 s" in text and "takes most" not in text
    assert "--loader turbo" in text and "noting what it does" in text
    assert "noting" not in warning(found, Run("dali"), 2, 0.9)
