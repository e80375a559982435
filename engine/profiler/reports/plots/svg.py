"""A picture in SVG, written element by element: all that is text is escaped, every colour is a class of the page.

Coordinates are pixels of the picture, from the left and from above. A page shows a picture as wide as its column, so
text of 12 px is 12 px only where the picture was made for that width.
"""

import math
from dataclasses import dataclass, field
from html import escape

from ...number_text import plain

_CHARACTER_PX = 6.7  # mean width of a character at 12 px in a sans-serif font, rather too wide than too narrow


def safe(text: str) -> str:
    """`text` as it may stand in a page, in an attribute too."""
    return escape(plain(text), quote=True)


def text_px(text: str) -> float:
    """About how wide `text` is."""
    return len(text) * _CHARACTER_PX


def clipped(text: str, width_px: float) -> str:
    """`text`, or as much of it as fits into `width_px` and an ellipsis."""
    most = max(1, int(width_px / _CHARACTER_PX))
    return text if len(text) <= most else text[: most - 1] + "…"


@dataclass
class Picture:
    """`name` is unique in the page; `title` and `description` are what people hear who cannot see it."""

    name: str
    width: float
    title: str
    description: str
    height: float = 0.0
    _parts: list[str] = field(default_factory=list)

    def rect(self, x: float, y: float, width: float, height: float, style: str, tip: str = "") -> None:
        """A filled rectangle, at least half a pixel wide so that it is seen; `tip` shows up under the pointer."""
        inside = f"<title>{safe(tip)}</title>" if tip else ""
        self._add(f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 0.5):.1f}" height="{height:.1f}"', style, inside)

    def line(self, start: tuple[float, float], end: tuple[float, float], style: str) -> None:
        """A straight line between two points (x, y)."""
        self._add(f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"', style)

    def path(self, points: list[tuple[float, float]], style: str, closed: bool = False) -> None:
        """A line through `points`, or the area that they enclose."""
        steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self._add(f'<path d="M{steps}{"Z" if closed else ""}"', style)

    def dot(self, x: float, y: float, style: str, tip: str = "") -> None:
        """A round mark."""
        inside = f"<title>{safe(tip)}</title>" if tip else ""
        self._add(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4"', style, inside)

    def diamond(self, x: float, y: float, style: str, tip: str = "", half: float = 5.5) -> None:
        """A mark on its corner, which tells itself from a dot without colour."""
        inside = f"<title>{safe(tip)}</title>" if tip else ""
        self._add(f'<path d="M{x:.1f} {y - half:.1f}l{half} {half}l-{half} {half}l-{half} -{half}Z"', style, inside)

    def text(self, x: float, y: float, text: str, style: str = "", anchor: str = "start") -> None:
        """`text` with its base line at `y`; `anchor` start, middle or end lies at `x`."""
        self._add(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"', style, safe(text))

    def render(self) -> str:
        """The element, with its title and description."""
        label = f'role="img" aria-labelledby="{self.name}-title {self.name}-text"'
        return (
            f'<svg viewBox="0 0 {self.width:.0f} {self.height:.0f}" width="{self.width:.0f}" {label}>'
            f'<title id="{self.name}-title">{safe(self.title)}</title>'
            f'<desc id="{self.name}-text">{safe(self.description)}</desc>{"".join(self._parts)}</svg>'
        )

    def _add(self, start: str, style: str, inside: str = "") -> None:
        name = start[1:].split(" ", 1)[0]
        self._parts.append(f'{start} class="{style}">{inside}</{name}>')


@dataclass(frozen=True)
class Scale:
    """Values from 0 (or `low`) to `high` as pixels from `start` to `end`."""

    high: float
    start: float
    end: float
    low: float = 0.0

    def __call__(self, value: float) -> float:
        span = (self.high - self.low) or 1.0
        return self.start + (value - self.low) / span * (self.end - self.start)

    def ticks(self, about: int) -> list[float]:
        """Round values within the scale, some `about` of them: 1, 2 or 5 of a power of ten apart."""
        span = (self.high - self.low) or 1.0
        rough = span / max(1, about)
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
        first = math.ceil(self.low / step - 1e-9)
        return [number * step for number in range(first, math.floor(self.high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class Entry:
    """One line of a legend: `mark` is bar, dot, diamond, hollow or line."""

    mark: str
    style: str
    text: str


def legend(picture: Picture, entries: list[Entry], top: float) -> float:
    """Draw entries from the left, in as many rows as the width asks for; returns where the next thing may begin."""
    x, y = 0.0, top + 12
    for entry in entries:
        needed = 20 + text_px(entry.text) + 16
        if x > 0 and x + needed - 16 > picture.width:
            x, y = 0.0, y + 18
        if entry.mark == "bar":
            picture.rect(x, y - 9, 14, 10, entry.style)
        elif entry.mark == "line":
            picture.line((x, y - 4), (x + 14, y - 4), entry.style)
        elif entry.mark == "dot":
            picture.dot(x + 7, y - 4, entry.style)
        else:
            picture.diamond(x + 7, y - 4, entry.style)
        picture.text(x + 20, y, entry.text, "small")
        x += needed
    return y + 14
