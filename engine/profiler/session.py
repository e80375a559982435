"""A profile of one configuration, from opening its data to the verdict."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch

from loaders.api import Batch, Loader
from loaders.choose import choose_loader, open_loader
from loaders.memory_limit import available_memory_bytes
from loaders.records import lie_in_memory
from loaders.stored_form import stored_form

from ..build import build_step
from ..channels import channels_of
from ..config import Config
from ..data import (
    agreed_loader,
    keep_in_memory,
    loader_options,
    opened_split,
    plan_of,
    resize_modes_of,
)
from ..data_path import data_path_to_open, path_to_read
from ..dist import Ranks
from ..optimisation.average import Averages
from ..step import TrainStep
from .bystander import Bystander
from .family import Family
from .feeds import RealFeed, Source, fed_from_the_host, on_the_device
from .loop_watch import LoopWatch
from .measure import Budget as Budget
from .measure import Counted, Experiment, Tell, measure
from .record import SCHEMA_VERSION, Ceilings, Profile, RankRecord, Rate, Subject, Verdict
from .stage_table import Setting, rank_record, stages_in_workers
from .stored_batches import StoredBatches
from .verdict import judge

_FEW_BURSTS = 3  # that a turn must have at least, to be taken without a remark
_UNJUDGED = Verdict("inconclusive", None, None, None, 0.0, "", None, "")


def profile(config: Config, ranks: Ranks, budget: Budget, environment: dict[str, Any], tell: Tell) -> Profile:
    """Measure and judge `config`, the same answer on every rank; no evaluation, nothing saved."""
    with opened(config, ranks, tell) as bench:
        bystander = Bystander(ranks)
        rates = measure(bench.experiments(), ranks, 60 * budget.minutes, budget.rounds, tell)
        return bench.judged(rates, environment, bystander.taken_cpus())


class Bench:
    """Everything that is measured, open.

    feed, step  the configured loader and the step of training, as experiments use them
    """

    def __init__(self, config: Config, ranks: Ranks, source: Source, step: TrainStep, stored: StoredBatches) -> None:
        self._config = config
        self._ranks = ranks
        self.step = step
        self._source = source
        self._workers = source.options.num_workers or 1
        self._stored = stored
        self.feed = RealFeed(source, stored)
        self._synthetic = synthetic(source, ranks.device)
        self._host = synthetic(source, torch.device("cpu"))
        family = Family(ranks.device)
        self._loop, self._alone, self._cold = (LoopWatch(self.feed, step, family, ranks.rank) for _ in range(3))
        self._train = training(step, config)
        self.sweep = self._sweep()
        self._loading = {number: Counted() for number in self.sweep}
        self.subject = self._subject()

    def experiments(self) -> list[Experiment]:
        """All of a round, in turn."""
        train, depth, workers = self._train, self._source.options.num_ahead, self._workers
        alone_on, burst = self.feed.alone_on, self.feed.burst(workers)
        queue = depth + 2  # batches that were made before the clock started are used up by then
        stays, warm = partial(on_the_device, self._synthetic), partial(self.feed.warm, workers)
        found = [Experiment("step", "the step alone", stays, train, 2)]
        if not self.feed.not_fed:
            fed = partial(fed_from_the_host, self._host, self._ranks.device)
            found.append(Experiment("fed", "the step fed from the host", fed, train, 3))
        for number in self.sweep:
            text = f"the loader alone, {number} worker{'s' * (number > 1)}"
            stream, every = partial(self.feed.warm, number, device=alone_on), self.feed.burst(number)
            alone = Experiment(f"loader {number}", text, stream, None, max(2, min(queue, number)), every=every)
            found.append(replace(alone, watch=self._loading[number]))
        loop = Experiment("loop", "the loop", warm, train, queue, every=burst, watch=self._loop)
        found.append(loop)
        if self._ranks.world_size > 1:
            alone = replace(loop, name="no sync", text="the loop without exchange", watch=self._alone)
            found.append(replace(alone, around=self.step.unsynchronised))
        if self.feed.reads_files and self._config.data.page_cache == "system":
            cold, most = partial(self.feed.cold, workers), self._stored.num_batches
            # Once the first batch is there, bytes of many more may be: a clock that starts later misses their reading,
            # and so does one that stops before the epoch ends. So turns are whole, and long beside what is read ahead.
            least = 2 * self._stored.read_together(depth) - 1
            alone = Experiment("cold", "the loader alone, cold", cold, None, 1, most, burst, least)
            found.append(replace(alone, batches=partial(cold, device=alone_on)))
            found.append(replace(alone, name="loop cold", text="the loop, cold", work=train, watch=self._cold))
        return found

    def forget(self) -> None:
        """What was watched so far does not count."""
        for watch in (self._loop, self._alone, self._cold):
            watch.turns.clear()
        for counted in self._loading.values():
            counted.turns.clear()

    def judged(self, rates: dict[str, Rate], environment: dict[str, Any], others_cpus: float | None = None) -> Profile:
        """The profile that rates of the experiments and what was watched meanwhile make, the same on every rank.

        Needed are those of the step, the loop and the loader with the configured workers, and on several ranks of
        the loop without exchange.
        """
        records = self._ranks.gather(self._record())
        notes = sorted({note for notes in self._ranks.gather(self._notes()) for note in notes})
        spans = tuple(span for spans in self._ranks.gather(self._loop.timeline.spans) for span in spans)
        gone = [share for shares in self._ranks.gather(self._stored.gone_shares) for share in shares]
        ceilings = Ceilings(
            rates["step"],
            rates.get("fed"),
            {workers: rate for workers in self.sweep if (rate := rates.get(f"loader {workers}"))},
            rates.get("cold"),
            rates["loop"],
            rates.get("loop cold"),
            min(gone) if gone else None,
            rates.get("no sync"),
            sum(record.data_wait_share for record in records) / len(records),
            tuple(notes),
        )
        measured = Profile(
            SCHEMA_VERSION,
            self.subject,
            ceilings,
            tuple(records),
            _UNJUDGED,
            what_if=(),
            timeline=spans,
            config=asdict(self._config),
            environment=environment,
            others_cpus=others_cpus,
        )
        return replace(measured, verdict=judge(measured))

    def _record(self) -> RankRecord:
        """This rank's."""
        ranks, options = self._ranks, self._source.options
        images = self._config.data.batch_size // ranks.world_size
        setting = Setting(
            ranks.rank,
            ranks.world_size,
            ranks.device,
            self._workers,
            options.num_ahead,
            images,
            stages_in_workers(self.feed.loader),
        )
        return rank_record(setting, self._loop.turns, self._alone.turns, self._cold.turns)

    def _notes(self) -> list[str]:
        """What whoever reads the rates must know."""
        notes = self._stored.remarks()
        if lie_in_memory(self._source.records):
            notes.append("the samples lie in memory and not in files: there is no cold rate")
        elif not self._stored.are_files:
            notes.append("nobody can tell which files the samples lie in: there is no cold rate")
        elif not self.feed.has_workers:
            notes.append(f"loader '{self._source.name}' keeps the set decoded: no workers, and no cold rate")
        elif self._config.data.page_cache != "system":
            notes.append("--data.page-cache memory keeps the set in memory: there is no cold rate")
        notes += self._of_short_turns()
        if self.feed.not_fed and (notes or self._ranks.device.type != "cpu"):
            notes.append(self.feed.not_fed)
        return notes

    def _of_short_turns(self) -> list[str]:
        """Of rates that rest on too few batches a turn."""
        turns = [(f"loader of {number} workers", number, counted.turns) for number, counted in self._loading.items()]
        turns += [
            (name, self._workers, [len(turn.waits_s) for turn in watch.turns])
            for name, watch in (("the loop", self._loop), ("the loop without exchange", self._alone))
        ]
        short = [
            (name, min(counts))
            for name, workers, counts in turns
            if counts and min(counts) < _FEW_BURSTS * self.feed.burst(workers)
        ]
        if not short:
            return []
        told = ", ".join(f"{name} {count}" for name, count in short)
        return [f"turns of few batches ({told}) make rates rough: give more --minutes, or fewer --rounds"]

    def close(self) -> None:
        for loader in (self.feed, self._synthetic, self._host):
            loader.close()

    def _sweep(self) -> list[int]:
        """1, 2, 4 … the processors a rank may use, and the configured number."""
        if not self.feed.has_workers:
            return [self._workers]
        most = self._ranks.cpus
        doubled = itertools.takewhile(lambda number: number < most, (2**power for power in itertools.count()))
        return sorted({*doubled, most, self._workers})

    def _subject(self) -> Subject:
        config = self._config
        modes = resize_modes_of(self.feed.loader)
        return Subject(
            config.data.path,
            config.data.train_split,
            self._source.plan.num_chosen,
            self._source.name,
            modes[0] if modes and config.data.resize == "auto" else config.data.resize,
            self._workers,
            config.data.batch_size,
            config.data.train_view().size_at(0),
            config.model.name,
            config.execution.precision,
            self._ranks.device.type,
            self._ranks.world_size,
            self._stored.set_bytes if self.feed.has_workers else None,
            available_memory_bytes(),
            *stored_form(self._source.records, data_path_to_open(config.data)),
            modes,
        )


