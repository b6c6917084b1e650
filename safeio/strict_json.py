"""JSON as its specification has it: no NaN, no Infinity, and no number so large that it would become one."""

import json
import math
from typing import Any, NoReturn


def loads(data: str | bytes) -> Any:
    """Return what a JSON text says; raises ValueError, also where it is nested too deeply for Python to follow."""
    try:
        return json.loads(data, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"{text[:40]} is too large for a number")
    return number
