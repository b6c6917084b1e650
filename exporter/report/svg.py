"""Drawings as elements of a page: axes, marks and words as SVG, made as a tree so that no name can become markup."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

from safeio.errors import printable

WIDTH, HEIGHT = 420, 280
LEFT, RIGHT, TOP, BOTTOM = 66, 12, 28, 42
_MOST_TICKS = 6
_ZEROS = re.compile(r"(?:\.0+|(\.\d*?[1-9])0+)(?= |$)")
_LEAST_SPAN = 1e-300
_LEAST_PLAIN = 1e-3


@dataclass(frozen=True)
class Scale:
    """Where numbers lie on an axis: `forward` of `low` is at `start`, that of `high` at `end`, in pixels."""

    low: float
    high: float
    start: float
    end: float
    forward: Callable[[float], float] = float

    def __call__(self, number: float) -> float:
        """Return the place of a number, rounded to half a pixel; what is far off the axis is somewhere off it."""
        low, high = self.forward(self.low), self.forward(self.high)
        share = (self.forward(number) - low) / (high - low) if high > low else 0.5
        share = min(max(share, -1.0), 2.0)
        return round(2 * (self.start + share * (self.end - self.start))) / 2


@dataclass(frozen=True)
class Drawing:
    """An SVG that is being drawn: `root` is its element."""

    root: Element

    def add(self, tag: str, css: str, **at: float | str) -> Element:
        """Draw one element; `css` are its classes, `at` its attributes."""
        shown = {
            name.replace("_", "-"): value if isinstance(value, str) else f"{value:g}" for name, value in at.items()
        }
        return SubElement(self.root, tag, {"class": css, **shown})

    def write(self, words: str, x: float, y: float, css: str = "", anchor: str = "start") -> None:
        """Write words whose line is at `y`; `anchor` says what of them is at `x`: `start`, `middle` or `end`."""
        self.add("text", css, x=x, y=y, text_anchor=anchor).text = printable(words)

    def write_beside(self, words: str, x: float, y: float) -> None:
        """Write words on that side of a line at `x` where there is more room."""
        right = x < WIDTH / 2
        self.write(words, x + (5 if right else -5), y, "on", "start" if right else "end")

    def markup(self) -> Markup:
        """Return it as a part of a page."""
        return Markup(tostring(self.root, encoding="unicode"))  # noqa: S704 - ElementTree has escaped all texts


def drawing(name: str, title: str, description: str, height: float = HEIGHT) -> Drawing:
    """Begin a drawing with its name in the page, and what it says for those who do not see it."""
    root = Element("svg", {"viewBox": f"0 0 {WIDTH} {height:g}", "role": "img"})
    root.set("aria-labelledby", f"{name}-title {name}-words")
    SubElement(root, "title", id=f"{name}-title").text = printable(title)
    SubElement(root, "desc", id=f"{name}-words").text = printable(description)
    return Drawing(root)


def across(low: float, high: float) -> Scale:
    """Return the scale of a plot from left to right."""
    return Scale(low, high, LEFT, WIDTH - RIGHT)


def upwards(low: float, high: float, forward: Callable[[float], float] = float, top: float = TOP) -> Scale:
    """Return the scale of a plot from its lower edge to its upper."""
    return Scale(low, high, HEIGHT - BOTTOM, top, forward)


def axes(
    into: Drawing,
    horizontal: tuple[Scale, Iterable[tuple[float, str]], str],
    vertical: tuple[Scale, Iterable[tuple[float, str]], str],
) -> None:
    """Draw a grid, the ticks (number and label) of both axes, and what they are of."""
    x, x_ticks, x_words = horizontal
    y, y_ticks, y_words = vertical
    for number, label in y_ticks:
        into.add("line", "grid", x1=x.start, x2=x.end, y1=y(number), y2=y(number))
        into.write(label, x.start - 6, y(number) + 4, anchor="end")
    into.add("line", "axis", x1=x.start, x2=x.end, y1=y.start, y2=y.start)
    for number, label in x_ticks:
        into.add("line", "axis", x1=x(number), x2=x(number), y1=y.start, y2=y.start + 4)
        into.write(label, x(number), y.start + 17, anchor="middle")
    into.write(x_words, (x.start + x.end) / 2, y.start + 35, "words", "middle")
    into.write(y_words, 4, 12, "words")


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers from `low` to `high`, a few of them."""
    span = high - low
    if not _LEAST_SPAN < span < math.inf:
        return [low]
    step = 10.0 ** math.floor(math.log10(span / _MOST_TICKS))
    step *= next(factor for factor in (1, 2, 5, 10, 20) if span / (factor * step) <= _MOST_TICKS)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [number * step for number in range(first, last + 1)]


def short(number: float) -> str:
    """Return a number for a tick, such as 5, 0.25 or 1e-6."""
    text = f"{number:.4g}" if not 0 < abs(number) < _LEAST_PLAIN else f"{number:.4e}"
    digits, _, power = text.partition("e")
    return f"{float(digits):g}e{int(power)}" if power else digits


def plain(label: str) -> str:
    """Return a label of a tick without the digits that say nothing: 500.000 k is 500 k."""
    return _ZEROS.sub(r"\1", label)


def dots(places: Iterable[tuple[float, float]]) -> str:
    """Return a path with a dot at each place; those that fall on the same half pixel are one."""
    return "".join(f"M{x:g} {y:g}h0" for x, y in sorted(set(places)))


def polyline(places: Sequence[tuple[float, float]]) -> str:
    """Return a path from place to place."""
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in places)
