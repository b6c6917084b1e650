"""What an operation's implementation is, and what it may ask of the run that calls it."""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

HalfPolicy = Literal["wide", "pure"]
"""How float16 is computed: `wide` stores float16 and computes and accumulates each operation in float32 (the default);
`pure` rounds to float16 after every elementary step, sums and matrix products included."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on an untrusted program: bytes of all live values together, and iterations of all its loops."""

    memory_bytes: int = 4 << 30
    iterations: int = 1_000_000


class RefusedError(Exception):
    """Why a kernel cannot compute; the executor turns it into a ProgramError that names the operation."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One MIL operation: `run` takes the inputs by their names in the spec and returns an array or a tuple of them.

    An `arithmetic` kernel makes new numbers: its float16 inputs are widened under the `wide` policy, its results are
    rounded back and watched for infinities and NaN. The others only move values. `lists` names the inputs that take
    several values; a kernel with `blocks` is handed its nested blocks, and one with `env` the run that it belongs to.
    A constant given to an input in `mixes` may be of integers beside floats or the other way round; it takes the kind
    of the result.
    """

    run: Callable[..., Any]
    arithmetic: bool
    lists: frozenset[str] = frozenset()
    blocks: bool = False
    env: bool = False
    mixes: frozenset[str] = frozenset()


def kernel(run: Callable[..., Any], arithmetic: bool, lists: Sequence[str] = (), blocks: bool = False) -> Kernel:
    """Return a kernel; `run` is handed the Env where its first parameter is called `env`."""
    env = next(iter(inspect.signature(run).parameters), "") == "env"
    return Kernel(run, arithmetic, frozenset(lists), blocks, env)


def arithmetic(run: Callable[..., Any], *lists: str) -> Kernel:
    """Return a kernel that makes new numbers."""
    return kernel(run, True, lists)


def movement(run: Callable[..., Any], *lists: str) -> Kernel:
    """Return a kernel that moves, selects or compares values."""
    return kernel(run, False, lists)


