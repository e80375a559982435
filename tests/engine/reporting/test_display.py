"""The lines a run says while it trains."""

from io import StringIO

from rich.console import Console

from engine.reporting.display import Display, summary_line

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
    line = summary_line({**RECORD, "images_per_s": 0.0, "data_wait_share": 0.0}, 4)
    assert line.endswith("  3.0 s  RAM 2.0 GB, CPU 50%")


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
