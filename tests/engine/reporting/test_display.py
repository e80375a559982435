"""The lines a run says while it trains."""

from io import StringIO

from rich.console import Console

from engine.reporting.display import FIRST_LINE_S, LINE_EVERY_S, Display, summary_line

RECORD = {
    "epoch": 1,
    "train_loss": 1.25,
    "train_top1": 0.5,
    "eval_top1": 0.625,
    "eval_top5": 0.75,
    "seconds": 3.0,
    "images_per_s": 1234.0,
    "data_wait_share": 0.25,
    "resources": {"gpu_memory_bytes": None, "memory_bytes": 2e9, "cpu_share": 0.5},
}


def test_an_epoch_in_one_line():
    assert summary_line(RECORD, 4) == (
        "epoch 2/4  loss 1.250  train top-1 50.0%  eval top-1 62.5% top-5 75.0%  3.0 s  1,234 img/s  data-wait 25%"
        "  RAM 2.0 GB, CPU 50%"
    )


def test_an_epoch_that_was_only_evaluated_has_no_speed():
    resources = {**RECORD["resources"], "cpu_share": None}
    line = summary_line({**RECORD, "images_per_s": None, "data_wait_share": None, "resources": resources}, 4)
    assert line.endswith("  eval top-1 62.5% top-5 75.0%  RAM 2.0 GB")


def test_averages_stand_beside_the_raw_weights():
    assert "top-5 75.0%  ema top-1 60.0%  3.0 s" in summary_line({**RECORD, "eval_ema_top1": 0.6}, 4)


def test_the_bar_shows_the_rate_of_all_ranks_as_it_is_logged():
    display = Display(is_main=True)
    display.console = Console(file=StringIO(), force_terminal=True, width=120)
    display.start_epoch(0, 2, 0, 10)
    display.step(None)
    display.step({"images_per_s": 8000.0, "data_wait_share": 0.25})
    display.end_epoch()
    told = display.console.file.getvalue()
    assert "epoch 1/2" in told and "2/10" in told and "8,000 img/s, data-wait 25%" in told


STEP = {"loss": 6.9, "learning_rate": 0.0125, "images_per_s": 8000.0, "data_wait_share": 0.25}


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


def display_of(clock, is_main=True, is_terminal=False):
    display = Display(is_main, clock)
    display.console = Console(file=StringIO(), force_terminal=is_terminal, width=120, soft_wrap=True, highlight=False)
    return display


def lines_of(display):
    return display.console.file.getvalue().splitlines()


def test_without_a_terminal_a_line_now_and_then_says_where_the_epoch_stands():
    clock = Clock()
    display = display_of(clock)
    display.start_epoch(0, 3, 0, 1000)
    for step in range(1, 101):  # a second each
        clock.now_s += 1
        display.step(STEP if step % 20 == 0 else None)
    display.end_epoch()
    first, second, third, fourth = lines_of(display)
    assert first == "step 10/1,000 of epoch 1/3  50 min of training left"  # nothing was logged yet
    figures = "  loss 6.900  learning rate 0.0125  8,000 img/s  data-wait 25%"
    assert second == f"step 40/1,000 of epoch 1/3{figures}  49 min of training left"
    assert [line.split("/")[0] for line in (third, fourth)] == ["step 70", "step 100"]


def test_the_time_that_is_left_leaves_out_what_the_loaders_start_took_and_what_was_done_before():
    clock = Clock()
    display = display_of(clock)
    display.start_epoch(1, 2, 900, 1000)  # taken up in the last epoch
    clock.now_s += 8
    display.step(None)
    clock.now_s += 2
    display.step(None)
    assert lines_of(display) == ["step 902/1,000 of epoch 2/2  3 min of training left"]  # 98 × 2 s


def test_a_step_that_is_longer_than_the_pause_is_told_once():
    clock = Clock()
    display = display_of(clock)
    display.start_epoch(0, 1, 0, 10)
    clock.now_s += 5 * LINE_EVERY_S
    display.step(STEP)
    display.step(None)
    assert len(lines_of(display)) == 1 and "left" not in lines_of(display)[0]


def test_short_epochs_have_their_own_line_alone():
    clock = Clock()
    display = display_of(clock)
    for epoch in range(5):
        display.start_epoch(epoch, 5, 0, 2)
        clock.now_s += FIRST_LINE_S if epoch else FIRST_LINE_S / 2
        display.step(STEP)
        display.end_epoch()
    assert lines_of(display) == []


def test_the_lines_are_of_the_main_rank_and_not_for_terminals():
    clock = Clock()
    for display in (display_of(clock, is_main=False), display_of(clock, is_terminal=True)):
        display.start_epoch(0, 1, 0, 10)
        clock.now_s += 100
        display.step(STEP)
        display.end_epoch()
        assert "of epoch" not in display.console.file.getvalue()
