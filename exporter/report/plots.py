"""The plots of a report: each takes figures that were measured elsewhere, and returns a drawing of them."""

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

from exporter.core.explanation import OffValue
from exporter.core.sections import Growth, Transfer
from exporter.report.rows import figure_at, line_of
from exporter.report.svg import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Scale,
    across,
    axes,
    dots,
    drawing,
    plain,
    polyline,
    short,
    ticks,
    upwards,
)
from exporter.report.units import microseconds

_BARS = 48
_SLOWEST_SHOWN = 0.99  # of the calls; a few that were disturbed would else press all others into one bar
_FAR = 1.5  # of the slowest that is drawn
_LABEL = 13  # pixels of a line of words
_MOST_DECADES = 4
_LONGEST = 40  # signs of a name, for which there is room; tables have all of them
_LEAST = 1e-12  # an error below it is none: a plot has to end somewhere


def errors(
    name: str,
    pairs: Sequence[tuple[float, float]],
    flip_margin: float | None,
    tolerance: float | None,
) -> Markup:
    """Draw how far scores of an artifact are from torch's, over torch's: pairs of (torch, artifact).

    Two scores can change places only where one is off by more than half their gap: the band is half the smallest.
    """
    off = [(torch, artifact - torch) for torch, artifact in pairs]
    margin = flip_margin / 2 if flip_margin else None
    bounds = [bound for bound in (margin, tolerance) if bound]
    largest = max([abs(error) for _, error in off] + bounds + [_LEAST])
    smallest = min((abs(error) for _, error in off if error), default=largest)
    power = math.floor(math.log10(max(smallest, largest / 10**_MOST_DECADES)))
    near = 10.0**power

    def bent(number: float) -> float:
        """Return a number on an axis that is even up to `near` and logarithmic beyond it."""
        return math.copysign(math.log10(1 + abs(number) / near), number)

    low, high = min(torch for torch, _ in off), max(torch for torch, _ in off)
    x, y = across(low, high), upwards(-1.6 * largest, 1.6 * largest, bent)
    worst = max(abs(error) for _, error in off)
    words = f"{len(off):,} scores from {short(low)} to {short(high)}; the largest error drawn is {worst:.2e}"
    words += f"; tolerance {tolerance:.2e}" if tolerance else ""
    words += f"; half the smallest gap at rank 10 is {margin:.2e}" if margin else ""
    into = drawing(name, "Error of each score over torch's score", words)
    if margin:
        into.add("rect", "band", x=x.start, width=x.end - x.start, y=y(margin), height=y(-margin) - y(margin))
    highest = math.floor(math.log10(largest))
    powers = [10.0**at for at in range(min(power + 1, highest), highest + 1)]
    y_ticks = [(sign * size, short(sign * size)) for size in powers for sign in (1, -1)] + [(0.0, "0")]
    axes(into, (x, [(n, short(n)) for n in ticks(low, high)], "torch's score"), (y, y_ticks, "artifact - torch"))
    into.add("path", "dots a", d=dots((x(torch), y(error)) for torch, error in off))
    for sign in (1, -1) if tolerance else ():
        at = y(sign * (tolerance or 0.0))
        into.add("line", "limit", x1=x.start, x2=x.end, y1=at, y2=at)
    if tolerance:
        into.write(f"tolerance {tolerance:.1e}", x.end - 4, y(tolerance) - 4, "on", "end")
    if margin:
        below = tolerance and abs(y(tolerance) - y(margin)) < _LABEL + 2
        into.write(f"half the smallest gap {margin:.1e}", x.end - 4, y(margin) + (11 if below else -4), "on", "end")
    return into.markup()


