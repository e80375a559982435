"""Measuring cells: baselines with one stage that surely limits, and delays planted in others."""

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from loaders.stage_writer import LOADER_STAGES, Delay

from ...config import Config
from ...dist import Ranks
from ..bystander import Bystander
from ..measure import Tell, measure
from ..planted_delays import delayed_clock
from ..record import CLOCKED_STAGES, Profile, StageRecord
from ..session import Bench, opened
from .cells import IN_SLOW_RANK, MOST_FOR_OTHERS, NOTHING, SLOW_RANK, Baseline, Cell, Outcome, delay_of
from .slack import Costs, costs_of, hands, longer, loop_us, slack_us, slow_rank_slack_us

_LIMIT_US = 1500.0  # an image, of what limits in a baseline: much more than a real image takes here
# so many times what everything else takes is the least for that: on a GPU more, since a delay also fills the gaps in
# which it waits for work of a small model, and these are then not found in the delay
_HEADROOM = {"cpu": 3.0, "cuda": 5.0}
_CALIBRATION_ROUNDS = 2
_BASE_IN_LOADER = ("decode", "read")  # the first of these that the loader shows carries its delay


@dataclass(frozen=True)
class Effort:
    """How long a cell is measured: `rounds` of turns of so many batches, warm-up included, or so long."""

    rounds: int = 5
    batches: int = 10
    least_turn_s: float = 0.12


@dataclass(frozen=True)
class _Base:
    """A baseline: its delays, the stage that carries them, what was measured with them, and what others used then."""

    stage: str
    delays: Mapping[str, Delay]
    profile: Profile
    others_cpus: float


def run_group(config: Config, ranks: Ranks, cells: Sequence[Cell], effort: Effort, tell: Tell) -> Iterator[Outcome]:
    """Measure cells of one group, one after the other, in an order that the seed shuffles; the same on every rank."""
    order = list(cells)
    random.Random(config.seed).shuffle(order)
    with opened(config, ranks, tell) as bench:
        planter = _Planter(bench, config, ranks, effort)
        planter.calibrate()
        for cell in order:
            yield planter.outcome(cell)


class _Planter:
    """An open bench whose stages can be made slower."""

    def __init__(self, bench: Bench, config: Config, ranks: Ranks, effort: Effort) -> None:
        self._bench = bench
        self._ranks = ranks
        self._effort = effort
        self._images = config.data.batch_size // ranks.world_size
        self._clock = bench.step.clock = delayed_clock(bench.step.clock, {}, self._images, ranks.device)
        self._bases: dict[Baseline, _Base] = {}
        self._headroom = _HEADROOM[ranks.device.type]
        # each seed has times of its own
        self._limit_us = _LIMIT_US * random.Random(config.seed).uniform(0.85, 1.15)

    def calibrate(self) -> None:
        """See what everything takes by itself, and set what limits in baselines far above that."""
        bare, _ = self._measured({}, self._limit_us / self._headroom, _CALIBRATION_ROUNDS)
        costs = costs_of(bare.ranks[0], self._ranks.world_size)
        self._limit_us = max(self._limit_us, self._headroom * loop_us(costs))
        self._bare = bare

    def outcome(self, cell: Cell) -> Outcome:
        """Measure one cell."""
        started = time.monotonic()
        base = self._base(cell.baseline)
        slack = self._slack_us(cell, base)
        if slack is None:
            return Outcome(cell, note=f"loader '{cell.loader}' shows no stage '{cell.planted}'")
        injected_us = cell.size * slack
        stage = IN_SLOW_RANK if cell.planted == SLOW_RANK else cell.planted
        assert stage not in base.delays
        delays = dict(base.delays)
        if cell.planted != NOTHING and (cell.planted != SLOW_RANK or self._ranks.rank == 1):
            delays[stage] = delay_of(cell.kind, injected_us)
        rank = 1 if cell.planted == SLOW_RANK else 0
        before = base.profile.ranks[rank]
        costs = costs_of(before, self._ranks.world_size)
        record = before.stage(stage)
        expected: Costs = costs
        if record is not None and cell.planted != NOTHING:
            expected = longer(costs, stage, injected_us / hands(record, self._ranks.world_size))
        measured, others_cpus = self._measured(delays, loop_us(expected))
        if others_cpus <= MOST_FOR_OTHERS < base.others_cpus:
            del self._bases[cell.baseline]  # it would spoil all its cells, and the machine is free again
        verdict = measured.verdict
        return Outcome(
            cell,
            base.stage,
            slack,
            injected_us,
            verdict.bottleneck,
            verdict.slow_rank,
            verdict.confidence,
            verdict.sentence,
            _wall_us(record),
            _wall_us(measured.ranks[rank].stage(stage)),
            before.own_us,
            measured.ranks[rank].own_us,
            loop_us(expected),
            round(time.monotonic() - started, 2),
            round(max(others_cpus, base.others_cpus), 3),
        )

    def _slack_us(self, cell: Cell, base: _Base) -> float | None:
        if cell.planted == NOTHING:
            return 0.0
        if cell.planted == SLOW_RANK:
            return slow_rank_slack_us(base.profile.ranks)
        return slack_us(base.profile.ranks[0], cell.planted, self._ranks.world_size)

    def _base(self, name: Baseline) -> _Base:
        if name not in self._bases:
            self._bases[name] = self._measured_base(name)
        return self._bases[name]

    def _measured_base(self, name: Baseline) -> _Base:
        """Delay one stage so that its side takes `_limit_us`."""
        rank, world_size = self._bare.ranks[0], self._ranks.world_size
        shown = [stage for stage in _BASE_IN_LOADER if _wall_us(rank.stage(stage)) is not None]
        stage = "forward" if name == "step" else shown[0]
        record = rank.stage(stage)
        assert record is not None
        taken = sum(costs_of(rank, world_size)[record.where].values())
        delay = delay_of("sleep", hands(record, world_size) * (self._limit_us - taken))
        return _Base(stage, {stage: delay}, *self._measured({stage: delay}, self._limit_us))

    def _measured(self, delays: Mapping[str, Delay], expected_us: float, rounds: int = 0) -> tuple[Profile, float]:
        """A profile with these delays, of a loop that should take so long an image; and what others used meanwhile."""
        bench, bystander = self._bench, Bystander(self._ranks)
        self._plant(delays)
        bench.forget()
        wanted = {"step", "fed", f"loader {bench.feed.workers}", "loop", "no sync"}
        experiments = [experiment for experiment in bench.experiments() if experiment.name in wanted]
        turn_s = max(self._effort.least_turn_s, self._effort.batches * self._images * expected_us / 1e6)
        rounds = rounds or self._effort.rounds
        seconds = (rounds + 0.5) * len(experiments) * turn_s
        rates = measure(experiments, self._ranks, seconds, rounds, lambda text: None)
        self._plant({})
        return bench.judged(rates, {}), bystander.others_cpus() or 0.0

    def _plant(self, delays: Mapping[str, Delay]) -> None:
        for stage in LOADER_STAGES:
            self._bench.feed.stage_times.delay(stage, delays.get(stage))
        for stage in CLOCKED_STAGES:
            self._clock.delay(stage, delays.get(stage))


def _wall_us(stage: StageRecord | None) -> float | None:
    return None if stage is None else stage.wall_us
