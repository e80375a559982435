"""Plots in rows: ceilings, the way of an image through the stages, and what of the loop's time each stage has."""

from ...number_text import NOT_SEEN, plain, rate_interval_text, rate_text, share_text, time_text
from ...record import Profile, StageRecord
from ..report_rows import ceiling_rows, group_of, seen
from .svg import Entry, Picture, Scale, clipped, legend, text_px

_ROW = 26
_BAR = 14


def ceilings_plot(profile: Profile, width: float, name: str) -> str:
    """A bar a rate up to its median, its 95 % interval, and a dot a round."""
    rows = ceiling_rows(profile)
    had = [(row.label, row.rate) for row in rows if row.rate is not None]
    words = "; ".join(f"{label} {rate_text(rate.median)}" for label, rate in had)
    picture = Picture(name, width, "Ceilings in images a second", words)
    label_px = max(text_px(row.label) for row in rows) + 8
    most = max((rate.high for _, rate in had), default=1.0)
    scale = Scale(most * 1.02, label_px, width - text_px("99,999") - 10)
    y = 4.0
    for row in rows:
        middle = y + _ROW / 2
        picture.text(label_px - 8, middle + 4, row.label, anchor="end")
        if row.rate is None:
            reason = clipped(f"{NOT_SEEN}: {plain(row.note)}", width - label_px)
            picture.text(label_px, middle + 4, reason, "small")
        else:
            rate, (low, high) = row.rate, row.rate.interval
            tip = f"{row.label}: {rate_text(rate.median)} img/s, 95% interval {rate_interval_text(rate)}"
            picture.rect(label_px, middle - _BAR / 2, scale(rate.median) - label_px, _BAR, f"fill-{row.group}", tip)
            for value in rate.rounds if len(rate.rounds) > 1 else ():
                picture.line((scale(value), middle - 10), (scale(value), middle - 7), "ink thin")
            if len(rate.rounds) > 1:
                _interval(picture, scale(low), scale(high), middle)
            picture.text(scale(rate.high) + 8, middle + 4, rate_text(rate.median), "strong")
        y += _ROW
    entries = [Entry("bar", "fill-compute", "computing"), Entry("bar", "fill-copy", "computing, fed")]
    entries += [Entry("bar", "fill-data", "loading"), Entry("bar", "fill-loop", "the loop, with both")]
    picture.height = legend(picture, entries, y + 6)
    return picture.render()


def _interval(picture: Picture, low: float, high: float, middle: float) -> None:
    picture.line((low, middle), (high, middle), "ink")
    for end in (low, high):
        picture.line((end, middle - 4), (end, middle + 4), "ink")


def waterfall_plot(profile: Profile, width: float, name: str) -> str:
    """Each stage's time an image, beginning where the one before ends; of it, what a processor worked."""
    stages = [stage for stage in profile.shown_rank.stages if stage.wall_us is not None]
    unknown = [stage for stage in profile.shown_rank.stages if stage.wall_us is None]
    total = sum(stage.wall_us or 0.0 for stage in stages)
    words = "; ".join(f"{stage.name} {time_text(stage.wall_us)}" for stage in stages)
    picture = Picture(name, width, "An image's way through the stages", plain(words) or "no stage could be seen")
    label_px, value_px = 74.0, text_px("9.99 ms") + 4
    scale = Scale(total, label_px, width - 4)
    y, at = 4.0, 0.0
    for stage in [*stages, *unknown]:
        middle = y + _ROW / 2
        limiting = stage.name == profile.verdict.bottleneck
        picture.text(label_px - 8, middle + 4, clipped(plain(stage.name), 64), "strong" if limiting else "", "end")
        if stage.wall_us is None:
            reason = clipped(f"{NOT_SEEN}: {plain(stage.note)}", width - label_px)
            picture.text(label_px, middle + 4, reason, "small")
        else:
            start, end = scale(at), scale(at + stage.wall_us)
            picture.line((label_px, y + _ROW), (width, y + _ROW), "grid")
            _stage_bar(picture, stage, scale, at, middle)
            after = end + 6 + value_px <= width
            place = (end + 6, "start") if after else (start - 6, "end")
            picture.text(place[0], middle + 4, time_text(stage.wall_us), "strong" if limiting else "", place[1])
            at += stage.wall_us
        y += _ROW
    entries = [Entry("bar", "fill-data", "on a processor"), Entry("bar", "fill-data pale", "waiting")]
    entries.append(Entry("bar", "fill-compute open", "which of them is n/a"))
    picture.height = legend(picture, entries, y + 6)
    return picture.render()


def _stage_bar(picture: Picture, stage: StageRecord, scale: Scale, at: float, middle: float) -> None:
    group, wall = group_of(stage.name), stage.wall_us or 0.0
    cpu = "CPU n/a" if stage.cpu_us is None else f"CPU {time_text(stage.cpu_us)}"
    tip = f"{stage.name} ({stage.where}): {time_text(wall)} wall, {cpu}, p99 {time_text(stage.p99_us)}"
    kind = "open" if stage.cpu_us is None else "pale"
    picture.rect(scale(at), middle - _BAR / 2, scale(at + wall) - scale(at), _BAR, f"fill-{group} {kind}", tip)
    if stage.cpu_us is not None:
        # several threads at once can work longer than the wall's time: the bar is full then
        worked = min(stage.cpu_us, wall)
        picture.rect(scale(at), middle - _BAR / 2, scale(at + worked) - scale(at), _BAR, f"fill-{group}", tip)


def shares_plot(profile: Profile, width: float, name: str) -> str:
    """One bar: the loop's time, a piece a stage; the pieces that are wide enough carry their name."""
    parts = [(stage, stage.critical_share) for stage in seen(profile.shown_rank.stages) if stage.critical_share]
    words = ", ".join(f"{stage.name} {share_text(share)}" for stage, share in parts)
    picture = Picture(name, width, "What the loop's time goes into", plain(words) or "not measured")
    scale = Scale(max(1.0, sum(share for _, share in parts)), 0, width)
    at = 0.0
    for stage, share in parts:
        start, wide = scale(at), scale(at + share) - scale(at)
        tip = f"{stage.name}: {share_text(share)} of the loop's time"
        picture.rect(start, 2, wide - 1, 30, f"fill-{group_of(stage.name)}", tip)
        label = f"{plain(stage.name)} {share_text(share)}"
        for text in (label, plain(stage.name)):
            if text_px(text) * 1.1 + 10 < wide:  # it is bold
                picture.text(start + wide / 2, 21, text, f"on-{group_of(stage.name)}", "middle")
                break
        at += share
    picture.height = 34
    return picture.render()
