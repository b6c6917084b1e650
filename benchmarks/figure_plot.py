"""Pictures of benchmarks as SVG that stands alone: panels with curves or bars, one legend below, light and dark.

Equal numbers give equal bytes: nothing of the day, the machine or a library's version is in a picture.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element, SubElement

from exporter.report import svg
from exporter.report.svg import Drawing, Scale

_STYLE = """
svg { --text: #1b2230; --soft: #566074; --grid: #d5d9e0; --card: #ffffff;
  --a: #1d55b8; --b: #a34a00; --c: #1b7a4a; --d: #8a2f86; --e: #7d6300; --f: #5b6470 }
@media (prefers-color-scheme: dark) {
  svg { --text: #e8ecf2; --soft: #a9b3c3; --grid: #36404f; --card: #1a202a;
    --a: #8fb8ff; --b: #ffb277; --c: #7fd6a6; --d: #e3a0df; --e: #e3cb6b; --f: #b9c2ce }
}
text { fill: var(--text); font: 11.5px sans-serif }
.words { fill: var(--soft) } .grid { stroke: var(--grid) } .axis { stroke: var(--soft) }
.back { fill: var(--card) } .line { fill: none; stroke-width: 1.5 }
.dots { fill: none; stroke-width: 6; stroke-linecap: round }
.b.line { stroke-dasharray: 6 3 } .c.line { stroke-dasharray: 2 2 } .d.line { stroke-dasharray: 8 2 2 2 }
.e.line { stroke-dasharray: 4 4 } .f.line { stroke-dasharray: 1 3 }
"""
_COLOURS = "abcdef"
_STYLED = "".join(f".{css} {{ stroke: var(--{css}) }} .bar.{css} {{ fill: var(--{css}) }}\n" for css in _COLOURS)
_LEGEND_ROW, _SAMPLE, _LETTER, _GAP = 20, 26, 6.2, 22
_RIGHT = svg.WIDTH - svg.RIGHT - 20  # the last label of an axis is centred below its tick
_BARS = 0.8
"""The part of a place on the axis that its bars take."""


@dataclass(frozen=True)
class Axis:
    """What an axis is of, with its unit; `ticks` are (number, label), and where there are none round numbers are taken.

    A `logarithmic` one has ticks at its decades then; a linear one begins at 0.
    """

    words: str
    logarithmic: bool = False
    ticks: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True)
class Curve:
    """Numbers (x, y) by name; a curve has one colour in all panels that have one of this name."""

    name: str
    places: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """Curves in one pair of axes; as `bars` the x are 0, 1, 2, ... and the ticks of the axis name them."""

    x: Axis
    y: Axis
    curves: Sequence[Curve] = field(default_factory=tuple)
    bars: bool = False


def drawn(name: str, title: str, panels: Sequence[Panel], columns: int = 2) -> str:
    """Return an SVG of panels side by side, `columns` in a row; raises ValueError for more curves than colours."""
    names = list(dict.fromkeys(curve.name for panel in panels for curve in panel.curves))
    colours = dict(zip(names, _COLOURS, strict=False))
    if len(names) > len(colours):
        raise ValueError(f"{len(names)} curves, and {len(_COLOURS)} colours")
    width, rows = min(columns, len(panels)) * svg.WIDTH, -(-len(panels) // columns)
    legend = list(_legend(names, width))
    height = rows * svg.HEIGHT + (1 + legend[-1][2]) * _LEGEND_ROW + 6
    into = svg.drawing(name, title, " ".join(map(_told, panels)))
    into.root.set("viewBox", f"0 0 {width} {height}")
    into.root.set("xmlns", "http://www.w3.org/2000/svg")
    style = Element("style")
    style.text = _STYLE + _STYLED
    into.root.insert(0, style)
    into.add("rect", "back", x=0, y=0, width=width, height=height)
    for index, panel in enumerate(panels):
        at = index % columns * svg.WIDTH, index // columns * svg.HEIGHT
        group = SubElement(into.root, "g", {"transform": f"translate({at[0]} {at[1]})"})
        _draw(Drawing(group), panel, colours)
    for words, x, row in legend:
        y = rows * svg.HEIGHT + row * _LEGEND_ROW + 10
        css = colours[words]
        into.add("line", f"line {css}", x1=x, x2=x + _SAMPLE, y1=y, y2=y)
        into.add("path", f"dots {css}", d=svg.dots([(x + _SAMPLE / 2, y)]))
        into.write(words, x + _SAMPLE + 6, y + 4)
    return str(into.markup()) + "\n"


def _legend(names: Iterable[str], width: float) -> Iterable[tuple[str, float, int]]:
    """Yield each name with its place: x in pixels, and its row."""
    x, row = float(svg.LEFT), 0
    for name in names:
        needed = _SAMPLE + 6 + _LETTER * len(name)
        if x + needed > width and x > svg.LEFT:
            x, row = float(svg.LEFT), row + 1
        yield name, x, row
        x += needed + _GAP


def _told(panel: Panel) -> str:
    """Return a panel's numbers in words."""
    labels = dict(panel.x.ticks) if panel.bars else {}
    curves = (
        f"{curve.name}: " + ", ".join(f"{y:.4g} at {labels.get(x, f'{x:,.6g}')}" for x, y in curve.places)
        for curve in panel.curves
    )
    return f"{panel.y.words} over {panel.x.words}. {'; '.join(curves)}."


def _draw(into: Drawing, panel: Panel, colours: dict[str, str]) -> None:
    """Draw the axes of a panel and what is in them."""
    x, x_ticks = _scale(panel.x, [x for curve in panel.curves for x, _ in curve.places], svg.LEFT, _RIGHT, panel.bars)
    numbers = [y for curve in panel.curves for _, y in curve.places]
    y, y_ticks = _scale(panel.y, numbers, svg.HEIGHT - svg.BOTTOM, svg.TOP)
    svg.axes(into, (x, x_ticks, panel.x.words), (y, y_ticks, panel.y.words))
    for index, curve in enumerate(panel.curves):
        css = colours[curve.name]
        if panel.bars:
            _draw_bars(into, [(at, x, y) for at in curve.places], index, len(panel.curves), css)
            continue
        places = [(x(across), y(up)) for across, up in curve.places]
        into.add("path", f"line {css}", d=svg.polyline(places))
        into.add("path", f"dots {css}", d=svg.dots(places))


def _draw_bars(
    into: Drawing, bars: Sequence[tuple[tuple[float, float], Scale, Scale]], index: int, count: int, css: str
) -> None:
    """Draw the bars of curve `index` of `count`, which stand side by side."""
    for (across, up), x, y in bars:
        start = across - _BARS / 2 + index * _BARS / count
        left, right = x(start), x(start + _BARS / count)
        into.add("rect", f"bar {css}", x=left, y=y(up), width=max(right - left, 1), height=y(0) - y(up))


def _scale(
    axis: Axis, numbers: Sequence[float], start: float, end: float, bars: bool = False
) -> tuple[Scale, Sequence[tuple[float, str]]]:
    """Return the scale of an axis and its ticks."""
    numbers = [*numbers, *(number for number, _ in axis.ticks)]
    low, high = min(numbers), max(numbers)
    if bars:
        return Scale(low - 0.5, high + 0.5, start, end), axis.ticks
    if axis.ticks:
        return Scale(low, high, start, end, math.log10 if axis.logarithmic else float), axis.ticks
    if axis.logarithmic:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        marks = [10.0**power for power in powers]
        return Scale(marks[0], marks[-1], start, end, math.log10), [(mark, svg.short(mark)) for mark in marks]
    high = 1.1 * high or 1.0
    return Scale(0, high, start, end), [(mark, svg.short(mark)) for mark in svg.ticks(0, high)]
