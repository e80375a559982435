import re
from dataclasses import fields, is_dataclass, replace
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from shown_profiles import bare, full

from engine.profiler.record import Rate, Span
from engine.profiler.reports.files import write_reports
from engine.profiler.reports.html_report import page, write_page
from engine.profiler.reports.page_style import STYLE
from engine.profiler.reports.plots.curves import queue_plot
from engine.profiler.reports.plots.svg import Scale

NASTY = "\"'><script>alert(1)</script><img src=https://evil.example/x onerror=alert(2)>&lt;\x1b[2J\x00]]>"
_VOID = {"meta", "br", "img", "link", "input", "hr"}


class Elements(HTMLParser):
    """All elements with their attributes, and that each is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.found, self.open, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def spoiled(value):
    """`value` with every text in it nasty; record by record, and keys of free dictionaries too."""
    if is_dataclass(value):
        return replace(value, **{f.name: spoiled(getattr(value, f.name)) for f in fields(value)})
    if isinstance(value, str):
        return NASTY
    if isinstance(value, tuple):
        return tuple(spoiled(item) for item in value)
    if isinstance(value, dict):
        return {spoiled(key): spoiled(item) for key, item in value.items()}
    return value


def pictures(text):
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]


@pytest.mark.parametrize("profile", [full(), bare(), spoiled(full()), spoiled(bare())], ids=["full", "bare", "-", "--"])
def test_it_needs_no_network_and_runs_nothing_whatever_names_hold(profile):
    elements = Elements(page(profile))
    for tag, attributes in elements.found:
        assert tag not in {"script", "img", "link", "iframe", "object", "embed", "image", "use", "foreignobject"}
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "href", "xlink:href")]
        assert "url(" not in (attributes.get("style") or "")
    assert "@import" not in STYLE and "url(" not in STYLE
    policies = [attributes["content"] for _, attributes in elements.found if "http-equiv" in attributes]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_nasty_names_are_shown_as_they_are_but_for_what_cannot_be_seen():
    elements = Elements(page(spoiled(full())))
    assert NASTY.replace("\x1b", "�").replace("\x00", "�") in elements.text
    assert "\x1b" not in elements.text and "\x00" not in elements.text


@pytest.mark.parametrize("profile", [full(), bare(), spoiled(full())], ids=["full", "bare", "spoiled"])
def test_pictures_are_well_formed_have_titles_and_stay_within_their_frame(profile):
    found = pictures(page(profile))
    assert len(found) == (12 if profile.timeline else 6)
    names = [element.get("id") for picture in found for element in picture.iter() if element.get("id")]
    assert len(names) == len(set(names)) == 2 * len(found)
    for picture in found:
        title, description = picture[0], picture[1]
        assert (title.tag, description.tag) == ("title", "desc") and title.text and description.text
        assert picture.get("aria-labelledby").split() == [title.get("id"), description.get("id")]
        _, _, width, height = map(float, picture.get("viewBox").split())
        for rect in picture.iter("rect"):
            x, y, w, h = (float(rect.get(name)) for name in ("x", "y", "width", "height"))
            assert x >= -0.1 and y >= -0.1 and x + w <= width + 1 and y + h <= height + 0.1


def test_the_verdict_stands_before_the_first_picture():
    text = page(full())
    assert text.index("Decode-bound") < text.index("<svg")


def test_bars_and_numbers_agree_with_the_profile():
    picture = next(p for p in pictures(page(full())) if p[0].get("id") == "ceilings-wide-title")
    tips = {
        rect.find("title").text: float(rect.get("width"))
        for rect in picture.iter("rect")
        if rect.find("title") is not None
    }
    widths = {text.split(":")[0]: width for text, width in tips.items()}
    assert widths["the loop"] / widths["step alone"] == pytest.approx(5050 / 14480, abs=2e-3)
    assert any(text.startswith("the loop: 5,050 img/s, 95% interval 4,949 … 5,151") for text in tips)


def test_stages_follow_each_other_without_gap_or_overlap():
    picture = next(p for p in pictures(page(full())) if p[0].get("id") == "waterfall-wide-title")
    walls = [rect for rect in picture.iter("rect") if rect.find("title") is not None and "fill-" in rect.get("class")]
    walls = [rect for rect in walls if re.search("pale|open", rect.get("class"))]
    assert len(walls) == 13  # all but pin
    for before, after in pairwise(walls):
        # a stage too short to be seen is drawn half a pixel wide
        assert float(after.get("x")) == pytest.approx(float(before.get("x")) + float(before.get("width")), abs=0.6)


def test_what_was_not_seen_says_n_a_with_its_reason():
    text = Elements(page(bare())).text
    assert "decode, augment: inside DALI's pipeline, which cannot be looked into" in text
    assert "DALI does not tell how many batches are ready" in text
    assert "n/a of 3 on average" in text
    for absent in ("Throughput", "Timeline", "What if", "NVML", "Ranks"):
        assert absent not in text


def test_a_long_queue_is_drawn_in_groups_and_keeps_its_mean():
    ready = tuple(number % 5 for number in range(10_000))
    rank = replace(full().ranks[0], queue=replace(full().ranks[0].queue, ready=ready, depth=4))
    picture = ElementTree.fromstring(queue_plot(replace(full(), ranks=(rank,)), 780, "q"))
    assert len(list(picture.iter("rect"))) < 300
    assert "20%" in "".join(picture.itertext())


@pytest.mark.parametrize(("high", "about"), [(14_480, 5), (0.31, 4), (4, 4), (1e-9, 3), (7, 1), (0, 3)])
def test_ticks_are_round_within_the_scale_and_not_too_many(high, about):
    ticks = Scale(high, 0, 100).ticks(about)
    assert ticks[0] == 0 and ticks[-1] <= (high or 1) * 1.0001 and len(ticks) <= about + 1
    steps = {f"{b - a:.2e}"[:4] for a, b in pairwise(ticks)}
    assert steps <= {"1.00", "2.00", "5.00"} and len(steps) <= 1


def test_odd_profiles_are_drawn_too():
    profile = full()
    lone = replace(profile, timeline=(Span("wait", 0, 0, 0.0, 0.0),), ceilings=replace(profile.ceilings, loader={}))
    assert Elements(page(lone))
    empty = replace(bare(), ranks=(replace(bare().ranks[0], stages=()),))
    assert Elements(
        page(replace(empty, ceilings=replace(empty.ceilings, step=Rate((0.0,)), loop=Rate((0.0,)), loader={})))
    )


def colours(theme):
    """Variables of the light (0) or the dark (1) theme."""
    block = STYLE.split("@media (prefers-color-scheme: dark)")[theme]
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block.split("* {")[0]))


def contrast(one, other):
    """By WCAG 2.2, 1 … 21."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_and_bars_can_be_told_from_what_is_behind_them(theme):
    used = colours(theme)
    for text in ("ink", "soft"):
        assert contrast(used[text], used["card"]) >= 4.5 and contrast(used[text], used["page"]) >= 4.5
    for bar, text in (("data", "on-light"), ("other", "on-light"), ("copy", "on-dark"), ("compute", "on-dark")):
        assert contrast(used[bar], used["card"]) >= 2.5 and contrast(used[bar], used[text]) >= 4.5
    assert contrast(used["ink"], used["badge"]) >= 4.5


def test_files_of_a_profile_are_written_and_a_trace_of_before_does_not_stay(tmp_path):
    folder = tmp_path / "deep" / "profile"
    assert [path.name for path in write_reports(folder, full())] == ["report.json", "report.html", "trace.json"]
    assert [path.name for path in write_reports(folder, bare())] == ["report.json", "report.html"]
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json"]
    assert (folder / "report.html").read_text(encoding="utf-8") == page(bare())
    write_page(tmp_path / "page.html", full())
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page(full())
