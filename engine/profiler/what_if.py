"""What one change of the configuration would bring: the loop's rate with an interval, and what it would take.

A prediction rests on a profile (the step alone, the loader alone by its workers, one loop) and, where a change alters
the cost of a side, on how that side alone, and never the loop, compared with now: see `calibration`. `throughput_model`
says how both make a loop, what that assumes and where it is known to be wrong.

Each round of the profile predicts by itself, since its rates were measured next to each other on a machine as it was
then; the median counts. The interval holds two things: the noise of rounds, which are drawn again and again; and a
doubt in the model, a share that grows with how far the change goes. It does not hold what a profile cannot know: that
another user comes to the machine, or that other samples cost more than those measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from loaders.errors import FeedrateError

from .bootstrap import redrawn_medians
from .number_text import bytes_text
from .record import COMPUTE_STAGES, LOADER_STAGES, Profile, ResourceRecord, WhatIf
from .throughput_model import Processors, Values, fit_interplay, fit_scaling

_DRAWS = 400
_DOUBT = 0.02  # of any prediction, as a share (a standard deviation)
_DOUBT_OF_DISTANCE = 0.12  # of each e-fold by which the loop's rate would change
_DOUBT_OF_REACH = 0.05  # of each e-fold of workers beyond those measured
_DOUBT_OF_SHARING = 0.06  # where threads must share processors and did not in the measured loop
_DOUBT_OF_ONE_ROUND = 0.05  # its noise cannot be seen


class NotPredictable(FeedrateError):
    """A change whose effect cannot be known here, or that is not feasible; the message says why."""


@dataclass(frozen=True)
class Change:
    """One change, and what is known of it beforehand.

    settings   options of engine/train.py by their name; {}: not a setting
    workers    another number of a rank's workers
    step, loading  the side's rate alone with it / now, one number a round; empty: as now
    storage    its speed / now;  in_memory  share of the set that is there at an epoch's start, None: what fits
    adds_memory  the machine gets what of that it lacks
    bytes_per_image  as it would be stored
    doubt      in what is known of it, as a share
    format     the packing format's name, "" where it stays
    """

    text: str
    settings: dict[str, Any] = field(default_factory=dict)
    workers: int | None = None
    step: tuple[float, ...] = ()
    loading: tuple[float, ...] = ()
    storage: float = 1.0
    in_memory: float | None = None
    adds_memory: bool = False
    bytes_per_image: float | None = None
    doubt: float = 0.0
    format: str = ""


class Predictor:
    """Predicts changes of one profile.

    price_per_hour  of the machine or machines together;  None: no cost is told
    """

    def __init__(self, profile: Profile, price_per_hour: float | None = None) -> None:
        self._profile = profile
        self._price_per_hour = price_per_hour
        self._workers = profile.subject.workers
        self._is_single_round = len(profile.ceilings.loop.rounds) < 2
        ceilings = profile.ceilings
        self._processors = processors_of(profile)
        self._loop = np.asarray(ceilings.loop.rounds, float)
        self._step = self._by_round(ceilings.step.rounds)
        if ceilings.fed:
            self._step = np.minimum(self._step, self._by_round(ceilings.fed.rounds))
        self._scaling = fit_scaling(
            {workers: self._by_round(rate.rounds) for workers, rate in ceilings.loader.items()}, self._processors.number
        )
        self._interplay = fit_interplay(
            self._step,
            self._scaling.rate(self._workers),
            self._loop,
            self._processors.shares(self._workers),
            device_apart=self._processors.step_threads == 0,
        )

    def predict(self, change: Change) -> WhatIf:
        """Raises NotPredictable, saying why."""
        memory_bytes = self._memory_bytes(replace(change, in_memory=None) if change.adds_memory else change)
        if change.adds_memory and change.in_memory and memory_bytes is not None:
            memory_bytes += int(change.in_memory * (self._profile.subject.stored_bytes or 0))
        workers = self._workers if change.workers is None else change.workers
        step = self._step * self._by_round(change.step)
        loading = self._scaling.rate(workers) * self._by_round(change.loading)
        warm = self._interplay.loop_rate(step, loading, self._processors.shares(workers))
        rates = 1 / (1 / warm + self._reading_s(change))
        predicted = float(np.median(rates))
        doubt = self._doubt(change, workers, predicted)
        drawn = redrawn_medians(rates, _DRAWS) * np.exp(np.random.default_rng(1).normal(0.0, doubt, _DRAWS))
        low, high = (float(value) for value in np.percentile(drawn, (2.5, 97.5)))
        # each sample of an epoch is so many images in a row, for which it is read once
        views = self._profile.config.get("data", {}).get("views", 1)
        epoch_minutes = views * self._profile.subject.num_samples / predicted / 60
        num_bytes = change.bytes_per_image or self._bytes_per_image()
        return WhatIf(
            change.text,
            change.settings,
            predicted,
            min(low, predicted),
            max(high, predicted),
            self._cpu_share(change, predicted),
            memory_bytes,
            None if num_bytes is None else predicted * num_bytes / views / 1e6,
            epoch_minutes,
            None if self._price_per_hour is None else self._price_per_hour * epoch_minutes / 60,
        )

    def _by_round(self, rounds: Sequence[float]) -> Values:
        """One value a round of the loop: rounds of the same number go together, others by their median; none is 1."""
        if len(rounds) == len(self._loop):
            return np.asarray(rounds, float)
        return np.full(len(self._loop), float(np.median(rounds)) if rounds else 1.0)

    def _doubt(self, change: Change, workers: int, predicted: float) -> float:
        shares = self._processors.shares
        distance = abs(np.log(predicted / np.median(self._loop)))
        parts = (
            _DOUBT,
            _DOUBT_OF_DISTANCE * distance,
            _DOUBT_OF_REACH * self._scaling.reach(workers),
            _DOUBT_OF_SHARING * (shares(self._workers) == (1.0, 1.0) != shares(workers)),
            _DOUBT_OF_ONE_ROUND * self._is_single_round,
            change.doubt,
        )
        return float(np.sqrt(sum(part**2 for part in parts)))

    def _bytes_per_image(self) -> float | None:
        subject = self._profile.subject
        return None if subject.stored_bytes is None else subject.stored_bytes / subject.num_samples

    def _fits(self, num_bytes: float | None) -> bool:
        """Whether memory holds the set at so many bytes an image; True, too, where nobody can tell."""
        subject = self._profile.subject
        if num_bytes is None or subject.stored_bytes is None or subject.memory_bytes is None:
            return True
        # what the run itself keeps there is no longer counted as free
        is_kept = self._profile.config.get("data", {}).get("page_cache") == "memory"
        room_bytes = subject.memory_bytes + (subject.stored_bytes if is_kept else 0)
        return num_bytes * subject.num_samples <= room_bytes

    def _reading_s(self, change: Change) -> Values:
        """Seconds an image that waiting for storage adds to a loop whose images are in memory."""
        ceilings = self._profile.ceilings
        now = self._bytes_per_image()
        num_bytes = change.bytes_per_image or now
        in_memory = change.in_memory
        if in_memory is None:
            in_memory = 1.0 if self._fits(num_bytes) else 0.0
        if in_memory >= 1:
            return np.zeros_like(self._loop)
        if ceilings.loop_cold is None or num_bytes is None or now is None:
            raise NotPredictable(f"{change.text}: how fast storage is was not measured here")
        cold = self._by_round(ceilings.loop_cold.rounds)
        waiting_s = np.maximum(0.0, 1 / cold - 1 / self._loop)
        reading_s: Values = waiting_s * (1 - in_memory) / change.storage * (num_bytes / now)
        return reading_s

    def _cpu_share(self, change: Change, predicted: float) -> float | None:
        """Of the processors that all ranks of a machine may use; None where a changed side's time is not known."""
        profile, told = self._profile, self._profile.shown_rank
        sides = (_cpu_us(told.stages, LOADER_STAGES), _cpu_us(told.stages, COMPUTE_STAGES))
        own_rate = float(np.median(self._loop)) / profile.subject.world_size
        total = 1e6 * told.resources.cpus_used / own_rate
        loading = sides[0]
        if loading is None:
            if change.step or change.loading:
                return None
            used = total
        else:
            computing = max(0.0, total - loading)
            used = loading / _ratio(change.loading) + computing / _ratio(change.step)
        ranks = _ranks_of_a_machine(profile)
        busy = used * 1e-6 * predicted / profile.subject.world_size * ranks
        return min(1.0, busy / told.resources.cpus_available)

    def _memory_bytes(self, change: Change) -> int | None:
        """Of a machine's ranks and their workers, and of what of the set is to be kept. Refuses what is not there."""
        told, subject = self._profile.shown_rank, self._profile.subject
        if change.step or "loader" in change.settings:
            return None  # what another batch or loader takes is not known before it runs
        ranks = [rank.resources for rank in self._profile.ranks if rank.host == told.host]
        more = 0.0
        if change.workers is not None:
            more = sum(map(_worker_bytes, ranks)) * (change.workers - self._workers)  # fewer give theirs back
        if change.in_memory and subject.stored_bytes:
            more += change.in_memory * subject.stored_bytes
        if subject.memory_bytes is not None and more > subject.memory_bytes:
            raise NotPredictable(
                f"{change.text}: it needs {more / 1e9:,.1f} GB more, and {subject.memory_bytes / 1e9:,.1f} GB are free"
            )
        return int(sum(rank.memory_bytes for rank in ranks) + more)


