"""Numbers with their units, as a person reads them, a dash for what is not known, and names of files."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from safeio.errors import one_line

if TYPE_CHECKING:
    from exporter.core.types import BudgetName

MISSING = "-"
_NAMES_SHOWN = 5
_WHOLE = 2**53  # beyond it a float has no ones


def bytes_(number: float | None) -> str:
    """Return bytes in B, kB or MB, powers of ten."""
    return _scaled(number, (("MB", 1e6, 2), ("kB", 1e3, 2)), " B")


def count(number: float | None) -> str:
    """Return a count in k, M or G."""
    return _scaled(number, (("G", 1e9, 3), ("M", 1e6, 3), ("k", 1e3, 3)), "")


def microseconds(number: float | None) -> str:
    """Return microseconds."""
    return MISSING if number is None else f"{number:,.1f} us"


def exact(value: float | str | None, unit: str) -> str:
    """Return a figure with all its digits: beside a baseline, the last of them may be what moved."""
    if value is None or isinstance(value, str):
        return MISSING if value is None else value
    if unit == "us":  # of which no more digits are known
        return microseconds(value)
    number = f"{value:,.0f}" if float(value).is_integer() and abs(value) < _WHOLE else f"{value:,.6g}"
    return f"{number} {unit}".rstrip()


def change(share: float | None) -> str:
    """Return by how much a figure moved, of its baseline."""
    if share is None:
        return MISSING
    return f"{100 * share:+.3g} %" if share else "0 %"


def percent(share: float | None) -> str:
    """Return a change in percent with its sign and four decimals, beside which an interval can stand."""
    return MISSING if share is None else f"{100 * share:+.4f} %"


def needed(budget: "BudgetName", value: float | None, limit: float) -> str:
    """Return what an artifact needs of a budget and what that allows, as `3.25 MB of 3.00 MB`.

    Two numbers that are not equal never look equal: where rounding would make them so, they are not rounded.
    """
    per_click = " FLOPs per click" if budget == "flops_per_token" else ""
    shown: Callable[[float | None], str]
    match budget:
        case "size_bytes" | "memory_bytes":
            shown, unit = bytes_, " bytes"
        case "latency_us":
            shown, unit = microseconds, " us"
        case _:
            shown, unit = count, per_click
    if value is not None and value != limit and shown(value) == shown(limit):
        return f"{value:,.15g} of {limit:,.15g}{unit}"
    return f"{shown(value)} of {shown(limit)}{per_click}"


def batch(users: int | None) -> str:
    """Return what a title says of a program for several users, nothing for one."""
    return "" if users is None else f"  batch {users}"


def added(names: Sequence[str]) -> str:
    """Return one line with the files that are no part of an artifact."""
    shown = ", ".join(one_line(name) for name in names[:_NAMES_SHOWN])
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"warning: not part of the artifact and left out: {shown}{more}"


def _scaled(number: float | None, units: tuple[tuple[str, float, int], ...], plain: str) -> str:
    if number is None:
        return MISSING
    for unit, divisor, digits in units:
        if abs(number) >= divisor:
            return f"{number / divisor:,.{digits}f} {unit}"
    return f"{number:.0f}{plain}"
