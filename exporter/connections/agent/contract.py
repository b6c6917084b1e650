"""What a target's loader.py gives the agent, and what it may use; loaders import nothing else of the project."""

from __future__ import annotations

import importlib.metadata
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# The runtimes report a failed allocation in words, not as MemoryError; 0x21 is ExecuTorch's MemoryAllocationFailed.
OUT_OF_MEMORY = re.compile(
    r"bad_alloc|can't allocate memory|(failed|unable|not enough memory) to allocate|out of memory|error:? 0x:?21\b",
    re.I,
)


class RefusalError(Exception):
    """Why the agent does not run the request; `kind` tells the other side which error to raise."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Input:
    """One input of a model, without the cases axis; a size of None is free, and so is a name where inputs have none."""

    name: str | None
    shape: list[int | None]
    dtype: str


@dataclass(frozen=True)
class Model:
    """A loaded artifact: `prepare` makes the runtime's own inputs, `run` is what is timed, `collect` copies out.

    `outputs` names what `collect` returns, in its order, or is None where the runtime's outputs have no names; `owner`
    is what must live as long as the model. `run_marked` runs between its own markers, see `marker.py`.
    """

    inputs: list[Input]
    outputs: list[str] | None
    prepare: Callable[[dict[str, np.ndarray]], Any]
    run: Callable[[Any], Any]
    collect: Callable[[Any], list[np.ndarray]]
    owner: Any = None
    run_marked: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Runtime:
    """An imported runtime: what it is called, the threads it uses (None where it chooses them) and how it loads.

    `load` takes the model file, and the data file where the model reads weights from one.
    """

    name: str
    threads: int | None
    load: Callable[[Path, Path | None], Model]


@dataclass(frozen=True)
class Loader:
    """A target's loader.py in the agent: `start` imports the runtime, for so many threads and the target's options.

    `packages` are the top-level packages without which there is no runtime, `distribution` is what brings them.
    `trivial` is the file of a program that adds one to one number, x: int32 [1]; None where there is none.
    """

    start: Callable[[int, dict[str, Any]], Runtime]
    packages: tuple[str, ...]
    distribution: str
    trivial: bytes | None = None


def only_one(what: str, names: Iterable[str]) -> str:
    """Return the one name there is; refuses a model with none or several."""
    listed = sorted(names)
    if len(listed) != 1:
        raise RefusalError("signature", f"the model has {len(listed)} {what}s {listed}, exactly one is expected")
    return listed[0]


def version_of(distribution: str) -> str:
    """Return the installed version of a distribution."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def memory_limit() -> float:
    """Return the private memory that this process may have, in bytes."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return math.inf if soft == resource.RLIM_INFINITY else soft
