"""Noticing, while a run trains, that it waits for its data; and what to say then."""

from dataclasses import dataclass

from .meter import Reading
from .record import UNSEEN
from .remedies import Run, remedies
from .unseen_work import unseen

SHARE = 0.2  # of an interval's time: without waiting, the run would be 1.25 times as fast
NUM_INTERVALS = 3  # of logging, one after the other

_IDLE = 0.2  # share of the processors from which on more workers may help


@dataclass(frozen=True)
class DataBound:
    """A run that has become so.

    wait_share  of the time of the intervals in which it was noticed
    loader_s    what the loader's stages took in them; empty where it shows none
    wait_s      how long it waited in them
    """

    wait_share: float
    loader_s: dict[str, float]
    wait_s: float = 0.0

    @property
    def is_mostly_unseen(self) -> bool:
        """Whether its stages, which it shows, cannot have taken most of that."""
        seen_s = sum(self.loader_s.values())
        return seen_s > 0 and unseen(self.wait_s, seen_s) > 0

    @property
    def stage(self) -> str | None:
        """The loader's costliest; None where it shows none."""
        return max(self.loader_s, key=lambda stage: self.loader_s[stage]) if sum(self.loader_s.values()) > 0 else None

    @property
    def stage_share(self) -> float:
        """What of the loader's work that stage is."""
        return self.loader_s[self.stage] / sum(self.loader_s.values()) if self.stage else 0.0


class DataBoundWatch:
    """Looks at each interval of logging; speaks once."""

    def __init__(self) -> None:
        self._shares: list[float] = []
        self._wait_s = 0.0
        self._loader_before: dict[str, float] = {}
        self._has_spoken = False

    def note(self, recent: Reading, loader_s: dict[str, float]) -> DataBound | None:
        """`recent`: the newest interval; `loader_s`: what the loader's stages took up to its end.

        An epoch's first batch and first step do not count; what is then left of an interval may be nothing.
        """
        share = recent.steady_data_wait_share
        if self._has_spoken or share is None:
            return None
        if share < SHARE:
            self._shares, self._wait_s = [], 0.0
            self._loader_before = loader_s
            return None
        self._shares.append(share)
        self._wait_s += share * (recent.seconds - recent.first_batch_s - recent.first_step_s)
        if len(self._shares) < NUM_INTERVALS:
            return None
        self._has_spoken = True
        meanwhile = {stage: taken - self._loader_before.get(stage, 0.0) for stage, taken in loader_s.items()}
        return DataBound(sum(self._shares) / len(self._shares), meanwhile, self._wait_s)


def warning(found: DataBound, run: Run, num_workers: int, cpu_share: float) -> str:
    """What is the matter and what to try, in a few sentences. `run` decides what to propose; `cpu_share`: what all of
    it uses of the processors."""
    bound = f"warning: this run is data-bound: it waits for images {found.wait_share:.0%} of its time"
    if found.stage is None:
        return (
            f"{bound}; loader '{run.loader}' shows no stages, so which of them it is cannot be told here:"
            " tools/profile.py measures what would help"
        )
    worth_trying = remedies(UNSEEN if found.is_mostly_unseen else found.stage, run)
    idle = 1 - cpu_share
    if idle >= _IDLE and found.stage != "copy":
        workers = f"more --data.workers than {num_workers}, since {idle:.0%} of the processors are idle"
        worth_trying.insert(0, workers)
    advice = f"; try {', or '.join(worth_trying)}" if worth_trying else ""
    costliest = f"of what loader '{run.loader}' does, {found.stage} takes most ({found.stage_share:.0%})"
    if found.is_mostly_unseen:
        shown = ", ".join(stage for stage, taken in found.loader_s.items() if taken > 0)
        costliest = (
            f"the only stages that loader '{run.loader}' shows ({shown}) took {sum(found.loader_s.values()):.1f} s"
            f" while it waited {found.wait_s:.1f} s, so what it waits for cannot be told here"
        )
    return f"{bound}; {costliest}{advice}; tools/profile.py predicts what each would bring"
