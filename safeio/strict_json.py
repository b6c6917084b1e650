"""JSON as its specification has it: no NaN, no Infinity, and no number so large that it would become one."""

import json
import math
from typing import Any, NoReturn


def loads(data: str | bytes, unique: bool = False) -> Any:
    """Return what a JSON text says; raises ValueError, also where it is nested too deeply for Python to follow.

    With `unique` also where a key stands twice in an object, as after a merge that went wrong.
    """
    try:
        hook = _unique if unique else None
        return json.loads(data, parse_constant=_refuse, parse_float=_finite, object_pairs_hook=hook)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)[:40]!r} stands twice")
    return dict(pairs)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:40]} is too large for a number")
    return number