def processors_of(profile: Profile) -> Processors:
    """What one rank has."""
    available = profile.shown_rank.resources.cpus_available / _ranks_of_a_machine(profile)
    if profile.subject.device != "cpu":
        return Processors(available, 0)
    threads = profile.config.get("execution", {}).get("threads", 0)
    return Processors(available, threads or max(1, int(available)))


def hold_out(profile: Profile, workers: int) -> Profile:
    """The same without the loader's rate with so many workers: a prediction for them has not seen it then."""
    loader = {number: rate for number, rate in profile.ceilings.loader.items() if number != workers}
    if profile.subject.workers not in loader:
        raise ValueError("the configured number of workers is what the loop ran with")
    return replace(profile, ceilings=replace(profile.ceilings, loader=loader))


def plain_changes(profile: Profile) -> tuple[list[Change], list[str]]:
    """Changes that need no more than the profile: (changes, why others cannot be told)."""
    changes, refused = _workers_changes(profile)
    subject, ceilings = profile.subject, profile.ceilings
    if ceilings.loop_cold is None or subject.stored_bytes is None:
        refused.append("storage and memory: there is no cold rate")
    else:
        first = " (first epoch)" if subject.fits_in_memory else ""
        changes += [
            Change(f"storage twice as fast{first}", storage=2.0, in_memory=0.0),
            Change(f"storage half as fast{first}", storage=0.5, in_memory=0.0),
            Change(f"half of the set in memory{first}", in_memory=0.5),
        ]
        if not subject.fits_in_memory:
            missing = bytes_text(subject.stored_bytes - (subject.memory_bytes or 0))
            text = f"all of the set in memory ({missing} more than are free)"
            settings = {"data.page_cache": "memory"} if subject.stored_as in (None, "packed") else {}
            changes.append(Change(text, settings, in_memory=1.0, adds_memory=True))
    if subject.device == "cpu":
        refused.append("GPU decode: there is no GPU here")
    return changes, refused


