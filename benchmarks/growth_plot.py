"""The plot of fleet_growth.py: time and memory for each user over the number of users, both axes logarithmic."""

from collections.abc import Mapping, Sequence

from figure_plot import Axis, Curve, Panel
from figure_plot import drawn as figure


def drawn(points: Sequence[Mapping]) -> str:
    """Return an SVG with two curves: milliseconds for each user, and kilobytes of the command at its peak."""
    users = [point["users"] for point in points]
    memory = [max(point["peak_bytes"].values()) / point["users"] / 1e3 for point in points]
    time = [1e3 * sum(point["seconds"].values()) / point["users"] for point in points]
    curves = {"kilobytes of the command": memory, "milliseconds, from start to end": time}
    panel = Panel(
        Axis("users", logarithmic=True, ticks=[(count, f"{count:,}") for count in users]),
        Axis("for each user", logarithmic=True),
        [Curve(name, list(zip(users, numbers, strict=True))) for name, numbers in curves.items()],
    )
    return figure("growth", "The fleet: time and memory for each user", [panel])
