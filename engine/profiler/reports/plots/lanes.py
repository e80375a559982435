"""The timeline of a few steps: a row a stage, a block a rank."""

import itertools
from collections.abc import Sequence

from ...number_text import plain, seconds_text
from ...record import STAGES, Profile, Span
from ...timeline import WAITING
from ..report_rows import group_of
from .svg import Picture, Scale, clipped, text_px

_ROW = 20
_MOST_RANKS = 4


def timeline_plot(profile: Profile, width: float, name: str) -> str:
    """Every span of the timeline where it lies in time; ranks beyond the fourth are left to trace.json."""
    spans = profile.timeline
    steps = sorted({span.step for span in spans})
    end = max(span.start_s + span.seconds for span in spans)
    ranks = sorted({span.rank for span in spans})
    words = f"{len(steps)} steps of {len(ranks)} ranks in {seconds_text(end)}"
    picture = Picture(name, width, "Timeline of a few steps", words)
    scale = Scale(end, 74, width - 8)
    blocks = {rank: [span for span in spans if span.rank == rank] for rank in ranks[:_MOST_RANKS]}
    y = 4.0 + sum(_block_px(own) for own in blocks.values())
    for tick in scale.ticks(max(3, int(width / 110))):
        picture.line((scale(tick), 4), (scale(tick), y), "grid")
        label = "0" if tick == 0 else f"{tick * 1e3:g} ms"
        anchor = "end" if scale(tick) + text_px(label) / 2 > width else "middle"
        picture.text(scale(tick), y + 14, label, "small", anchor)
    top = 4.0
    for rank, own in blocks.items():
        _block(picture, own, scale, top, f"rank {rank}")
        top += _block_px(own)
    if len(ranks) > _MOST_RANKS:
        y += 18
        picture.text(scale.start, y + 14, f"{len(ranks) - _MOST_RANKS} more ranks are in trace.json", "small")
    picture.height = y + 20
    return picture.render()


def _stages_of(spans: Sequence[Span]) -> list[str]:
    """Those that occur, in the order the loop meets them, and others after them."""
    found = {span.stage for span in spans}
    order = (WAITING, *STAGES)
    return [*(name for name in order if name in found), *sorted(found - set(order))]


def _block_px(spans: Sequence[Span]) -> float:
    return _ROW * (1 + len(_stages_of(spans))) + 8.0


def _block(picture: Picture, spans: Sequence[Span], scale: Scale, top: float, heading: str) -> None:
    """One rank: where steps begin, then a row a stage."""
    starts: dict[int, float] = {}
    for span in spans:
        starts[span.step] = min(span.start_s, starts.get(span.step, span.start_s))
    picture.text(scale.start - 8, top + 14, heading, "strong", "end")
    y = top + _ROW
    names = _stages_of(spans)
    bottom = y + _ROW * len(names)
    begins = sorted(starts.items(), key=lambda pair: pair[1])
    for (step, start_s), (_, next_s) in itertools.pairwise([*begins, (0, scale.high)]):
        picture.line((scale(start_s), top + 4), (scale(start_s), bottom), "step")
        label = f"step {step}"
        if scale(next_s) - scale(start_s) > text_px(label) + 6:  # else it would reach into the next step
            picture.text(scale(start_s) + 4, top + 14, label, "small")
    for name in names:
        picture.text(scale.start - 8, y + 14, clipped(plain(name), 64), "small", "end")
        for span in spans:
            if span.stage == name:
                tip = f"{name}, step {span.step}: {seconds_text(span.seconds)}"
                width = scale(span.start_s + span.seconds) - scale(span.start_s)
                picture.rect(scale(span.start_s), y + 3, width, _ROW - 6, f"fill-{group_of(name)}", tip)
        y += _ROW
