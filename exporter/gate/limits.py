"""Limits as people write them: `+2%`, `0`, `-0.001`, `+10 kB`, `at most 3 MB`, `same`, `no slower`, `none`.

Amounts are exact fractions of what is written, so that 0.999 is not below 1 - 0.001 by the rounding of a float.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from exporter.gate.figures import FIGURES, IDENTITIES, LATENCY, Figure, Kind

NONE = "none"
SAME = "same"
NO_SLOWER = "no slower"
NO_SLOWER_MARGIN = Fraction(2, 100)
"""What `no slower` leaves to two files of the same program: their places in memory alone move times by a percent."""

_UNITS: dict[Kind, dict[str, int]] = {
    "bytes": {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30},
    "count": {"": 1, "k": 10**3, "M": 10**6, "G": 10**9},
    "share": {"": 1},
}
_NUMBER = r"(?P<number>[0-9]{1,18}(\.[0-9]{1,18})?(e-?[0-9]{1,2})?)"
_CHANGE = re.compile(rf"(?P<sign>[+-]?){_NUMBER} ?(?P<unit>[A-Za-z%]*)")
_BOUND = re.compile(rf"(?P<side>at most|at least) {_NUMBER} ?(?P<unit>[A-Za-z]*)")

Sort = Literal["change", "share of the baseline", "at most", "at least", "same", "slower by"]


class LimitError(ValueError):
    """What is wrong with a limit, in one phrase that says what is allowed."""


@dataclass(frozen=True)
class Limit:
    """One limit of a figure: the words that a person wrote, and what they mean; a `line` of None is a default's."""

    figure: str
    text: str
    sort: Sort
    amount: Fraction
    line: int | None = None


def names() -> list[str]:
    """Return all figures that a limit can be put on."""
    return sorted([*FIGURES, *IDENTITIES, LATENCY])


def defaults() -> dict[str, tuple[Limit, ...]]:
    """Return the limits that hold where a configuration says nothing."""
    texts = {name: figure.default for name, figure in FIGURES.items() if figure.default is not None}
    texts |= {**dict.fromkeys(IDENTITIES, SAME), LATENCY: NO_SLOWER}
    return {name: parse(name, text) for name, text in texts.items()}


def parse(name: str, written: object, line: int | None = None) -> tuple[Limit, ...]:
    """Return the limits that `written` puts on a figure: a text, a number, or a list of them; raises LimitError.

    `none` is no limit at all.
    """
    if isinstance(written, list | tuple):
        if not written:
            raise LimitError(f"a limit is {_allowed(name)}")
        return tuple(limit for part in written for limit in _parsed(name, part, line))
    return _parsed(name, written, line)


def _parsed(name: str, written: object, line: int | None) -> tuple[Limit, ...]:
    if isinstance(written, bool) or not isinstance(written, str | int | float):
        raise LimitError(f"a limit is {_allowed(name)}")
    text = written if isinstance(written, str) else _plain(written)
    if text == NONE:
        return ()
    if name in IDENTITIES:
        if text != SAME:
            raise LimitError(f"a limit of {name} is {_allowed(name)}")
        return (Limit(name, text, "same", Fraction(0), line),)
    if name == LATENCY:
        return (_slower(text, line),)
    return (_limit(FIGURES[name], text, line),)


def _slower(text: str, line: int | None) -> Limit:
    if text == NO_SLOWER:
        return Limit(LATENCY, text, "slower by", NO_SLOWER_MARGIN, line)
    change = _CHANGE.fullmatch(text)
    if change is None or change["unit"] != "%" or change["sign"] == "-":
        raise LimitError(
            f"a limit of {LATENCY} is {_allowed(LATENCY)}; for microseconds give latency_us in the budgets of a profile"
        )
    return Limit(LATENCY, text, "slower by", Fraction(change["number"]) / 100, line)


def _limit(figure: Figure, text: str, line: int | None) -> Limit:
    bound, change = _BOUND.fullmatch(text), _CHANGE.fullmatch(text)
    if bound is not None:
        if (bound["side"] == "at most") != figure.lower_is_better:
            raise LimitError(f"a limit of {figure.name} is {_allowed(figure.name)}")
        amount = Fraction(bound["number"]) * _unit(figure, bound["unit"])
        return Limit(figure.name, text, "at most" if figure.lower_is_better else "at least", amount, line)
    if change is None:
        raise LimitError(f"a limit of {figure.name} is {_allowed(figure.name)}")
    if not figure.in_lock and figure.default is None:
        raise LimitError(f"{figure.name} differs between machines and is in no baseline; give 'at most'")
    amount = Fraction(change["number"])
    if not amount:
        return Limit(figure.name, text, "change", amount, line)
    if (change["sign"] == "-") == figure.lower_is_better:
        way = "grow, as +2%" if figure.lower_is_better else "fall, as -0.001"
        raise LimitError(f"a limit of {figure.name} says how far it may {way}")
    if change["unit"] == "%":
        return Limit(figure.name, text, "share of the baseline", amount / 100, line)
    return Limit(figure.name, text, "change", amount * _unit(figure, change["unit"]), line)


def _unit(figure: Figure, unit: str) -> int:
    units = _UNITS[figure.kind]
    if unit not in units:
        if figure.kind == "bytes" and not unit:
            raise LimitError(f"give the unit of {figure.name}: {', '.join(units)}")
        listed = ", ".join(filter(None, units)) or "none"
        raise LimitError(f"{unit!r} is no unit of {figure.name}; its units: {listed}")
    return units[unit]


def _allowed(name: str) -> str:
    if name in IDENTITIES:
        return f"{SAME!r} or {NONE!r}"
    if name == LATENCY:
        return f"{NO_SLOWER!r}, a share as '+5%', or {NONE!r}"
    figure = FIGURES[name]
    example = {"bytes": "3 MB", "count": "1.2 M", "share": "0.99"}[figure.kind]
    if figure.lower_is_better:
        return f"how far it may grow ('+2%', '0'), 'at most {example}', or {NONE!r}"
    return f"how far it may fall ('-0.001'), 'at least {example}', or {NONE!r}"


def _plain(number: float) -> str:
    """Return a number of a YAML file as it was written there, but for an exponent."""
    return format(Decimal(repr(number)), "f")


def merged(*levels: Mapping[str, tuple[Limit, ...]]) -> dict[str, tuple[Limit, ...]]:
    """Return limits by figure, those of later levels in place of those of earlier ones."""
    return {name: limits for level in levels for name, limits in level.items()}
