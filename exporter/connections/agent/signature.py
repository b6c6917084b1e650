"""Whether a model takes and gives what the request states: names, dtypes, shapes, numbers of tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from exporter.connections.agent.contract import Input, RefusalError


def check_inputs(expected: list[Input], arrays: dict[str, np.ndarray]) -> None:
    """Refuse inputs whose names, dtypes or shapes (without the cases axis) are not the model's own.

    It cannot be left to the runtimes: LiteRT resizes the model to what it gets and takes an input of another rank.
    """
    if len(expected) != len(arrays):
        raise RefusalError("signature", f"the model takes {len(expected)} inputs, the request gives {list(arrays)}")
    for position, (name, array) in enumerate(arrays.items()):
        _check_input(_entry_for(name, position, expected), name, array.dtype.name, array.shape[1:])


def _entry_for(name: str, position: int, expected: list[Input]) -> Input:
    """Return the model's input of that name, or at that position where its inputs have no names."""
    if expected[position].name is None:
        return expected[position]
    for entry in expected:
        if entry.name == name:
            return entry
    names = sorted(str(entry.name) for entry in expected)
    raise RefusalError("signature", f"the model has no input {name!r}; its inputs are {names}")


def _check_input(entry: Input, name: str, dtype: str, shape: tuple[int, ...]) -> None:
    if dtype != entry.dtype:
        raise RefusalError("signature", f"input {name!r} is {entry.dtype} in the model, {dtype} in the request")
    if len(shape) != len(entry.shape) or any(
        fixed not in (None, size)
        for fixed, size in zip(entry.shape, shape)  # noqa: B905 - Python 3.9
    ):
        sizes = ["any" if size is None else size for size in entry.shape]
        raise RefusalError("signature", f"input {name!r} is {sizes} in the model, {list(shape)} in the request")


def output_order(names: list[str] | None, expected: list[dict[str, Any]]) -> list[int]:
    """Return where each expected output stands among the model's; without names (None) they are in order already."""
    stated = [entry["name"] for entry in expected]
    if names is None:
        return list(range(len(stated)))
    if sorted(names) != sorted(stated):
        raise RefusalError("signature", f"the model's outputs are {sorted(names)}, not {sorted(stated)}")
    return [names.index(name) for name in stated]


def keep_case(
    results: list[np.ndarray], order: list[int], expected: list[dict[str, Any]], kept: list[np.ndarray], case: int
) -> None:
    """Copy the results of one case into `kept`; refuses another number, shape or dtype than the request states."""
    if len(results) != len(expected):
        raise RefusalError("signature", f"the model gave {len(results)} outputs, not {len(expected)}")
    for position, entry, array in zip(order, expected, kept):  # noqa: B905 - Python 3.9
        value = results[position]
        if value.dtype != array.dtype or value.shape != array.shape[1:]:
            came, stated = f"{value.dtype.name} {list(value.shape)}", f"{entry['dtype']} {entry['shape']}"
            raise RefusalError("signature", f"output {entry['name']!r} came as {came}, not as the stated {stated}")
        array[case] = value
