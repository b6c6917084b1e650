"""Arrays that somebody hands over in memory: plain numbers in this machine's own order, of a bounded size."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from exporter.core.errors import BadInputError

if TYPE_CHECKING:
    import numpy as np

MAX_BYTES = 1 << 30
"""Of all inputs together, as of those that a file has."""
MAX_CASES = 1 << 16
"""Golden cases of a program: torch computes one after the other."""
_NUMBERS = "biuf"
_MAX_ITEM_BYTES = 8  # neither torch nor a target has longer ones


def plain(inputs: object) -> "dict[str, np.ndarray]":
    """Return arrays by name, each contiguous and in native byte order, copied only where one is not; shapes stay.

    Raises BadInputError where `inputs` is no mapping of names to numpy arrays with the cases on their first axis, and
    where `check_whole` does.
    """
    import numpy as np

    if (
        not isinstance(inputs, Mapping)
        or not inputs
        or any(
            not isinstance(name, str) or not isinstance(array, np.ndarray) or not array.ndim or not len(array)
            for name, array in inputs.items()
        )
    ):
        raise BadInputError("inputs must be numpy arrays by name, each with the cases on its first axis")
    check_whole("inputs", inputs)
    for name, array in inputs.items():
        if array.dtype.kind not in _NUMBERS or array.dtype.itemsize > _MAX_ITEM_BYTES:
            raise BadInputError(f"{name!r} is an array of {array.dtype}; give numbers: int32, int64, float32 or bool")
    # Writable too: torch warns of what is not.
    return {name: np.require(array, array.dtype.newbyteorder("="), ["C", "W", "E"]) for name, array in inputs.items()}


def check_whole(whose: str, arrays: "Mapping[str, np.ndarray]") -> None:
    """Raise BadInputError where an array has a mask, which nothing here reads, or all together have too many bytes.

    An array that numpy repeats (`broadcast_to`) takes no memory until it is copied; here it counts as the copy would.
    """
    import numpy as np

    masked = next((name for name, array in arrays.items() if isinstance(array, np.ma.MaskedArray)), None)
    if masked is not None:
        raise BadInputError(f"{whose}: {masked!r} is a masked array; give what .filled(0) of it gives, or other values")
    size = sum(array.nbytes for array in arrays.values())
    if size > MAX_BYTES:
        raise BadInputError(f"{whose} take {size} bytes, more than the {MAX_BYTES} that are read; give fewer cases")


def check_count(whose: str, cases: int) -> None:
    """Raise BadInputError for more golden cases than are computed."""
    if cases > MAX_CASES:
        raise BadInputError(f"{whose} are {cases}; give {MAX_CASES} or fewer")


def uneven(arrays: "Mapping[str, np.ndarray]") -> str | None:
    """Return the number of cases of each array where they differ or are none; None where all is well."""
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) == 1 and 0 not in counts.values():
        return None
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def fits_int32(array: "np.ndarray") -> bool:
    """Say whether whole numbers can be int32, which they are on every target."""
    import numpy as np

    limits = np.iinfo(np.int32)
    return not array.size or bool(limits.min <= array.min() and array.max() <= limits.max)