def growth(name: str, title: str, drawn: Growth, keys: Sequence[tuple[str, str]], form: Callable[..., str]) -> Markup:
    """Draw figures over lengths, and the line of each: `keys` are label and field, as in rows.GROWING."""
    series = [
        (label, [(point.tokens, figure_at(point, key)) for point in drawn.points], line_of(drawn, key))
        for label, key in keys
    ]
    numbers = [number for _, points, _ in series for _, number in points if number is not None]
    lengths = [point.tokens for point in drawn.points]
    x, y = across(min(lengths), max(lengths)), upwards(min(0.0, *numbers), max(numbers) * 1.12 or 1.0)
    words = "; ".join(
        f"{label}: " + ", ".join(f"{form(number)} at {tokens} clicks" for tokens, number in points)
        for label, points, _ in series
    )
    into = drawing(name, title, words)
    labels = [(number, plain(form(number))) for number in ticks(y.low, y.high)]
    axes(into, (x, [(length, str(length)) for length in lengths], "clicks of history"), (y, labels, title))
    for css, (label, points, line) in zip("abcd", series, strict=False):
        places = [(x(tokens), y(number)) for tokens, number in points if number is not None]
        if line is not None:
            ends = [(x(length), y(line.at_zero + line.per_token * length)) for length in (lengths[0], lengths[-1])]
            into.add("path", f"line {css}", d=polyline(ends))
        into.add("path", f"dots big {css}", d=dots(places))
        if places:
            into.write(label, x.end - 4, places[-1][1] - 9, "on", "end")
    return into.markup()


def latencies(name: str, samples: Sequence[float], marks: Sequence[tuple[str, float | None]]) -> Markup:
    """Draw how many calls took how long, in us, and lines at `marks`; the slowest in a hundred calls are counted."""
    ordered = sorted(samples)
    low, high = ordered[0], ordered[int(_SLOWEST_SHOWN * (len(ordered) - 1))]
    known = [(label, number) for label, number in marks if number is not None]
    far = [(label, number) for label, number in known if number > _FAR * high]  # it would press all bars into one
    drawn = [mark for mark in known if mark not in far]
    low, high = min([low, *(number for _, number in drawn)]), max([high, *(number for _, number in drawn)])
    high = high * 1.02 if high > low else low * 1.02 + 1e-3
    width = (high - low) / _BARS
    counts = [0] * _BARS
    for sample in ordered:
        if low <= sample < high:
            counts[min(int((sample - low) / width), _BARS - 1)] += 1
    slower = sum(sample >= high for sample in ordered)
    x, y = across(low, high), upwards(0, max(counts) or 1, top=TOP + 2 * _LABEL)
    told = ", ".join(f"{label} {microseconds(number)}" for label, number in known)
    words = f"{len(ordered):,} calls from {microseconds(ordered[0])} to {microseconds(ordered[-1])}; {told}"
    into = drawing(name, "How long calls took", words)
    y_ticks = [(number, f"{number:,.0f}") for number in ticks(0.0, max(counts)) if float(number).is_integer()]
    axes(into, (x, [(number, short(number)) for number in ticks(low, high)], "us per call"), (y, y_ticks, "calls"))
    for at, calls in enumerate(counts):
        left, right = x(low + at * width), x(low + (at + 1) * width)
        if calls:
            into.add("rect", "bar a", x=left, width=max(right - left - 0.5, 0.5), y=y(calls), height=y.start - y(calls))
    for at, (label, number) in enumerate(drawn):
        place, level = x(number), TOP - 12 + at * _LABEL
        into.add("line", "mark", x1=place, x2=place, y1=level + 2, y2=y.start)
        into.write_beside(f"{label} {microseconds(number)}", place, level + 9)
    for at, (label, number) in enumerate(far, start=len(drawn)):
        into.write(f"{label} {microseconds(number)} →", x.end, TOP - 3 + at * _LABEL, "on", "end")
    if slower:
        words = f"{slower} slower, up to {microseconds(ordered[-1])}"
        into.write(words, x.end, y.start - 6, "on", "end")
    return into.markup()


def parts(name: str, title: str, rows: Sequence[tuple[str, float, str]]) -> Markup:
    """Draw what a whole is made of as one bar, and below it each part with its label and text: (label, size, text)."""
    total = sum(size for _, size, _ in rows) or 1.0
    bar, legend = 20, 64
    words = ", ".join(f"{label} {text}" for label, _, text in rows)
    into = drawing(name, title, words, legend + 20 * len(rows))
    into.write(title, 4, 12, "words")
    x = Scale(0, total, 4, WIDTH - 4)
    begin = 0.0
    for at, (css, (label, size, text)) in enumerate(zip("abcdef", rows, strict=False)):
        if size > 0:
            into.add("rect", f"bar edge {css}", x=x(begin), width=max(x(begin + size) - x(begin), 1), y=bar, height=30)
        begin += size
        into.add("rect", f"bar edge {css}", x=4, y=legend + 20 * at, width=12, height=12)
        into.write(label, 24, legend + 10 + 20 * at)
        into.write(text, WIDTH - 4, legend + 10 + 20 * at, "total", "end")
    return into.markup()