class Env:
    """The run that a kernel belongs to: operation set, numeric policy, limits, random numbers, and what is in doubt."""

    __slots__ = ("_random", "doubts", "half", "iterations", "limits", "live", "opset", "pure", "seed")

    def __init__(self, opset: int, policy: HalfPolicy, limits: Limits, seed: int) -> None:
        self.opset = opset
        self.pure = policy == "pure"
        self.limits = limits
        self.live = 0
        self.iterations = 0
        self.half = False
        self.seed = seed
        self.doubts: list[str] = []
        self._random: np.random.Generator | None = None

    def doubt(self, reason: str) -> None:
        """Say that what the operation gives for these values rests on a choice that only a Mac could settle.

        `reason` completes a sentence that begins with the operation; it names no values, so that runs can be compared.
        """
        self.doubts.append(reason)

    def whole(self, result: np.ndarray, exact: np.ndarray) -> np.ndarray:
        """Return `result`; in doubt where it is of integers and `exact`, the same in float64, is out of their range."""
        if result.dtype.kind in "iu" and (np.abs(exact - result) > 0.5).any():
            self.doubt("whole numbers left the range of their type; here they wrap around")
        return result

    @property
    def random(self) -> np.random.Generator:
        """The generator of this run, for operations whose seed is -1."""
        if self._random is None:
            self._random = np.random.default_rng(self.seed)
        return self._random

    def reserve(self, shape: Sequence[int], itemsize: int = 4) -> None:
        """Refuse before allocating when an array of `shape` would not fit under the memory limit."""
        size = math.prod(shape) * itemsize
        if size + self.live > self.limits.memory_bytes:
            raise RefusedError(
                f"an array of shape {list(shape)} needs {size} bytes beside {self.live} in use, over the limit of"
                f" {self.limits.memory_bytes}; if you trust the package, load it with a larger Limits.memory_bytes"
            )

    def broadcast(self, *arrays: np.ndarray) -> None:
        """Refuse when the broadcast of `arrays` would not fit; free of cost for arrays of ordinary sizes."""
        bound = 1
        for array in arrays:
            bound *= array.size or 1
        if bound > 1 << 24:
            self.reserve(np.broadcast_shapes(*(array.shape for array in arrays)), arrays[0].itemsize)

    def tick(self) -> None:
        """Count one iteration of a loop of the program."""
        self.iterations += 1
        if self.iterations > self.limits.iterations:
            raise RefusedError(
                f"the program's loops ran more than {self.limits.iterations} iterations; if that is meant, load it with"
                " a larger Limits.iterations"
            )

    def matmul(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Multiply matrices as np.matmul; under the pure policy float16 products are summed one by one in float16."""
        if x.size * y.size > 1 << 24:
            batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
            self.reserve((*batch, x.shape[-2] if x.ndim > 1 else 1, y.shape[-1] if y.ndim > 1 else 1), x.itemsize)
        if not (self.pure and x.dtype == np.float16 and y.dtype == np.float16):
            product: np.ndarray = np.matmul(x, y)
            return product
        if x.shape[-1] != y.shape[-2 if y.ndim > 1 else 0]:
            raise RefusedError(f"matrices of shapes {list(x.shape)} and {list(y.shape)} do not fit")
        rows = x if x.ndim > 1 else x[None]
        columns = y if y.ndim > 1 else y[:, None]
        batch = np.broadcast_shapes(rows.shape[:-2], columns.shape[:-2])
        total = np.zeros((*batch, rows.shape[-2], columns.shape[-1]), np.float16)
        for k in range(rows.shape[-1]):
            total += rows[..., :, k, None] * columns[..., None, k, :]
        if x.ndim == 1:
            total = total[..., 0, :]
        summed: np.ndarray = total[..., 0] if y.ndim == 1 else total
        return summed

    def sum(self, x: np.ndarray, axis: tuple[int, ...] | int | None = None, keepdims: bool = False) -> np.ndarray:
        """Add along `axis` in the type of `x`; under the pure policy every partial sum is rounded to float16."""
        if not (self.pure and x.dtype == np.float16):
            return np.asarray(np.add.reduce(x, axis=axis, dtype=x.dtype, keepdims=keepdims))  # type: ignore[call-overload]
        axes = tuple(range(x.ndim)) if axis is None else (axis,) if isinstance(axis, int) else axis
        for position in sorted({a % x.ndim for a in axes}, reverse=True):
            if x.shape[position]:
                # accumulate stores, and so rounds, every partial sum; reduce would keep them in float32.
                x = np.add.accumulate(x, position).take([-1], position)
            else:
                x = np.zeros((*x.shape[:position], 1, *x.shape[position + 1 :]), x.dtype)
            if not keepdims:
                x = x.squeeze(position)
        return x

    def mean(self, x: np.ndarray, axis: tuple[int, ...] | int | None = None, keepdims: bool = False) -> np.ndarray:
        """Average along `axis` in the type of `x`."""
        total = self.sum(x, axis, keepdims)
        average: np.ndarray = total / x.dtype.type(x.size // max(total.size, 1))
        return average


def integers(values: Any) -> list[int]:
    """Return the elements of a small integer input as a list."""
    return [int(value) for value in np.asarray(values).reshape(-1).tolist()]


def axes_of(axes: Any, rank: int) -> tuple[int, ...]:
    """Return axes as sorted distinct non-negative numbers; refuses one that is out of range or named twice."""
    positive = sorted(axis_of(axis, rank) for axis in integers(axes))
    if len(set(positive)) != len(positive):
        raise RefusedError(f"axes {integers(axes)} name an axis twice")
    return tuple(positive)


def axis_of(axis: Any, rank: int) -> int:
    """Return an axis as a non-negative number; refuses one that is out of range."""
    position = int(axis)
    if not -rank <= position < rank:
        raise RefusedError(f"axis {position} is out of range for rank {rank}")
    return position % rank
