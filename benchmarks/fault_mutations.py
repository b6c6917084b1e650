"""Damage to bytes, JSON, YAML and lines of text; all of it drawn from a `random.Random`, so that a seed repeats it."""

import copy
import json
import math
from collections.abc import Callable
from random import Random
from typing import Any

NUMBERS = (
    0,
    1,
    2,
    3,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
)
_MOST_WRITTEN = 1 << 22
ODD_TEXT = (
    *("", " ", "\0", "\n", "\r\n", "\t", "\ufeff", "\u202e", "\u2028", "\x1b[31m", "\x85", "\ud800", "e\u0301", "ﬁ"),
    *(
        "İ",
        "\U0001d7d9",
        "٣",
        "-",
        "/",
        "..",
        "../../x",
        "/dev/zero",
        "/dev/stdin",
        ".",
        "~",
        "%s",
        "{}",
        "'",
        '"',
        "\\",
        "nan",
    ),
    *("inf", "-inf", "1e400", "1e-400", "0x10", "1_0", "+1", "01", "-0", "9" * 30, "9" * 5000, "true", "null", "None"),
)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, -(2**63), 1.5, 1e308, 5e-324, math.inf, math.nan, 10**400, [], {}, [[]], {"": 0}),
    *NUMBERS,
    *ODD_TEXT,
    "x" * 100_000,
    [0] * 100_000,
)


def damage(rng: Random, data: bytes) -> bytes:
    """Return bytes with one to four changes: bits, ranges, lengths, copies, or integers that claim something else."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice(_CHANGES)(rng, changed)
    return bytes(changed)


def _flip(rng: Random, data: bytearray) -> None:
    for _ in range(rng.randint(1, 8) if data else 0):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _fill(rng: Random, data: bytearray) -> None:
    start, count = rng.randint(0, len(data)), rng.choice((1, 4, 16, 256))
    data[start : start + count] = rng.choice((bytes(count), b"\xff" * count, rng.randbytes(count)))


def _cut(rng: Random, data: bytearray) -> None:
    del data[rng.choice((0, 1, rng.randint(0, len(data)), max(len(data) - rng.randint(1, 64), 0))) :]


def _remove(rng: Random, data: bytearray) -> None:
    start = rng.randint(0, len(data))
    del data[start : start + rng.choice((1, 2, 4, 8, 100))]


def _insert(rng: Random, data: bytearray) -> None:
    start = rng.randint(0, len(data))
    data[start:start] = rng.randbytes(rng.choice((1, 2, 4, 8, 1000)))


def _copy(rng: Random, data: bytearray) -> None:
    source, place, count = rng.randint(0, len(data)), rng.randint(0, len(data)), rng.choice((4, 16, 64, 1024))
    part = data[source : source + count]
    data[place : place + (len(part) if rng.random() < 0.7 else 0)] = part


def _claim(rng: Random, data: bytearray) -> None:
    """Put a number that is a length, a count or an offset somewhere in place of another one, small ones preferred."""
    width = rng.choice((1, 2, 4, 4, 8))
    if len(data) < width:
        return
    places = [rng.randrange(0, len(data) - width + 1) for _ in range(16)]
    if rng.random() < 0.7:
        places = [place // width * width for place in places]
    place = min(places, key=lambda place: int.from_bytes(data[place : place + width], "little") or 1 << 64)
    value = int.from_bytes(data[place : place + width], "little")
    value = rng.choice((value + rng.choice((-8, -4, -1, 1, 4, 8)), value * 2, rng.choice(NUMBERS), len(data)))
    data[place : place + width] = (value % (1 << (8 * width))).to_bytes(width, rng.choice(("little", "little", "big")))


_CHANGES: tuple[Callable[[Random, bytearray], None], ...] = (
    _flip,
    _fill,
    _cut,
    _remove,
    _insert,
    _copy,
    _claim,
    _claim,
)


def json_document(rng: Random, data: bytes) -> bytes:
    """Return JSON with values, keys or the structure changed, or text that is hardly JSON any more."""
    if rng.random() < 0.12:
        return damage(rng, data)
    if rng.random() < 0.05:
        depth = rng.choice((100, 900, 5000, 200_000))
        return rng.choice((b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth))
    document = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        document = change_value(rng, document)
    text = json.dumps(document, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.1 and isinstance(document, dict) and document:  # a key twice
        key = rng.choice(list(document))
        text = text[:-1] + f", {json.dumps(key)}: {json.dumps(rng.choice(ODD_VALUES))}" + "}"
    return text.encode("utf-8", "surrogatepass")


def change_value(rng: Random, document: Any) -> Any:
    """Return a JSON value of which one part is of another type or size, renamed, gone, double, or somewhere else.

    The value given stays as it was, and is returned where the changed one would be megabytes.
    """
    changed = copy.deepcopy(document)
    places = list(_places(changed))
    if not places or rng.random() < 0.02:
        return rng.choice(ODD_VALUES)
    # Lists of hundreds of like entries would get all changes otherwise.
    depths = [len(path) for path, _, _ in places]
    depth = rng.choice(sorted(set(depths)))
    _, holder, key = rng.choice([place for place, level in zip(places, depths, strict=True) if level == depth])
    change = rng.randrange(8)
    value = holder[key]
    if change == 0:
        del holder[key]
    elif change == 1 and isinstance(holder, dict):
        holder[rng.choice((*ODD_TEXT[:20], f"{key}x", str(key).upper()))] = holder.pop(key)
    elif change == 2:
        holder[key] = rng.choice(places)[1]
    elif change == 3 and isinstance(value, list) and value:
        holder[key] = value * rng.choice((2, 1000))
    elif change == 4 and isinstance(value, int | float):
        as_float = max(min(value, 1e300), -1e300) * 1.0
        holder[key] = rng.choice((-value, value + 1, value - 1, value * 2, str(value), as_float, [value]))
    elif change == 5 and isinstance(value, str):
        odd = rng.choice(ODD_TEXT)
        holder[key] = rng.choice((value + odd, odd + value, value.upper(), value[:-1], value * 1000, [value]))
    else:
        holder[key] = rng.choice(ODD_VALUES)
    return document if _written(changed, {}) > _MOST_WRITTEN else changed


def _places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    """Yield (path, container, key) of all that a JSON value holds."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield (*path, key), value, key
        if len(path) < 50:
            yield from _places(value[key], (*path, key))