def links(name: str, rows: Sequence[Transfer]) -> Markup:
    """Draw how long one exchange takes over each link: the way up, the way down, and the round trip."""
    longest = max((row.total_ms for row in rows), default=0.0) or 1.0
    step, top = 36, 24
    words = "; ".join(f"{row.link} {row.total_ms:.3f} ms" for row in rows)
    into = drawing(name, "Time of one exchange over each link", words, top + step * len(rows) + 4)
    x = Scale(0, longest, 8, WIDTH - 8)
    for at, (css, label) in enumerate(zip("abc", ("up", "down", "round trip"), strict=True)):
        into.add("rect", f"bar edge {css}", x=8 + 110 * at, y=2, width=12, height=12)
        into.write(label, 26 + 110 * at, 12)
    for at, row in enumerate(rows):
        y, begin = top + step * at, 0.0
        into.write(row.link if len(row.link) <= _LONGEST else f"{row.link[:_LONGEST]}…", 8, y + 12)
        into.write(f"{row.total_ms:.3f} ms", WIDTH - 8, y + 12, "total", "end")
        for css, milliseconds in zip("abc", (row.up_ms, row.down_ms, row.round_trip_ms or 0.0), strict=True):
            if milliseconds > 0:
                into.add(
                    "rect",
                    f"bar edge {css}",
                    x=x(begin),
                    width=max(x(begin + milliseconds) - x(begin), 1),
                    y=y + 17,
                    height=12,
                )
            begin += milliseconds
    return into.markup()


def located(name: str, values: Sequence[OffValue], first_beyond: int | None) -> Markup:
    """Draw the relative error of every value in the order of torch's graph, and which are beyond their bound.

    What is not finite has no error: it stands at the upper edge.
    """
    sizes = [value.relative_rms for value in values if value.relative_rms]
    least, most = (min(sizes), max(sizes)) if sizes else (1e-9, 1e-8)
    low, high = 10.0 ** math.floor(math.log10(least)), 10.0 ** (math.floor(math.log10(most)) + 1)
    x, y = Scale(0, max(len(values) - 1, 1), LEFT + 6, WIDTH - RIGHT - 6), upwards(low, high, math.log10)
    beyond = sum(value.is_beyond for value in values)
    words = f"{len(values)} values, relative RMS errors from {least:.2e} to {most:.2e}; {beyond} are beyond their bound"
    into = drawing(name, "Error of each value inside the artifact", words)
    powers = range(round(math.log10(low)), round(math.log10(high)) + 1)
    labels = [(10.0**power, f"1e{power}") for power in powers]
    axis = Scale(x.low, x.high, LEFT, WIDTH - RIGHT)
    steps = [(number, f"{number:.0f}") for number in ticks(0, x.high) if float(number).is_integer()]
    axes(into, (axis, steps, "value, in the order of torch's graph"), (y, labels, "relative RMS error"))
    within, crosses = [], ""
    for at, value in enumerate(values):
        place = x(at), TOP if value.relative_rms is None else y(max(value.relative_rms, low))
        if value.is_beyond:
            crosses += f"M{place[0] - 4:g} {place[1] - 4:g}l8 8m0-8l-8 8"
        else:
            within.append(place)
    into.add("path", "dots big a", d=dots(within))
    if crosses:
        into.add("path", "cross", d=crosses)
    if first_beyond is not None:
        into.add("line", "mark", x1=x(first_beyond), x2=x(first_beyond), y1=TOP, y2=HEIGHT - BOTTOM)
        into.write_beside("first beyond its bound", x(first_beyond), TOP + 22)
    return into.markup()
