"""How fast the loop should be, with both sides as fast as they are alone: what lies surely below has another reason."""

from collections.abc import Sequence

import numpy as np

from .record import Profile, Rate
from .stage_costs import loading_costs_us
from .throughput_model import Values, loop_rate
from .what_if import processors_of

BUSY = 0.5  # a share of a machine's processors that the run must use itself for the two to slow each other
_LEAST_EFFICIENCY = 0.6  # of the two at once, against what equal parts of the processors allow; usual is about 0.9


def explained(profile: Profile, step: Rate) -> Rate:
    """The loop's rate, img/s, as the two sides alone let expect it; `step` is the step's, fed as it is.

    Batches made ahead by workers cost the loop nothing but what its own thread does for them, which on a CPU comes on
    top of the step; others are made before each step, or on the same device. On a CPU of which the run uses much
    itself, both sides get a part of it and lose something by running at once.
    """
    subject, loader = profile.subject, profile.ceilings.loader[profile.subject.workers]
    computing, loading = _together(step.rounds, loader.rounds)
    if not _is_made_ahead(profile):
        rates = 1 / (1 / computing + 1 / loading)
    elif subject.device == "cpu":
        own = [cost for stage, cost in loading_costs_us(profile) if stage.where == "loop"]
        rates = np.minimum(1 / (1 / computing + sum(own) / 1e6 / subject.world_size), loading)
    else:
        rates = np.minimum(computing, loading)
    if subject.device == "cpu" and own_use(profile) >= BUSY:
        shares = processors_of(profile).shares(subject.workers)
        rates = np.minimum(rates, loop_rate(computing, loading, shares, _LEAST_EFFICIENCY))
    return Rate(tuple(rates.tolist()))


def own_use(profile: Profile) -> float:
    """The share of its processors that the run uses itself, 0-1, of the machine where that is most."""
    shares: dict[str, float] = {}
    for rank in profile.ranks:
        share = rank.resources.cpus_used / rank.resources.cpus_available
        shares[rank.host] = shares.get(rank.host, 0.0) + share
    return max(shares.values())


def _is_made_ahead(profile: Profile) -> bool:
    """Whether all of a batch is made while the step is at another; where a loader does not tell, it may not be."""
    return profile.shown_rank.queue.ready is not None and profile.subject.resize != "device"


def _together(step: Sequence[float], loading: Sequence[float]) -> tuple[Values, Values]:
    """Round by round, where there are as many of both; else their medians."""
    if len(step) != len(loading):
        step, loading = [float(np.median(step))], [float(np.median(loading))]
    return np.asarray(step, float), np.asarray(loading, float)
