"""Programs of the cloud for several users in one call: their inputs and golden cases have a row for each."""

from dataclasses import replace
from typing import TYPE_CHECKING

from exporter.core.errors import BadInputError

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from exporter.core.types import Arrays
    from models.spec import Cases, InputSpec, ProgramSpec, Selection

_MAX_BYTES = 1 << 28
"""Of the inputs and outputs of one golden case; an artifact ships with them."""


def batched(program: "ProgramSpec", users: int) -> "ProgramSpec":
    """Return a program whose calls take `users` users, on the first axis of all inputs and outputs.

    Its cases are those of the program, `users` after each other in one; the first ones again fill up the last. Raises
    BadInputError for a program of a device, which has one user.
    """
    if program.runs_on != "cloud":
        raise BadInputError(
            f"--batch is for what the cloud computes for many users, and {program.name} runs on a device, which has"
            " one; leave it out"
        )
    return replace(
        program,
        inputs=tuple(_input(spec, users) for spec in program.inputs),
        output_meanings={name: _meaning(text, users) for name, text in program.output_meanings.items()},
        cases=_cases(program.cases, users),
    )


def alone(inputs: "Arrays") -> "Arrays":
    """Return cases [cases, users, ...] as one case for each user, [cases * users, 1, ...]."""
    return {name: array.reshape(-1, 1, *array.shape[2:]) for name, array in inputs.items()}


def together(outputs: "Arrays", users: int) -> "Arrays":
    """Return what was computed for each user alone, [cases * users, 1, ...], as [cases, users, ...].

    Raises BadInputError for an output that has no axis of users.
    """
    for name, array in outputs.items():
        _check_axis("output", name, array)
    return {name: array.reshape(-1, users, *array.shape[2:]) for name, array in outputs.items()}


def check_one(users: int, inputs: "Arrays", outputs: "Arrays") -> None:
    """Raise BadInputError where what one user gives and gets, [1, ...] each, makes no golden case of so many users."""
    for name, array in outputs.items():
        _check_axis("output", name, array[None])
    _check_size(users, sum(array.nbytes for array in (*inputs.values(), *outputs.values())))


def _check_size(users: int, bytes_of_one: int) -> None:
    """Raise BadInputError where one golden case of so many users would be too large to ship."""
    if users * bytes_of_one > _MAX_BYTES:
        raise BadInputError(
            f"--batch {users}: a golden case would have {users * bytes_of_one:,} bytes, of {_MAX_BYTES:,} that may"
            f" ship; ask for {max(1, _MAX_BYTES // bytes_of_one)} users or fewer"
        )


def _input(spec: "InputSpec", users: int) -> "InputSpec":
    return replace(
        spec,
        shape=lambda architecture, history, candidates: (users, *spec.sized(architecture, history, candidates)[1:]),
        meaning=_meaning(spec.meaning, users),
    )


def _meaning(text: str, users: int) -> str:
    return f"{text}; a row for each of {users} users" if text else text


def _cases(of_one: "Cases", users: int) -> "Cases":
    def cases(model: "nn.Module", golden: "Arrays", selection: "Selection | None" = None, /) -> "Arrays":
        import numpy as np

        single = of_one(model, golden, selection)
        grouped = {}
        for name, array in single.items():
            _check_axis("input", name, array)
            _check_size(users, array[0].nbytes)
            rows = np.arange(-(-len(array) // users) * users) % len(array)
            grouped[name] = array[rows].reshape(-1, users, *array.shape[2:])
        return grouped

    return cases


def _check_axis(side: str, name: str, array: "np.ndarray") -> None:
    if array.ndim < 2 or array.shape[1] != 1:
        raise BadInputError(
            f"--batch: {side} {name!r} is {list(array.shape[1:])} for one user; its first axis must be 1"
        )
