"""From three rates to one sentence: what does this run wait for?"""

from dataclasses import dataclass
from typing import Literal

from .measure import Measurement

Bottleneck = Literal["data", "compute", "shared processors", "inconclusive"]

_CLOSE = 0.10  # a share two rates must differ by, beside their own spread, before one is called the slower
_LOSS = 0.15  # a share together may fall below the slower of the two before sharing processors is named


@dataclass(frozen=True)
class Verdict:
    """`headroom` is loader rate / step rate: above 1 the loader can feed more than the step takes."""

    bottleneck: Bottleneck
    headroom: float
    sentence: str


def judge(measured: Measurement, shares_processors: bool) -> Verdict:
    """Name the bottleneck of `measured`, or none where the rates lie too close together for a name.

    `shares_processors` says that loading and computing use the same ones, as they do without a GPU: the two then slow
    each other down, and neither alone explains the rate of both together.
    """
    step, loader, together = measured.step_alone, measured.loader_alone, measured.together
    headroom = loader.median / step.median
    slower = min(step.median, loader.median)
    lost = 1 - together.median / slower
    facts = f"the loader alone gives {loader.median:,.0f} img/s, the step alone takes {step.median:,.0f}"

    if together.high < slower and lost > _LOSS and shares_processors:
        loading = step.median / (step.median + loader.median)
        sentence = (
            f"Shared processors: {facts}, but on the same cores both reach {together.median:,.0f};"
            f" about {loading:.0%} of the processor time an image costs goes into loading it, so cheaper loading"
            f" can bring at most {step.median / together.median:.2f}×."
        )
        return Verdict("shared processors", headroom, sentence)
    if loader.high < step.low and headroom < 1 - _CLOSE:
        sentence = (
            f"Data-bound: {facts}, so the model waits for images ({measured.data_wait_share:.0%} of the time);"
            f" a faster loader or smaller files can bring up to {step.median / together.median:.2f}×."
        )
        return Verdict("data", headroom, sentence)
    if loader.low > step.high and headroom > 1 + _CLOSE:
        sentence = (
            f"Compute-bound: {facts}, {headroom:.1f} times what is needed; loading faster would bring nothing,"
            " a cheaper step would."
        )
        return Verdict("compute", headroom, sentence)
    sentence = (
        f"Inconclusive: {facts}, which lie within {_CLOSE:.0%} of each other or within the noise of this machine."
    )
    return Verdict("inconclusive", headroom, sentence)
