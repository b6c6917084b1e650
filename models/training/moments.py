"""Times of many lines at once, as `parse_time` understands them one by one; Arrow's functions over columns of text."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from models.training.times import DATES, DATES_WITH_OFFSET, NUMBERS, Moments, Time, pack, parse_time

_MOST_DIGITS = 18
"""So many always fit 64 bits."""
_DECIMAL = r"\A(?P<whole>\d{1,18})\.(?P<rest>\d{1,9})\z"
_DATE = (
    r"\A(?P<stamp>\d{4}-\d\d-\d\d[T ](?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)(?:[.,](?P<rest>\d{1,9}))?"
    r"(?P<zone>[Zz]|[+-]\d\d(?::?\d\d(?::?\d\d)?)?)?\z"
)
_DAY = 24 * 60 * 60
_SOME_DAY = "0003-01-01T00:00:00"
_MOST_ZONES = 1000


def parse_moments(texts: pa.Array) -> Moments | None:
    """Return the times [n] that texts without spaces around them state; None where that is for `parse_time` to say."""
    if pc.all(pc.ascii_is_decimal(texts)).as_py() and pc.max(pc.binary_length(texts)).as_py() <= _MOST_DIGITS:
        return Moments(_whole_numbers(texts), None, NUMBERS)
    dates = pc.extract_regex(texts, _DATE)
    if not dates.null_count:
        return _dates(dates)
    decimals = pc.extract_regex(texts, _DECIMAL)
    if not decimals.null_count:
        whole = _whole_numbers(pc.struct_field(decimals, "whole"))
        return Moments(whole, _billionths(pc.struct_field(decimals, "rest")), NUMBERS)
    return _each(texts)


def from_seconds(seconds: np.ndarray, billionths: np.ndarray | None, in_utc: bool) -> Moments:
    """Return dates from seconds since 1970, which may be negative; the others count from the day before the year 1."""
    return Moments(seconds + _epoch(), billionths, DATES_WITH_OFFSET if in_utc else DATES)


def _epoch() -> int:
    seconds, _ = parse_time("1970-01-01")
    return int(seconds)


def _dates(parts: pa.Array) -> Moments | None:
    try:
        since_1970 = pc.struct_field(parts, "stamp").cast(pa.timestamp("s")).cast(pa.int64())
    except pa.ArrowInvalid:  # the 30th of February
        return None
    zones = pc.struct_field(parts, "zone").dictionary_encode()
    texts = zones.dictionary.to_pylist()
    if len(texts) > _MOST_ZONES or ("" in texts and len(texts) > 1):
        return None
    try:
        offsets = [int(parse_time(_SOME_DAY)[0] - parse_time(_SOME_DAY + zone)[0]) for zone in texts]
    except ValueError:
        return None
    seconds = since_1970.to_numpy() + _epoch()
    if seconds.min() < _DAY:  # the year 0
        return None
    seconds -= np.array(offsets, np.int64)[zones.indices.to_numpy()]
    kind = DATES if texts == [""] else DATES_WITH_OFFSET
    return Moments(seconds, _billionths(pc.struct_field(parts, "rest")), kind)


def _each(texts: pa.Array) -> Moments | None:
    """Return times of any form, each different text parsed once."""
    encoded = texts.dictionary_encode()
    values: list[Time] = []
    kinds = set()
    for text in encoded.dictionary.to_pylist():
        try:
            value, kind = parse_time(text)
        except ValueError:
            return None
        values.append(value)
        kinds.add(kind)
    packed = pack(values, kinds.pop()) if len(kinds) == 1 else None
    if packed is None:
        return None
    index = encoded.indices.to_numpy()
    return Moments(packed.whole[index], None if packed.billionths is None else packed.billionths[index], packed.kind)


def _whole_numbers(digits: pa.Array) -> np.ndarray:
    return np.asarray(digits.cast(pa.int64()).to_numpy())


def _billionths(digits: pa.Array) -> np.ndarray | None:
    """Return decimals, up to nine digits or none, as billionths; None where all are 0."""
    if pc.max(pc.binary_length(digits)).as_py() == 0:
        return None
    billionths = _whole_numbers(pc.utf8_rpad(digits, 9, "0"))
    return billionths if billionths.any() else None
