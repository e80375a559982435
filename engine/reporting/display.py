"""What a run shows: a moving bar in a terminal, elsewhere a line now and then, and in both a line an epoch."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from loaders.api import Substitution

from ..profiler.time_book import TimeBook
from .time_table import show_time_spent, slow_rank_line

_NUM_BAD_NAMED = 3

# between lines on the way through an epoch, where no bar moves; the first of a run comes sooner, to show that it works
FIRST_LINE_S = 10.0
LINE_EVERY_S = 30.0


@dataclass
class _Epoch:
    """Where an epoch stands, for the lines on its way. Its steps are timed from the end of the first on: until then the
    loader starts."""

    number: int
    num_epochs: int
    num_done: int
    num_steps: int
    num_timed: int = 0
    timed_since_s: float | None = None
    newest: Mapping[str, Any] | None = None

    def step(self, now_s: float, record: Mapping[str, Any] | None) -> None:
        self.num_done += 1
        self.newest = record or self.newest
        if self.timed_since_s is None:
            self.timed_since_s = now_s
        else:
            self.num_timed += 1

    def line(self, now_s: float) -> str:
        """Position, figures of the newest line of the log, and how long all that is left will train."""
        text = f"step {self.num_done:,}/{self.num_steps:,} of epoch {self.number + 1}/{self.num_epochs}"
        if self.newest is not None:
            told = self.newest
            text += f"  loss {told['loss']:.3f}  learning rate {told['learning_rate']:.3g}"
            text += f"  {told['images_per_s']:,.0f} img/s  data-wait {told['data_wait_share']:.0%}"
        if self.num_timed and self.timed_since_s is not None:
            num_left = (self.num_epochs - self.number) * self.num_steps - self.num_done
            left_s = num_left * (now_s - self.timed_since_s) / self.num_timed
            text += f"  {_duration(left_s)} of training left"
        return text


class Display:
    """Speaks for the main rank; on the others every method is silent. `clock` counts seconds."""

    def __init__(self, is_main: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._is_main = is_main
        self._clock = clock
        self._epoch: _Epoch | None = None
        self._next_line_s: float | None = None
        self.console = Console(quiet=not is_main, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def say(self, text: str) -> None:
        """One line, above the bar if there is one."""
        self.console.print(text, markup=False)

    def start_epoch(self, epoch: int, num_epochs: int, done: int, num_batches: int) -> None:
        """To be called before an epoch's first step, of which `done` of `num_batches` are over: a bar begins, or the
        time to the first line."""
        if not self._is_main:
            return
        if not self.console.is_terminal:
            self._epoch = _Epoch(epoch, num_epochs, done, num_batches)
            # behind another epoch, whose line was the last
            wait_s = FIRST_LINE_S if self._next_line_s is None else LINE_EVERY_S
            self._next_line_s = self._clock() + wait_s
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
        """One batch further; with a step's record, as it is logged, the figures shown are renewed."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task)
            if record is not None:
                speed = f"{record['images_per_s']:,.0f} img/s, data-wait {record['data_wait_share']:.0%}"
                self._bar.update(self._task, speed=speed)
        if self._epoch is not None and self._next_line_s is not None:
            now_s = self._clock()
            self._epoch.step(now_s, record)
            if now_s >= self._next_line_s:
                self.say(self._epoch.line(now_s))
                self._next_line_s = now_s + LINE_EVERY_S

    def end_epoch(self) -> None:
        """Take the bar away, and say no more of the way. Idempotent."""
        self._epoch = None
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


def _duration(seconds: float) -> str:
    """With two units at most: 45 s, 12 min, 3 h 05 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def summary_line(record: dict[str, Any], num_epochs: int) -> str:
    """One epoch in one line: loss, accuracies, time, img/s, data-wait, memory.

    A run that was resumed behind an epoch's last batch only evaluated it, and has neither time nor speed to tell.
    """
    resources = record["resources"]
    if resources["gpu_memory_bytes"] is not None:
        share = resources["gpu_share"]
        memory = f"GPU {resources['gpu_memory_bytes'] / 1e9:.1f} GB" + ("" if share is None else f" {share:.0%} used")
    else:
        share = resources["cpu_share"]
        memory = f"RAM {resources['memory_bytes'] / 1e9:.1f} GB" + ("" if share is None else f", CPU {share:.0%}")
    averages = "".join(
        f"  {name} top-1 {record[f'eval_{name}_top1']:.1%}" for name in ("ema", "swa") if f"eval_{name}_top1" in record
    )
    speed = ""
    if record["images_per_s"] is not None:
        speed = f"  {record['seconds']:.1f} s  {record['images_per_s']:,.0f} img/s"
        speed += f"  data-wait {record['data_wait_share']:.0%}"
    return (
        f"epoch {record['epoch'] + 1}/{num_epochs}"
        f"  loss {record['train_loss']:.3f}"
        f"  train top-1 {record['train_top1']:.1%}"
        f"  eval top-1 {record['eval_top1']:.1%} top-5 {record['eval_top5']:.1%}{averages}"
        f"{speed}"
        f"  {memory}"
    )