def _written(value: Any, known: dict[int, float]) -> float:
    """Return about how many characters a value has as JSON, without writing it: parts of it may stand in many places.

    Infinite for one that holds itself.
    """
    if not isinstance(value, dict | list):
        return len(value) if isinstance(value, str) else 20
    if id(value) not in known:
        known[id(value)] = math.inf
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        known[id(value)] = 2 + sum(_written(part, known) for part in parts)
    return known[id(value)]


def yaml_document(rng: Random, data: bytes) -> bytes:
    """Return YAML with a value, a key or a line changed, or with what only YAML can do."""
    if rng.random() < 0.15:
        return damage(rng, data)
    lines = data.decode().splitlines()
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randrange(len(lines))
        key, colon, value = lines[place].partition(":")
        odd = str(rng.choice((*ODD_YAML, *ODD_TEXT, *NUMBERS)))
        change = rng.randrange(8)
        if change < 4 and colon:
            lines[place] = f"{key}: {odd}"
        elif change == 4:
            lines.insert(place, rng.choice((lines[place], f"{' ' * rng.randint(0, 4)}{odd}: {value or 1}", odd)))
        elif change == 5:
            del lines[place]
            lines = lines or [odd]
        elif change == 6:
            lines[place] = rng.choice(("  ", "\t", "- ", "? ", "")) + lines[place].strip()
        else:
            lines[place] = lines[place].replace(" ", rng.choice(("", "\t", "\u00a0", "  ")), 1)
    text = rng.choice(("\n", "\n", "\n", "\r\n", "\r")).join(lines) + "\n"
    encoding = rng.choice(("utf-8", "utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16"))
    return text.encode(encoding, "surrogatepass")


ODD_YAML = (
    *(
        "on",
        "off",
        "yes",
        "~",
        "0o17",
        "017",
        "0b11",
        "1:30",
        "2020-01-01",
        "2020-13-45",
        "2020-01-01T00:00:00Z",
        ".inf",
    ),
    *(".nan", "!!int 'x'", "!!python/object:os.system x", "!!binary aGk=", "!!set {a, b}", "&a [*a]", "*a", "<<: *a"),
    *(
        "[" * 5000,
        "{" * 5000,
        "- " * 3000,
        "&a [x, x]",
        "|\n  text",
        ">",
        "--- 1",
        "%YAML 1.1",
        "? [a]",
        "{a: 1, a: 2}",
    ),
    *(
        "{serial: x}",
        "{ssh: {host: '-oProxyCommand=x'}}",
        "generic",
        "self.yaml",
        "/dev/zero",
        "[]",
        "{}",
        "''",
        "!!omap []",
    ),
)


def lines_of_text(rng: Random, data: bytes) -> bytes:
    """Return lines of interactions with cells, lines or bytes that are odd, many, few or somewhere else."""
    if rng.random() < 0.15:
        return damage(rng, data)
    lines = data.split(b"\n")
    mark = next((mark for mark in (b"::", b"\t", b",") if mark in lines[0]), b",")
    for _ in range(rng.choice((1, 1, 2, 5))):
        place = rng.choice((0, 0, len(lines) - 1, rng.randrange(len(lines))))
        cells = lines[place].split(mark)
        odd = rng.choice((*ODD_TEXT, *map(str, NUMBERS), *ODD_CELLS)).encode("utf-8", "surrogatepass")
        change, cell = rng.randrange(8), rng.randrange(len(cells))
        if change < 3:
            cells[cell] = rng.choice((odd, cells[cell] + odd, odd + cells[cell]))
        elif change == 3:
            rng.shuffle(cells)
        elif change == 4:
            cells = cells[:-1] if rng.random() < 0.5 else [*cells, odd]
        elif change == 5:
            cells[cell] = rng.choice((b"x", b"9", b'"', b"\x00", b"\xff", b"[")) * rng.choice((300, 10_000, 300_000))
        elif change == 6:
            lines[place:place] = rng.choice(([lines[0]], [b""] * 1000, [odd], [lines[place]] * 100))
        else:
            rng.shuffle(lines)
        lines[place] = mark.join(cells)
    return rng.choice((b"\n", b"\n", b"\n", b"\r\n", b"\r")).join(lines)


ODD_CELLS = (
    *("2020-01-01", "2020-01-01T00:30:00+02:00", "2020-02-30", "2020-01-01 25:00:00", "1e18", "9007199254740993"),
    *("-9223372036854775809", "1.5.5", "user", "#x", "A" * 20, '{"a": 1}', '"open', 'a"b', "--", "1,5"),
)
