"""Arrays that somebody hands over in memory: plain numbers in this machine's own order, or one error."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from exporter.core.errors import BadInputError

if TYPE_CHECKING:
    import numpy as np

_NUMBERS = "biuf"
_MAX_ITEM_BYTES = 8  # neither torch nor a target has longer ones


def plain(inputs: object) -> "dict[str, np.ndarray]":
    """Return arrays by name, each contiguous and in native byte order, copied only where one is not; shapes stay.

    Raises BadInputError where `inputs` is no mapping of names to numpy arrays with the cases on their first axis.
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
    for name, array in inputs.items():
        if array.dtype.kind not in _NUMBERS or array.dtype.itemsize > _MAX_ITEM_BYTES:
            raise BadInputError(f"{name!r} is an array of {array.dtype}; give numbers: int32, int64, float32 or bool")
    # Writable too: torch warns of what is not.
    return {name: np.require(array, array.dtype.newbyteorder("="), ["C", "W", "E"]) for name, array in inputs.items()}


def fits_int32(array: "np.ndarray") -> bool:
    """Say whether whole numbers can be int32, which they are on every target."""
    import numpy as np

    limits = np.iinfo(np.int32)
    return not array.size or bool(limits.min <= array.min() and array.max() <= limits.max)
