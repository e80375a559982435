"""Samples that cannot be delivered, and what stands in for them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .errors import LoaderError

if TYPE_CHECKING:
    from .plan import Plan, PlanRows

OnBad = Literal["error", "substitute"]

_MAX_ATTEMPTS = 16  # with half of all samples bad, one batch in thousands of millions still fails


@dataclass(frozen=True)
class Substitution:
    """Sample `bad_id` cannot be delivered, as `reason` says in one sentence with its place; `id` stands in for it."""

    bad_id: int
    id: int
    reason: str


def substitute(
    plan: "Plan", rows: "PlanRows", row: int, error: LoaderError, deliver: Callable[["PlanRows"], None]
) -> None:
    """Deliver another sample in place of `rows.ids[row]`, which failed with `error`.

    deliver  makes the pixels of a one-row PlanRows where those of `row` belong; raises LoaderError if it cannot

    Which sample that is depends on the epoch and the position alone, so every loader, whatever its number of threads,
    workers and ranks, takes the same. `rows.ids[row]` becomes its id. Raises `error` when no attempt succeeds.
    """
    bad_id = int(rows.ids[row])
    for attempt in range(_MAX_ATTEMPTS):
        other = plan.substitute(rows, row, attempt)
        try:
            deliver(other)
        except LoaderError:
            continue
        rows.ids[row], rows.rects[row], rows.flips[row] = other.ids[0], other.rects[0], other.flips[0]
        rows.substitutions.append(Substitution(bad_id, int(other.ids[0]), str(error)))
        return
    raise error
