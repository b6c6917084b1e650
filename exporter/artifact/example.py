"""example.json: golden cases as plain JSON, for people and apps that have no reader of .npz files."""

import json
from collections.abc import Iterable, Sequence

import numpy as np

from exporter.artifact.manifest import Manifest
from exporter.core.types import Arrays

_RAW = "raw: texts, as items.tsv has them; the empty text is padding, row 0"
_ROWS = "rows: numbers of the item table; 0 is padding"


def example(
    manifest: Manifest, inputs: Arrays, outputs: Arrays | None, cases: Sequence[int], items: Sequence[str] | None
) -> bytes:
    """Return golden cases by their numbers: those that the artifact computes as it stands, with the weights in it.

    `inputs` and `outputs` are those of golden.npz, [cases, ...]; without `outputs` none are of these weights. External
    weights stay out. With `items`, the raw id of every row, inputs and outputs that hold items have raw ids, and null
    where a row is none of the table's.
    """
    taken, made = (
        (manifest.interface.inputs, manifest.interface.outputs) if manifest.interface is not None else ((), ())
    )
    holding, giving = ({port.name for port in ports if port.holds_items} for ports in (taken, made))
    outside = {tensor.name for tensor in manifest.external.tensors} if manifest.external is not None else set()
    given = [tensor.name for tensor in manifest.inputs if tensor.name not in outside]
    document: dict[str, object] = {"schema_version": 1}
    if holding or giving:
        document["ids"] = _ROWS if items is None else _RAW
    tables = "" if manifest.scheme is None else f" with tables in {manifest.scheme.tables}"
    document["outputs"] = (
        f"what torch computes{tables}; the artifact may differ within the tolerance of manifest.json"
        if outputs is not None
        else "null: no golden case is of the user whose weights lie here, so that these are another's clicks, and"
        " nobody has computed what they give; golden.npz has cases, each with its own weights"
    )
    document["cases"] = [
        {
            "inputs": {name: _plain(inputs[name][case], items if name in holding else None) for name in given},
            "outputs": None
            if outputs is None
            else {
                tensor.name: _plain(outputs[tensor.name][case], items if tensor.name in giving else None)
                for tensor in manifest.outputs
            },
        }
        for case in cases
    ]
    return (json.dumps(document, indent=None, ensure_ascii=True).replace('{"inputs"', '\n{"inputs"') + "\n").encode()


def _plain(array: np.ndarray, items: Sequence[str] | None) -> object:
    """Return nested lists of an array's numbers, floats with as many digits as tell them apart, or of raw ids."""
    if array.dtype.kind != "i":
        return _nested(_floats(array.flat), array.shape)
    rows = [int(number) for number in array.flat]
    if items is None:
        return _nested(rows, array.shape)
    return _nested([items[row] if 0 <= row < len(items) else None for row in rows], array.shape)


def _floats(numbers: Iterable[np.float32]) -> list[float]:
    return [float(str(number)) for number in numbers]


def _nested(values: Sequence[object], shape: Sequence[int]) -> object:
    if not shape:
        return values[0]
    size = len(values) // shape[0]
    return [_nested(values[at : at + size], shape[1:]) for at in range(0, len(values), size or 1)]
