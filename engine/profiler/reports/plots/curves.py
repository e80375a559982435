"""Plots with two axes: throughput against workers, and how many batches were ready."""

from collections.abc import Sequence

from ...number_text import interval_text, rate_text, share_text
from ...record import Profile, QueueRecord, WhatIf
from ..report_rows import by_workers
from .svg import Entry, Picture, Scale, legend, text_px

_MOST_BARS = 240  # more asks than that are shown in groups

Point = tuple[float, float]


def workers_plot(profile: Profile, width: float, name: str) -> str:
    """The loader alone and the loop, measured and predicted, against workers a rank, under the step's ceiling."""
    loader, step = profile.ceilings.loader, profile.ceilings.step.median
    predicted, own = by_workers(profile.what_if), profile.subject.workers
    words = "; ".join(f"{workers} workers: {rate_text(rate.median)}" for workers, rate in sorted(loader.items()))
    title = "Images a second against workers a rank"
    picture = Picture(name, width, title, f"the loader alone, {words}; the step takes {rate_text(step)}")
    entries = [Entry("dot", "fill-data", "loader alone"), Entry("diamond", "fill-loop", "the loop, measured")]
    if predicted:
        entries.append(Entry("diamond", "hollow", "the loop, predicted, with its 95% interval"))
    top = legend(picture, [*entries, Entry("line", "ceiling", f"the step's ceiling, {rate_text(step)}")], 0) + 8
    high = max(step, *(rate.high for rate in loader.values()), *(row.high for row in predicted.values()), 0.0)
    y = Scale(high * 1.05, top + 210, top)
    most = max([*loader, *predicted, own])
    x = Scale(most + 0.5, text_px(rate_text(high)) + 12, width - 12, low=0.5 if most < 24 else 0)
    _axes(picture, x, y, sorted({*loader, *predicted, own}))
    picture.line((x.start, y(step)), (x.end, y(step)), "ceiling")
    points = [(x(workers), y(rate.median)) for workers, rate in sorted(loader.items())]
    picture.path(points, "stroke-data")
    for workers, rate in loader.items():
        low, high = rate.interval
        _upright(picture, x(workers), y(low), y(high), "stroke-data")
        tip = f"loader alone, {workers} workers: {rate_text(rate.median)} img/s ({interval_text(low, high)})"
        picture.dot(x(workers), y(rate.median), "fill-data", tip)
    _predictions(picture, predicted, x, y)
    loop = profile.ceilings.loop
    picture.diamond(x(own), y(loop.median), "fill-loop", f"the loop, {own} workers: {rate_text(loop.median)} img/s")
    picture.text((x.start + x.end) / 2, y.start + 34, "workers a rank", "small", "middle")
    picture.height = y.start + 42
    return picture.render()


def _predictions(picture: Picture, predicted: dict[int, WhatIf], x: Scale, y: Scale) -> None:
    """The interval as a band, each prediction as a hollow diamond, what was measured of it as a full one."""
    if len(predicted) > 1:
        upper = [(x(workers), y(row.high)) for workers, row in predicted.items()]
        lower = [(x(workers), y(row.low)) for workers, row in reversed(predicted.items())]
        picture.path(upper + lower, "band", closed=True)
    for workers, row in predicted.items():
        _upright(picture, x(workers), y(row.low), y(row.high), "stroke-loop")
        tip = f"{workers} workers, predicted: {rate_text(row.predicted)} ({interval_text(row.low, row.high)}) img/s"
        picture.diamond(x(workers), y(row.predicted), "hollow", tip, half=8)
        if row.measured is not None:
            tip = f"{workers} workers, measured: {rate_text(row.measured)} img/s"
            picture.diamond(x(workers), y(row.measured), "fill-loop", tip, half=4)


def _upright(picture: Picture, x: float, low: float, high: float, style: str) -> None:
    picture.line((x, low), (x, high), style)
    for end in (low, high):
        picture.line((x - 4, end), (x + 4, end), style)


def _axes(picture: Picture, x: Scale, y: Scale, marks: Sequence[int]) -> None:
    for tick in y.ticks(5):
        picture.line((x.start, y(tick)), (x.end, y(tick)), "grid")
        picture.text(x.start - 6, y(tick) + 4, f"{tick:,.0f}", "small", "end")
    last = float("-inf")
    for mark in marks:
        if x(mark) - last > 8 + text_px(str(mark)):  # where marks are too close, the first of them speaks
            picture.text(x(mark), y.start + 17, str(mark), "small", "middle")
            last = x(mark)


def queue_plot(profile: Profile, width: float, name: str) -> str:
    """Batches ready at each ask, and beside that the share of the asks that found so many."""
    queue = profile.shown_rank.queue
    ready = queue.ready or ()
    words = f"{share_text(queue.empty_share)} of {len(ready)} asks found no batch ready, {share_text(queue.full_share)}"
    picture = Picture(name, width, "Batches ready when the loop asked", f"{words} found all {queue.depth}")
    wide = width >= 560
    y = Scale(max(queue.depth, *ready, 1), 150, 12)
    x = Scale(len(ready), 30, width - 200 if wide else width - 6)
    for tick in {round(tick) for tick in y.ticks(4)}:
        picture.line((x.start, y(tick)), (x.end, y(tick)), "grid")
        picture.text(x.start - 8, y(tick) + 4, str(tick), "small", "end")
    for start, mean in _grouped(ready):
        width_px = x(start + max(1, -(-len(ready) // _MOST_BARS))) - x(start)
        if mean > 0:
            picture.rect(x(start), y(mean), max(0.5, width_px - 0.6), y(0) - y(mean), "fill-data")
        else:
            picture.rect(x(start), y(0) - 3, max(0.5, width_px - 0.6), 3, "alarm", "no batch was ready")
    picture.line((x.start, y(0)), (x.end, y(0)), "ink")
    picture.text((x.start + x.end) / 2, y(0) + 17, f"{len(ready)} asks, in order", "small", "middle")
    left, top = (width - 180, 12.0) if wide else (30.0, y(0) + 36)
    picture.height = max(y(0) + 24, _histogram(picture, queue, (left, top), width - 4))
    return picture.render()


def _grouped(ready: Sequence[int]) -> list[Point]:
    """(number of the first ask, mean) of as many asks together as make the bars few enough."""
    size = max(1, -(-len(ready) // _MOST_BARS))
    groups = [ready[start : start + size] for start in range(0, len(ready), size)]
    return [(number * size, sum(group) / len(group)) for number, group in enumerate(groups)]


def _histogram(picture: Picture, queue: QueueRecord, corner: Point, right: float) -> float:
    """A bar for each number of batches that were ready, none at the top; returns where it ends."""
    ready = queue.ready or ()
    left, y = corner
    counts = [ready.count(number) for number in range(max(queue.depth, *ready, 0) + 1)]
    label_px = text_px("99 ready") + 6
    scale = Scale(max(counts), left + label_px, right - text_px("99.9%") - 4)
    shown = [(number, count) for number, count in enumerate(counts) if count or len(counts) <= 8]
    for number, count in shown[:12]:
        label = "none ready" if number == 0 else f"{number} ready"
        picture.text(scale.start - 6, y + 11, label if number else "0 ready", "small", "end")
        style = "alarm" if number == 0 else "fill-data"
        tip = f"{label}: {count} of {len(ready)} asks"
        picture.rect(scale.start, y, scale(count) - scale.start, 13, style, tip)
        picture.text(scale(count) + 5, y + 11, share_text(count / len(ready)), "small")
        y += 19
    return y + 4
