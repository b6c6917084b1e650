"""The plot of fleet_growth.py: time and memory for each user over the number of users, both axes logarithmic."""

import math
from collections.abc import Mapping, Sequence
from xml.etree.ElementTree import Element

from exporter.report import svg

_STYLE = """
svg { --text: #1b2230; --soft: #566074; --grid: #d5d9e0; --a: #1d55b8; --b: #a34a00; --card: #ffffff }
@media (prefers-color-scheme: dark) {
  svg { --text: #e8ecf2; --soft: #a9b3c3; --grid: #36404f; --a: #8fb8ff; --b: #ffb277; --card: #1a202a }
}
text { fill: var(--text); font: 11.5px sans-serif }
.words { fill: var(--soft) } .grid { stroke: var(--grid) } .axis { stroke: var(--soft) }
.back { fill: var(--card) } .line { fill: none; stroke-width: 1.5 }
.dots { fill: none; stroke-width: 6; stroke-linecap: round }
.a { stroke: var(--a) } .b { stroke: var(--b); } .line.b { stroke-dasharray: 5 3 }
"""


def drawn(points: Sequence[Mapping]) -> str:
    """Return an SVG with two curves: milliseconds for each user, and kilobytes of the command at its peak."""
    users = [point["users"] for point in points]
    curves = {
        "kilobytes of the command": [max(point["peak_bytes"].values()) / point["users"] / 1e3 for point in points],
        "milliseconds, from start to end": [1e3 * sum(point["seconds"].values()) / point["users"] for point in points],
    }
    numbers = [number for curve in curves.values() for number in curve]
    low, high = (10.0 ** edge(math.log10(worst(numbers))) for edge, worst in ((math.floor, min), (math.ceil, max)))
    x = svg.Scale(min(users), max(users), svg.LEFT, svg.WIDTH - svg.RIGHT - 14, math.log10)
    y = svg.upwards(low, high, math.log10)
    told = "; ".join(
        f"{name}: " + ", ".join(f"{number:.3g} at {count:,}" for number, count in zip(curve, users, strict=True))
        for name, curve in curves.items()
    )
    into = svg.drawing("growth", "The fleet: time and memory for each user", told)
    into.root.set("xmlns", "http://www.w3.org/2000/svg")
    style = Element("style")
    style.text = _STYLE
    into.root.insert(0, style)
    into.add("rect", "back", x=0, y=0, width=svg.WIDTH, height=svg.HEIGHT)
    decades = [10.0**power for power in range(round(math.log10(low)), round(math.log10(high)) + 1)]
    svg.axes(
        into,
        (x, [(count, f"{count:,}") for count in users], "users"),
        (y, [(number, svg.short(number)) for number in decades], "for each user"),
    )
    for css, (name, curve) in zip("ab", curves.items(), strict=True):
        places = [(x(count), y(number)) for count, number in zip(users, curve, strict=True)]
        into.add("path", f"line {css}", d=svg.polyline(places))
        into.add("path", f"dots {css}", d=svg.dots(places))
        if css == "a":  # both curves fall: there is room above the beginning of one and below the end of the other
            into.write(name, places[0][0] + 12, places[0][1] - 6, "on")
        else:
            into.write(name, places[-1][0] - 8, places[-1][1] + 14, "on", "end")
    return str(into.markup()) + "\n"
