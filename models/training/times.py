"""Times of clicks, exactly as a file states them: whole numbers of any size, decimals, and ISO 8601 dates.

Times are compared and never computed with. A binary float would tie 64-bit sequence numbers and nanoseconds, and
`datetime` drops what is finer than a microsecond.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation

import numpy as np

Time = int | Decimal
"""Both compare with each other, and are hashed, by their exact values."""

NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_DATE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)"
    r"(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?(?:([Zz])|([+-])(\d\d)(?::?(\d\d)(?::?(\d\d))?)?)?)?",
    re.ASCII,
)
_LOOKS_LIKE_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
NUMBERS, DATES, DATES_WITH_OFFSET = "numbers", "dates without an offset from UTC", "dates with an offset from UTC"
_DIGITS, _BILLION = 9, 10**9
_PACKED = 1 << 16


@dataclass(frozen=True)
class Moments:
    """Times [n] of one kind, exactly: whole units, numbers or seconds, and billionths above them, None if all are 0."""

    whole: np.ndarray
    billionths: np.ndarray | None
    kind: str


class Times:
    """The times of a file in its order, all of one kind: numbers, dates with an offset, or dates without one.

    A date without an offset cannot be compared with one that has an offset, and none with a number.
    """

    def __init__(self) -> None:
        self._kind: str | None = None
        self._parts: list[Moments | list[Time]] = []
        self._waiting: list[Time] = []

    def append(self, text: str) -> None:
        """Add the time that a line states; raises ValueError for what is none, or is of another kind than the first."""
        value, kind = parse_time(text)
        if self._kind is None:
            self._kind = kind
        elif kind != self._kind:
            raise ValueError(
                f"{text[:40]!r} is among {kind}, but the lines before have {self._kind}; write all times in one form"
            )
        self._waiting.append(value)
        if len(self._waiting) == _PACKED:
            self._pack()

    def extend(self, moments: Moments) -> bool:
        """Add times, and return True; or False, with nothing added, where they are of another kind than the first."""
        if self._kind not in (None, moments.kind):
            return False
        self._kind = moments.kind
        self._pack()
        self._parts.append(moments)
        return True

    def column(self) -> np.ndarray:
        """Return whole numbers [n] that are in the same order as the times, and equal where they are."""
        stored = self.stored()
        if not isinstance(stored, Moments):
            return ranks(stored)
        whole, billionths = stored.whole, stored.billionths
        if billionths is None:
            return whole
        order = np.lexsort((billionths, whole))
        rises = (np.diff(whole[order]) != 0) | (np.diff(billionths[order]) != 0)
        rank = np.empty(len(whole), np.int64)
        rank[order] = np.concatenate([[0], np.cumsum(rises)])
        return rank

    def taken(self) -> "Times":
        """Return the times that were added, and go on without them; those that follow must be of their kind too."""
        self._pack()
        taken = Times()
        taken._kind, taken._parts, self._parts = self._kind, self._parts, []
        return taken

    def stored(self) -> Moments | list[Time]:
        """Return all times as arrays, or where they do not fit these one by one."""
        self._pack()
        packed = [part for part in self._parts if isinstance(part, Moments)]
        if len(packed) < len(self._parts):
            return [value for part in self._parts for value in _exactly(part)]
        billionths = None
        if any(part.billionths is not None for part in packed):
            billionths = np.concatenate([_billionths(part) for part in packed])
        return Moments(np.concatenate([part.whole for part in packed]), billionths, self._kind or NUMBERS)

    def _pack(self) -> None:
        """Put what was appended into arrays, where it fits; Python's objects take ten times the memory."""
        if self._waiting:
            self._parts.append(pack(self._waiting, self._kind or NUMBERS) or self._waiting)
            self._waiting = []


def pack(values: Sequence[Time], kind: str) -> Moments | None:
    """Return times as arrays; None where one leaves 64 bits or has a fraction finer than billionths."""
    if all(isinstance(value, int) for value in values):
        return Moments(np.array(values, np.int64), None, kind)
    whole, billionths = np.empty(len(values), np.int64), np.zeros(len(values), np.int64)
    for index, value in enumerate(values):
        if isinstance(value, Decimal):
            exponent = value.as_tuple().exponent
            if not -(2**63) <= value < 2**63 or not isinstance(exponent, int) or exponent < -_DIGITS:
                return None
            value, billionths[index] = divmod(int(value.scaleb(_DIGITS)), _BILLION)  # at most 28 digits: exact
        whole[index] = value
    return Moments(whole, billionths, kind)


def _billionths(part: Moments) -> np.ndarray:
    return np.zeros_like(part.whole) if part.billionths is None else part.billionths


def _exactly(part: Moments | list[Time]) -> list[Time]:
    if isinstance(part, list):
        return part
    if part.billionths is None:
        return list(part.whole.tolist())
    pairs = zip(part.whole.tolist(), part.billionths.tolist(), strict=True)
    return [_smallest(Decimal(whole * _BILLION + rest).scaleb(-_DIGITS)) for whole, rest in pairs]


def ranks(values: Sequence[Time]) -> np.ndarray:
    """Return for each value how many different ones are less, [n] int64."""
    rank = {value: index for index, value in enumerate(sorted(set(values)))}
    return np.fromiter((rank[value] for value in values), np.int64, len(values))


def parse_time(text: str) -> tuple[Time, str]:
    """Return a time and its kind: an int where it is one of 64 bits, else a Decimal; raises ValueError.

    Dates are seconds since the day before the year 1 in UTC, so that none is negative.
    """
    if _WHOLE.fullmatch(text):
        return int(text), NUMBERS
    if NUMBER.fullmatch(text):
        try:
            return _smallest(Decimal(text)), NUMBERS
        except InvalidOperation:  # an exponent of 19 digits
            raise ValueError(f"{text[:40]!r} is not a time") from None
    if _LOOKS_LIKE_DATE.match(text):
        return _parse_date(text)
    raise ValueError(f"{text[:40]!r} is not a time")


def _smallest(value: Decimal) -> Time:
    """Return an int in place of a Decimal where it is whole and fits 64 bits; a larger one may have 10^18 digits."""
    fits = -(2**63) <= value < 2**63
    return int(value) if fits and value == value.to_integral_value() else value


def _parse_date(text: str) -> tuple[Time, str]:
    parts = _DATE.fullmatch(text)
    if parts is None:
        raise ValueError(f"{text[:40]!r} is not a date")
    year, month, day, hour, minute, second = (int(parts[index] or 0) for index in range(1, 7))
    fraction, utc, sign = parts[7], parts[8], parts[9]
    off_hour, off_minute, off_second = (int(parts[index] or 0) for index in range(10, 13))
    if max(hour, off_hour) > 23 or max(minute, second, off_minute, off_second) > 59:
        raise ValueError(f"{text[:40]!r} is not a date")
    try:
        days = date(year, month, day).toordinal()
    except ValueError:
        raise ValueError(f"{text[:40]!r} is not a date") from None
    offset = (off_hour * 60 + off_minute) * 60 + off_second
    seconds = ((days * 24 + hour) * 60 + minute) * 60 + second - (-offset if sign == "-" else offset)
    kind = DATES_WITH_OFFSET if utc or sign else DATES
    if fraction is None:
        return seconds, kind
    return _smallest(Decimal(f"{seconds}.{fraction}")), kind  # written out, since sums of Decimals are rounded
