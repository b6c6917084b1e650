"""example.json: golden cases as plain JSON, for people and apps that have no reader of .npz files."""

import json
from collections.abc import Iterable, Sequence

import numpy as np

from exporter.artifact.manifest import Manifest
from exporter.core.types import Arrays

_RAW = "raw: texts, as items.tsv has them; the empty text is padding, row 0"
_ROWS = "rows: numbers of the item table; 0 is padding"


def example(
    manifest: Manifest, inputs: Arrays, outputs: Arrays, cases: Sequence[int], items: Sequence[str] | None
) -> bytes:
    """Return golden cases by their numbers: those that the artifact computes as it stands, with the weights in it.

    `inputs` and `outputs` are those of golden.npz, [cases, ...]; external weights stay out. With `items`, the raw id of
    every row, inputs that hold items have raw ids.
    """
    ports = manifest.interface.inputs if manifest.interface is not None else ()
    holding = {port.name for port in ports if port.holds_items}
    outside = {tensor.name for tensor in manifest.external.tensors} if manifest.external is not None else set()
    given = [tensor.name for tensor in manifest.inputs if tensor.name not in outside]
    document: dict[str, object] = {"schema_version": 1}
    if holding:
        document["ids"] = _ROWS if items is None else _RAW
    document["outputs"] = "what torch computes; the artifact may differ within the tolerance of manifest.json"
    if not cases:
        document["note"] = (
            "no golden case is of the user whose weights lie here; golden.npz has cases, each with its own"
        )
    document["cases"] = [
        {
            "inputs": {name: _plain(inputs[name][case], items if name in holding else None) for name in given},
            "outputs": {tensor.name: _plain(outputs[tensor.name][case], None) for tensor in manifest.outputs},
        }
        for case in cases
    ]
    return (json.dumps(document, indent=None, ensure_ascii=True).replace('{"inputs"', '\n{"inputs"') + "\n").encode()


def _plain(array: np.ndarray, items: Sequence[str] | None) -> object:
    """Return nested lists of an array's numbers, floats with as many digits as tell them apart, or of raw ids."""
    flat = [int(number) for number in array.flat] if array.dtype.kind == "i" else _floats(array.flat)
    values = flat if items is None else [items[row] for row in flat if isinstance(row, int)]
    return _nested(values, array.shape)


def _floats(numbers: Iterable[np.float32]) -> list[float]:
    return [float(str(number)) for number in numbers]


def _nested(values: Sequence[object], shape: Sequence[int]) -> object:
    if not shape:
        return values[0]
    size = len(values) // shape[0]
    return [_nested(values[at : at + size], shape[1:]) for at in range(0, len(values), size or 1)]
