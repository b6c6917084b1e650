"""How a model is built and which deployable programs it has."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class InputSpec:
    """One int32 or float32 input of a program: its name and shape for a history length N and a candidate count C."""

    name: str
    dtype: Literal["int32", "float32"]
    shape: Callable[[Mapping[str, Any], int, int], tuple[int, ...]]


@dataclass(frozen=True)
class ProgramSpec:
    """One deployable graph: `build` wraps the model in a module whose forward takes `inputs` in order.

    `ranking` names the output that holds candidate scores, whose order parity must keep; None where there is none.
    """

    name: str
    description: str
    runs_on: Literal["device", "cloud"]
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    ranking: str | None
    build: Callable[["nn.Module"], "nn.Module"]


@dataclass(frozen=True)
class ModelSpec:
    """A model: `build` takes the `architecture` part of a checkpoint's config.json and returns it untrained."""

    name: str
    description: str
    build: Callable[[Mapping[str, Any]], "nn.Module"]
    programs: Mapping[str, ProgramSpec]
    default_program: str
