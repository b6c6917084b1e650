"""Control flow, lists, states and class labels (MIL control_flow, states, classify)."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from exporter.mil.kernel import Env, Kernel, RefusedError, integers, kernel, movement
from exporter.mil.types import DTYPE_NAMES, NUMPY_TYPES

Block = Callable[..., list[Any]]


class Cell(Protocol):
    """A state as the run hands it to operations."""

    def read(self) -> np.ndarray:
        """Return the current value."""

    def write(self, value: np.ndarray) -> None:
        """Replace the value."""


class FixedList(list[np.ndarray]):
    """A list that does not grow."""


def cond(pred: np.ndarray, blocks: list[Block]) -> Any:
    """Run the first block if `pred` holds and the second if not."""
    if len(blocks) != 2 or pred.size != 1:
        raise RefusedError(f"cond wants one predicate and two blocks, not {pred.size} and {len(blocks)}")
    return tuple(blocks[0]() if bool(pred.reshape(()).item()) else blocks[1]())


def while_loop(env: Env, loop_vars: list[Any], blocks: list[Block]) -> Any:
    """Run the second block on the loop variables as long as the first one, on the same variables, gives true."""
    if len(blocks) != 2:
        raise RefusedError(f"while_loop wants two blocks, not {len(blocks)}")
    values = loop_vars
    while True:
        env.tick()
        holds = blocks[0](*values)
        if len(holds) != 1 or np.size(holds[0]) != 1:
            raise RefusedError("the condition of the loop is not one boolean")
        if not bool(np.reshape(holds[0], ()).item()):
            return tuple(values)
        values = blocks[1](*values)


def make_list(
    env: Env, elem_shape: list[Any], init_length: Any = 1, dynamic_length: bool = True, dtype: str = "fp32"
) -> Any:
    """A list of `init_length` tensors of zeros; an element's size given by a name counts as unknown and stays empty."""
    held = NUMPY_TYPES.get(DTYPE_NAMES.get(dtype, dtype))
    length = int(init_length)
    kind = list if dynamic_length else FixedList
    if held is None or held.kind == "O" or length < 0:
        raise RefusedError(f"a list of {length} elements of type {dtype!r} cannot be made")
    if any(isinstance(size, str) for size in elem_shape):
        return kind([np.zeros(0, held)] * length)
    sizes = [int(size) for size in elem_shape]
    env.reserve([length, *sizes], held.itemsize)
    env.reserve([length], 8)
    return kind([np.zeros(sizes, held)] * length)


def list_length(ls: list[np.ndarray]) -> Any:
    """The number of elements."""
    return np.array(len(ls), np.int32)


def list_read(ls: list[np.ndarray], index: np.ndarray) -> Any:
    """The element at `index`."""
    return ls[_place(int(index), len(ls))]


def list_write(env: Env, ls: list[np.ndarray], index: np.ndarray, value: np.ndarray) -> Any:
    """A list with the element at `index` replaced; a list grows to hold it."""
    return _written(env, ls, [int(index)], [value])


def list_gather(env: Env, ls: list[np.ndarray], indices: np.ndarray) -> Any:
    """The elements at `indices`, stacked."""
    chosen = [ls[_place(index, len(ls))] for index in integers(indices)]
    env.reserve([sum(value.size for value in chosen)], 8)
    return np.stack(chosen)


def list_scatter(env: Env, ls: list[np.ndarray], indices: np.ndarray, value: np.ndarray) -> Any:
    """A list with the elements at `indices` replaced by the rows of `value`; a list grows to hold them."""
    places = integers(indices)
    if value.ndim < 1 or len(places) != value.shape[0]:
        raise RefusedError(f"{len(places)} indices do not fit values {list(value.shape)}")
    return _written(env, ls, places, list(value))


def _written(env: Env, ls: list[np.ndarray], places: list[int], values: list[np.ndarray]) -> list[np.ndarray]:
    length = max([len(ls), *(place + 1 for place in places)])
    if min(places, default=0) < 0:
        raise RefusedError(f"index {min(places)} is negative")
    if length > len(ls) and isinstance(ls, FixedList):
        raise RefusedError(f"index {length - 1} is outside of a list of fixed length {len(ls)}")
    env.reserve([length], 8)
    filler = np.zeros_like(values[0]) if values else np.zeros(0, np.float32)
    result = type(ls)([*ls, *[filler] * (length - len(ls))])
    for place, value in zip(places, values, strict=True):
        result[place] = value
    return result


def _place(index: int, length: int) -> int:
    if not 0 <= index < length:
        raise RefusedError(f"index {index} is outside of a list of {length}")
    return index


def read_state(input: Cell) -> Any:
    """The value of a state."""
    return input.read()


def write_state(input: Cell, data: np.ndarray) -> Any:
    """Replace the value of a state; makes no value."""
    input.write(data)
    return ()


def classify(env: Env, probabilities: np.ndarray, classes: list[Any]) -> Any:
    """The class of the largest probability, and the probabilities in the order of the classes."""
    flat = probabilities.reshape(-1)
    if flat.size != len(classes) or not classes:
        raise RefusedError(f"{flat.size} probabilities do not fit {len(classes)} classes")
    if (flat == flat.max()).sum() > 1:
        env.doubt("the largest probability stands more than once; here the first of those classes is taken")
    best = classes[int(np.argmax(flat))]
    label = np.empty((), object)
    label[()] = best
    return (label if isinstance(best, str) else np.asarray(best)), flat


CONTROL: dict[str, Kernel] = {
    "cond": kernel(cond, arithmetic=False, blocks=True),
    "while_loop": kernel(while_loop, arithmetic=False, lists=("loop_vars",), blocks=True),
    "make_list": movement(make_list, "elem_shape"),
    "list_length": movement(list_length),
    "list_read": movement(list_read),
    "list_write": movement(list_write),
    "list_gather": movement(list_gather),
    "list_scatter": movement(list_scatter),
    "read_state": movement(read_state),
    "write_state": movement(write_state),
    "classify": movement(classify),
}