@contextmanager
def open_source(config: Config, ranks: Ranks, tell: Tell) -> Iterator[Source]:
    """What `config` trains on and the name of its loader, open as long as the block lasts."""
    choose_loader(config.loader)  # refuses what is not known or not installed before anything is read
    path = path_to_read(config.data, tell)
    with closing(opened_split(path, config.data.train_split, config, ranks, tell)) as records:
        tell(f"data: {path}, {len(records):,} samples")
        keep_in_memory([records], config.data, ranks, tell)
        plan = plan_of(records, config)
        plan.num_batches(ranks.world_size)  # refuses what cannot be shared before anything is started
        options = loader_options(config.data, ranks)
        name = agreed_loader(config.loader, [(records, plan)], options, ranks, tell)
        yield Source(name, records, plan, options)


def ready_step(source: Source, config: Config, ranks: Ranks) -> TrainStep:
    """The step that trains on it, warm."""
    num_classes = len(source.records.classes)
    num_batches = source.plan.num_batches(ranks.world_size)
    channels = channels_of(source.records, config.data.normalize, data_path_to_open(config.data))
    step = build_step(config, ranks, num_classes, channels, num_batches)
    step.module.train()
    size_px = config.data.train_view().size_at(0)
    step.warm_up(torch.Size((config.data.batch_size // ranks.world_size, 3, size_px, size_px)), num_classes)
    return step


def synthetic(source: Source, device: torch.device) -> Loader:
    """One batch of the configured size, which stays on the device."""
    return open_loader("synthetic", source.records, source.plan, replace(source.options, device=device))


def training(step: TrainStep, config: Config) -> Callable[[Batch], None]:
    """Trains on each batch it is given, and keeps those averages of the weights that `config` asks for.

    `step` keeps its schedule's first rate from now on, which is small where there is a warm-up: weights stay finite.
    """
    averages = Averages(step.module, config.average, step.windows)
    numbers, rate = itertools.count(), step.schedule(0)
    step.schedule = lambda update: rate

    def train(batch: Batch) -> None:
        number = next(numbers)
        step(batch.images, batch.labels, batch.ids, number)
        averages.after_step(number)

    return train


@contextmanager
def opened(config: Config, ranks: Ranks, tell: Tell) -> Iterator[Bench]:
    """All that a profile of `config` measures, opened on every rank, and closed again behind the block."""
    threads = config.execution.threads or ranks.cpus
    with open_source(config, ranks, tell) as source:
        torch.set_num_threads(threads)  # before the step is compiled, which is for this number
        step, stored = ready_step(source, config, ranks), StoredBatches(source.records, source.plan, ranks)
        with closing(Bench(config, ranks, source, step, stored)) as bench:
            torch.set_num_threads(threads)  # opening loaders may change it
            yield bench
