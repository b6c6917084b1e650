"""Distributions of figures over users as bar charts; what one has is said in `exporter/fleet/distributions.py`."""

from bisect import bisect_right
from collections.abc import Sequence

from markupsafe import Markup

from exporter.artifact.results import FleetDocument
from exporter.report.svg import LEFT, RIGHT, TOP, WIDTH, Drawing, Scale, axes, drawing, short, ticks, upwards

_ROW = 24  # pixels of a class with its bar
_BAR = 15
_NAMES = 130  # pixels for the names of classes
_COUNTS = 140  # pixels for how many users there are
_LONGEST = 16  # signs of a name, for which there is room
_MOST_CLASSES = 24
_MOST_TICKS = 6
_LINE = 16  # pixels of a line of words
_HALF_LABEL = 14
_LEAST_BAR = 1.5  # pixels: one user of millions is seen


def distribution(name: str, document: FleetDocument) -> Markup:
    """Draw a distribution, which the page calls `name`."""
    return _classes(name, document) if "labels" in document else _histogram(name, document)


def _classes(name: str, document: FleetDocument) -> Markup:
    """Draw a bar to the right for each class, with how many users it has and which share that is."""
    pairs = list(zip(document["labels"], document["counts"], strict=True))
    total = sum(count for _, count in pairs) or 1
    drawn, others = pairs[:_MOST_CLASSES], pairs[_MOST_CLASSES:]
    if others:
        drawn = [*drawn, (f"{len(others):,} others", sum(count for _, count in others))]
    words = ", ".join(f"{label}: {count:,}" for label, count in drawn)
    into = drawing(name, document["title"], words, TOP + _ROW * len(drawn))
    into.write(document["unit"], 4, 14, "words")
    x = Scale(0, max([count for _, count in drawn] or [0]) or 1, _NAMES, WIDTH - _COUNTS)
    for at, (label, count) in enumerate(drawn):
        middle = TOP + _ROW * at + _BAR / 2
        into.write(label if len(label) <= _LONGEST else f"{label[:_LONGEST]}…", _NAMES - 8, middle + 4, anchor="end")
        if count:
            width = max(x(count) - x.start, _LEAST_BAR)
            into.add("rect", "bar a", x=x.start, width=width, y=middle - _BAR / 2, height=_BAR)
        into.write(f"{count:,}", WIDTH - 64, middle + 4, "total", "end")
        into.write(_share(count / total), WIDTH - 4, middle + 4, "words", "end")
    return into.markup()


def _share(share: float) -> str:
    """Return a share in percent, in which few are not none and most are not all."""
    percent = 100 * share
    if 0 < percent < 0.1:
        return "<0.1 %"
    return ">99.9 %" if 99.9 < percent < 100 else f"{percent:.1f} %"


def _histogram(name: str, document: FleetDocument) -> Markup:
    """Draw a bar upwards for each bin, all as wide, and lines at the marks."""
    edges, counts, marks = document["edges"], document["counts"], document.get("marks", ())
    ends = f", from {short(edges[0])} to {short(edges[-1])}" if counts else ""
    told = "".join(f"; {mark['label']} {short(mark['value'])}" for mark in marks)
    into = drawing(name, document["title"], f"{sum(counts):,} users{ends}{told}")
    x = Scale(0, max(len(counts), 1), LEFT, WIDTH - RIGHT - _HALF_LABEL)
    y = upwards(0, max([*counts, 1]), top=TOP + _LINE * len(marks))
    users = [(number, f"{number:,.0f}") for number in ticks(0, y.high) if float(number).is_integer()]
    axes(into, (x, _edge_ticks(edges), document["unit"]), (y, users, "users"))
    for at, count in enumerate(counts):
        if count:
            height = max(y.start - y(count), _LEAST_BAR)
            width = max(x(at + 1) - x(at) - 1, 0.5)
            into.add("rect", "bar a", x=x(at), width=width, y=y.start - height, height=height)
    for at, mark in enumerate(marks):
        _mark(into, f"{mark['label']} {short(mark['value'])}", _place(mark["value"], edges), TOP + _LINE * at, (x, y))
    return into.markup()


def _edge_ticks(edges: Sequence[float]) -> list[tuple[float, str]]:
    """Return places and labels of some edges: whole powers of ten where there are some, or else every so many."""
    tens = [at for at, edge in enumerate(edges) if edge > 0 and f"{edge:e}".startswith("1.000000e")]
    chosen = tens if len(tens) > 1 else list(range(len(edges)))
    step = -(-len(chosen) // _MOST_TICKS)
    shown = {*chosen[::step], *([0] if edges and edges[0] == 0 else [])}
    return [(at, short(edges[at])) for at in sorted(shown)]


def _place(value: float, edges: Sequence[float]) -> float | None:
    """Return where among the bins a figure is, None where it is beyond them."""
    if not edges or not edges[0] <= value <= edges[-1]:
        return None
    at = min(bisect_right(edges, value), len(edges) - 1) - 1
    low, high = edges[at], edges[at + 1]
    return at + (value - low) / (high - low)


def _mark(into: Drawing, words: str, place: float | None, level: float, scales: tuple[Scale, Scale]) -> None:
    x, y = scales
    if place is None:
        into.write(f"{words} →", x.end, level, "on", "end")
        return
    into.add("line", "mark", x1=x(place), x2=x(place), y1=y.end, y2=y.start)
    into.write_beside(words, x(place), level)