def predict_all(
    profile: Profile, changes: Sequence[Change], price_per_hour: float | None = None
) -> tuple[list[tuple[Change, WhatIf]], list[str]]:
    """Predictions, and why others cannot be told."""
    predictor = Predictor(profile, price_per_hour)
    found, refused = [], []
    for change in changes:
        try:
            found.append((change, predictor.predict(change)))
        except NotPredictable as error:
            refused.append(str(error))
    return found, refused


def _workers_changes(profile: Profile) -> tuple[list[Change], list[str]]:
    number, own = processors_of(profile).number, profile.subject.workers
    if len(profile.ceilings.loader) < 2 and number > 1:
        return [], [f"workers: loader '{profile.subject.loader}' has none here"]
    most = 2 * max(1, int(number))
    counts = range(1, most + 1) if most <= 16 else sorted({*(2**power for power in range(12)), int(number), most})
    return [
        Change(f"{count} worker{'s' * (count > 1)}", {"data.workers": count}, workers=count)
        for count in counts
        if count <= most and count != own
    ], []


def _ranks_of_a_machine(profile: Profile) -> int:
    return sum(rank.host == profile.shown_rank.host for rank in profile.ranks)


def _worker_bytes(rank: ResourceRecord) -> float:
    """What one of its workers takes: the rank's own process stands first. 0 where they are threads of that."""
    helpers = [process.pss_bytes or process.rss_bytes for process in rank.processes[1:]]
    return sum(helpers) / len(helpers) if helpers else 0.0


def _cpu_us(stages: Sequence[Any], names: Sequence[str]) -> float | None:
    known = [stage.cpu_us for stage in stages if stage.name in names and stage.cpu_us is not None]
    return sum(known) if known else None


def _ratio(rounds: tuple[float, ...]) -> float:
    return float(np.median(rounds)) if rounds else 1.0
