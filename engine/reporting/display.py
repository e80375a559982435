"""What a run shows in the terminal: a moving bar where there is one to move, and a line an epoch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from loaders.api import Substitution

from ..profiler.time_book import TimeBook
from .time_table import show_time_spent, slow_rank_line

_NUM_BAD_NAMED = 3


class Display:
    """Speaks for the main rank; on the others every method is silent."""

    def __init__(self, is_main: bool) -> None:
        self._is_main = is_main
        self.console = Console(quiet=not is_main, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def say(self, text: str) -> None:
        """One line, above the bar if there is one."""
        self.console.print(text, markup=False)

    def start_epoch(self, epoch: int, num_epochs: int, done: int, num_batches: int) -> None:
        if not (self._is_main and self.console.is_terminal):
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[speed]}"),
            console=self.console,
            transient=True,
        )
        self._task = self._bar.add_task(f"epoch {epoch + 1}/{num_epochs}", total=num_batches, completed=done, speed="")
        self._bar.start()

    def step(self, record: Mapping[str, Any] | None) -> None:
        """One batch further; with a step's record, as it is logged, the speed shown is renewed."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task)
            if record is not None:
                speed = f"{record['images_per_s']:,.0f} img/s, data-wait {record['data_wait_share']:.0%}"
                self._bar.update(self._task, speed=speed)

    def end_epoch(self) -> None:
        """Take the bar away. Idempotent."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def summarize(self, record: dict[str, Any], num_epochs: int) -> None:
        """The epoch's line, from its metrics record."""
        self.say(summary_line(record, num_epochs))

    def show_time_spent(self, book: TimeBook, world_size: int) -> None:
        """Where the run's time went, and which rank kept the others waiting; nothing where nothing was trained."""
        spent = book.read()
        if not (self._is_main and spent.train_s):
            return
        show_time_spent(self.console, spent, world_size)
        if line := slow_rank_line(book.of_ranks_s, spent.train_s):
            self.say(line)

    def name_bad_samples(self, num_substituted: int, bad: list[Substitution], listed_in: Path) -> None:
        """What of the epoch was substituted: how many rows, and the first few of the samples."""
        rows = "1 row" if num_substituted == 1 else f"{num_substituted:,} rows"
        samples = "a sample" if len(bad) == 1 else f"{len(bad):,} samples"
        self.say(f"warning: in {rows} another sample stood in for {samples} that could not be delivered:")
        for entry in bad[:_NUM_BAD_NAMED]:
            self.say(f"  {entry.reason}")
        self.say(f"  all that were found are listed in {listed_in}")


def summary_line(record: dict[str, Any], num_epochs: int) -> str:
    """One epoch in one line: loss, accuracies, time, img/s, data-wait, memory.

    A run that was resumed behind an epoch's last batch only evaluated it, and has no speed to tell.
    """
    resources = record["resources"]
    if resources["gpu_memory_bytes"] is not None:
        share = resources["gpu_share"]
        memory = f"GPU {resources['gpu_memory_bytes'] / 1e9:.1f} GB" + ("" if share is None else f" {share:.0%} used")
    else:
        memory = f"RAM {resources['memory_bytes'] / 1e9:.1f} GB, CPU {resources['cpu_share']:.0%}"
    averages = "".join(
        f"  {name} top-1 {record[f'eval_{name}_top1']:.1%}" for name in ("ema", "swa") if f"eval_{name}_top1" in record
    )
    speed = f"  {record['images_per_s']:,.0f} img/s  data-wait {record['data_wait_share']:.0%}"
    return (
        f"epoch {record['epoch'] + 1}/{num_epochs}"
        f"  loss {record['train_loss']:.3f}"
        f"  train top-1 {record['train_top1']:.1%}"
        f"  eval top-1 {record['eval_top1']:.1%} top-5 {record['eval_top5']:.1%}{averages}"
        f"  {record['seconds']:.1f} s"
        f"{speed if record['images_per_s'] else ''}"
        f"  {memory}"
    )
