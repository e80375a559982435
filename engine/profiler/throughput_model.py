"""How fast a loop loads and computes, from how fast it does either alone: plain maths, nothing is measured here.

Loading and computing go on at the same time, a queue of batches between them, so the slower of the two sets the pace.
Where both use the same processors they also slow each other. What is assumed:

* the system gives every thread that can run an equal part of the processors: `w` workers and `T` threads of the step
  on `P` processors have w and T of w + T parts of P, once there are more threads than processors;
* either side alone does an amount of work in proportion to the processors it gets, up to as many as it has threads;
* what the two lose by running at once (caches, the interpreter's lock, threads of the step that wait for one that was
  put aside) is one factor, `efficiency`, which applies while both run on too few processors and only then. It is told
  from one loop that was measured and taken to be the same for other workers, another format, another batch.

So the processors' time is conserved: with both sides able to use all of them, an image takes what it takes to load and
what it takes to compute, one after the other.

Known to be wrong: where computing or loading alone held up the measured loop, or there were processors for all,
`efficiency` cannot be seen, and is taken to be as usual; batches of very uneven cost, which make a short queue run
empty now and then; a step whose threads spin while they wait, whose loss grows with the workers; and a system that
lets threads stay where they are, so that one of them has a processor and two others share one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]

_EFFICIENCIES = np.exp(np.linspace(np.log(0.25), np.log(2.0), 121))
_NOISE = 0.03  # of a measured rate, as a share: what need not be explained
_USUAL = (0.9, 0.35)  # efficiency is about this, give or take, as a share
_CONTENTIONS = np.linspace(0.0, 0.8, 161)
_USUAL_CONTENTION = (0.03, 0.1)  # of loaders: about this, give or take


@dataclass(frozen=True)
class Processors:
    """What a rank has to run on.

    number        of processors;  step_threads  the step's, 0 where it runs on a device of its own
    """

    number: float
    step_threads: int

    def shares(self, workers: int) -> tuple[float, float]:
        """(step's, loader's) speed while both run, as shares of what each has alone."""
        running = workers + self.step_threads
        if self.step_threads == 0 or running <= self.number:
            return 1.0, 1.0
        part = self.number / running
        threads = self.step_threads
        return part * threads / min(threads, self.number), part * workers / min(workers, self.number)


def loop_rate(step: ArrayLike, loading: ArrayLike, shares: tuple[float, float], efficiency: ArrayLike = 1.0) -> Values:
    """img/s of the loop, from the `step` alone and the loader alone, img/s; arrays are broadcast.

    shares      as `Processors.shares` gives them
    efficiency  of both while both run, against what shares let expect; of no account with processors for all
    """
    step_s, load_s = 1 / np.asarray(step, float), 1 / np.asarray(loading, float)
    if shares == (1.0, 1.0):
        efficiency = 1.0
    slow_step, slow_load = (np.minimum(1.0, share * np.asarray(efficiency, float)) for share in shares)
    made = slow_load * step_s / (slow_step * load_s)  # images loaded while one is computed
    # the queue runs empty: all of the step beside the loader, then the loader by itself
    waiting = step_s / slow_step + (1 - made) * load_s
    # the queue is full: all of the loading beside the step, then the step by itself
    together = load_s / slow_load
    computing = together + step_s - slow_step * together
    rate: Values = 1 / np.where(made < 1, waiting, computing)
    return rate


@dataclass(frozen=True)
class Interplay:
    """How a measured loop differs from the two sides' rates: `efficiency` while both run, and a factor for the rest."""

    efficiency: Values
    rest: Values

    def loop_rate(self, step: ArrayLike, loading: ArrayLike, shares: tuple[float, float]) -> Values:
        """img/s of a loop of which all this is as it was in the measured one."""
        return self.rest * loop_rate(step, loading, shares, self.efficiency)


def fit_interplay(
    step: ArrayLike, loading: ArrayLike, loop: ArrayLike, shares: tuple[float, float], device_apart: bool = False
) -> Interplay:
    """From a measured loop; arrays [n] give n of them.

    Efficiency explains as much of the difference as is plausible, and is as usual where it would explain nothing; it is
    1 on a `device_apart`, whose step no loader slows.
    """
    step, loading, loop = (np.atleast_1d(np.asarray(value, float)) for value in (step, loading, loop))
    if device_apart:
        efficiency = np.ones_like(loop)
    else:
        rates = loop_rate(step[:, None], loading[:, None], shares, _EFFICIENCIES)
        cost = (np.log(rates / loop[:, None]) / _NOISE) ** 2 + (np.log(_EFFICIENCIES / _USUAL[0]) / _USUAL[1]) ** 2
        efficiency = _EFFICIENCIES[np.argmin(cost, axis=1)]
    return Interplay(efficiency, loop / loop_rate(step, loading, shares, efficiency))


@dataclass(frozen=True)
class Scaling:
    """The loader alone against its workers: what was measured, and between and beyond that Amdahl's curve.

    rates       img/s by workers, arrays of one shape
    contention  the share of the work that workers do one after the other
    """

    rates: Mapping[int, Values]
    contention: float
    processors: float

    def rate(self, workers: int) -> Values:
        """img/s of so many. More workers than processors load no faster."""
        if workers in self.rates:
            return self.rates[workers]
        near = self.nearest(workers)
        return self.rates[near] * (self._curve(workers) / self._curve(near))

    def nearest(self, workers: int) -> int:
        """The measured number of workers that is most like this one."""
        return min(self.rates, key=lambda known: (abs(np.log(self._at_once(known) / self._at_once(workers))), known))

    def reach(self, workers: int) -> float:
        """How far from what was measured, 0 where it was: the logarithm of the ratio of processors at work."""
        return float(abs(np.log(self._at_once(workers) / self._at_once(self.nearest(workers)))))

    def _at_once(self, workers: int) -> float:
        return min(float(workers), self.processors)

    def _curve(self, workers: int) -> float:
        return float(amdahl(self._at_once(workers), self.contention))


def amdahl(workers: Any, contention: Any) -> Any:
    """How many times as fast as one worker so many are; arrays are broadcast."""
    return workers / (1 + contention * (workers - 1))


def fit_scaling(rates: Mapping[int, ArrayLike], processors: float) -> Scaling:
    """From rates of the loader alone, img/s, by workers; a single one is continued as loaders usually do."""
    known = {workers: np.asarray(values, float) for workers, values in sorted(rates.items())}
    at_once = np.array([min(float(workers), processors) for workers in known])
    medians = np.log([float(np.median(values)) for values in known.values()])
    curves = np.log(amdahl(at_once, _CONTENTIONS[:, None]))
    off = medians - curves
    off = off - off.mean(axis=1, keepdims=True)  # one worker's rate fits itself
    usual, give = _USUAL_CONTENTION
    cost = ((off / _NOISE) ** 2).sum(axis=1) + ((_CONTENTIONS - usual) / give) ** 2
    return Scaling(known, float(_CONTENTIONS[np.argmin(cost)]), processors)
