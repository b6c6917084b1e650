"""The public face of a loaded package: its functions, what they take and give, and `run`."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from exporter.core.errors import CocorrError, ProgramError, UnknownNameError
from exporter.core.types import Arrays, TensorSpec
from exporter.mil.features import Features, read_features
from exporter.mil.function import Execution, Function, State
from exporter.mil.graph import read_function
from exporter.mil.kernel import HalfPolicy, Limits
from exporter.mil.package import Package
from exporter.mil.plan import bind
from exporter.mil.schema import MODEL_KINDS, SCHEMA
from exporter.mil.values import Constants
from exporter.mil.wire import Reader, Record


class ResultWarning(UserWarning):
    """Something that a reader of a run's results should know."""


class NonFiniteWarning(ResultWarning):
    """A run made an infinity or NaN; the message names the first operation that did."""


class UnsettledWarning(ResultWarning):
    """A run rests on a choice that only a Mac could settle; the message names the operation and why."""


@dataclass(frozen=True)
class Program:
    """A loaded .mlpackage; `inputs`, `outputs` and `run` are those of its default function."""

    functions: Mapping[str, Function]
    default: str

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs of the default function; a flexible input has its default shape here and its range in `flexible`."""
        return self.functions[self.default].inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Outputs of the default function; -1 stands for a size that is only known after a run."""
        return self.functions[self.default].outputs

    def run(
        self,
        inputs: Arrays,
        intermediates: bool = False,
        *,
        function: str | None = None,
        state: State | None = None,
        seed: int = 0,
    ) -> dict[str, np.ndarray]:
        """Compute the outputs by name, with every intermediate value as well if asked.

        Warns with NonFiniteWarning, and with UnsettledWarning for each line of `Execution.unsettled`.

        Raises ProgramError for wrong inputs and for a program that cannot be computed. `state` comes from `make_state`
        and is updated in place; `seed` is for random operations that state none.
        """
        done = self.execute(inputs, intermediates, function=function, state=state, seed=seed)
        for first in (done.first_infinity, done.first_nan):
            if first is not None:
                warnings.warn(str(first), NonFiniteWarning, stacklevel=2)
        for line in done.unsettled:
            warnings.warn(f"unsettled: {line}", UnsettledWarning, stacklevel=2)
        return {**done.intermediates, **done.outputs}

    def execute(
        self,
        inputs: Arrays,
        intermediates: bool = False,
        *,
        function: str | None = None,
        state: State | None = None,
        seed: int = 0,
    ) -> Execution:
        """Run like `run` and return, without warnings, outputs, intermediates and all else that the run found out."""
        return self.function(function).execute(inputs, intermediates, state, seed)

    def function(self, name: str | None = None) -> Function:
        """Return a function by name, or the default one; raises UnknownNameError with the names there are."""
        if name is None:
            name = self.default
        if name not in self.functions:
            raise UnknownNameError("function", name, self.functions)
        return self.functions[name]

    def make_state(self, function: str | None = None) -> State:
        """Return the states of a function, all zero, to be handed to `run`; empty for a program without states."""
        return self.function(function).make_state()


def load(path: str | os.PathLike[str], *, half: HalfPolicy = "wide", limits: Limits | None = None) -> Program:
    """Read a .mlpackage that holds an ML program; raises ProgramError, or UnsupportedOperationError naming operations.

    `half` is the policy for float16: `wide` computes each operation in float32 and stores float16, `pure` rounds every
    step.
    """
    try:
        return _load(Path(path), half, limits or Limits())
    except CocorrError:
        raise
    except (MemoryError, RecursionError, OSError) as error:
        raise ProgramError(f"{path} cannot be read: {str(error) or type(error).__name__}") from error


def _load(path: Path, half: HalfPolicy, limits: Limits) -> Program:
    package = Package(path)
    model = Reader(package.model_bytes(), SCHEMA).read("Model")
    record = model.get("mlProgram")
    if record is None:
        held = next((kind for kind in MODEL_KINDS.values() if kind in model), "no model")
        raise ProgramError(f"{path.name} holds a {held}, not an ML program; convert with convert_to='mlprogram'")
    if record.get("version", 0) != 1:
        raise ProgramError(f"{path.name} has MIL version {record.get('version', 0)}; only version 1 is known")
    description = model.get("description", {})
    constants = Constants(package, limits)
    described = _described(description)
    functions: dict[str, Function] = {}
    for name, body in record.get("functions", {}).items():
        graph, opset = read_function(body, name, constants)
        features = described.get(name, described.get("", Features({}, {})))
        functions[name] = Function(name, bind(graph, name), opset, features, half, limits)
    default = description.get("defaultFunctionName", "main")
    if default not in functions:
        raise ProgramError(f"{path.name} has no function {default!r}; it has: {', '.join(functions) or 'none'}")
    return Program(functions, default)


def _described(description: Record) -> dict[str, Features]:
    if "functions" in description:
        return {item.get("name", ""): read_features(item) for item in description["functions"]}
    return {"": read_features(description)}
