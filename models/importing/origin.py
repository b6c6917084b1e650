"""What is known of a published model: its names for our weights, and where its sizes show; data, and no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
Place = tuple[str, int]
"""A published name and an axis of that tensor."""
Settle = Callable[[dict[str, "Tensor"]], str | None]
"""Makes row 0 of an item table zero in a state dict of ours, and says what was done, or None where it was zero."""


@dataclass(frozen=True)
class Origin:
    """A model of one published code, and the model here that it becomes.

    `names` maps its names to ours; `{}` stands for the number of a block, from 0. `parts` has the names of parts that
    may be absent, by the word for them in our architecture. `counted` says for a size how the names of one block begin,
    `sizes` where a size is the extent of an axis, best several places, and `asked` the sizes that no shape shows, with
    the values that are usual there. `history` is the usual length of a history, where no table of positions has it.
    `shapes` gives a tensor's shape there from its shape here, where the two differ by axes of one. `derived` are
    buffers that some versions save and that follow from the sizes. `least` is the least of a size that our model can
    stand for, and why. `assumed` completes "the weights do not show that ...". `save` is how a state dict is saved
    there.
    """

    name: str
    model: str
    description: str
    names: Mapping[str, str]
    sizes: Mapping[str, tuple[Place, ...]]
    settle: Settle
    save: str
    counted: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    asked: Mapping[str, int] = field(default_factory=dict)
    history: int | None = None
    shapes: Mapping[str, Callable[[Shape], Shape]] = field(default_factory=dict)
    derived: frozenset[str] = frozenset()
    least: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    assumed: str | None = None


def affine(names: Mapping[str, str]) -> dict[str, str]:
    """Return names of weight and bias for names of the modules that have both."""
    return {f"{theirs}.{part}": f"{ours}.{part}" for theirs, ours in names.items() for part in ("weight", "bias")}


def clear_padding(state: "dict[str, Tensor]") -> str | None:
    """Set row 0 to zero: for models of which no score of a history with a click reads it, but that of a GCN."""
    if not bool(state["items.weight"][0].any()):
        return None
    state["items.weight"][0] = 0
    read = "no score of a history with a click reads it"
    if any(name.startswith("gcn.") for name in state):
        read += " but for corrected ones, which are others than there for histories that are padded"
    return f"row 0 of the items, padding, was not zero and is now; {read}"


def move_padding(linears: tuple[str, ...], positions: str | None = None) -> Settle:
    """Return what takes row 0 off every row, and gives it to what reads the rows: exact for whatever reads row 0.

    For tables that are read by `linears` alone, where W (e - e_0) + (b + W e_0) = W e + b; with `positions`, by the
    first of them in a sum with a row of positions, so that (e - e_0) + (p + e_0) = e + p and its bias stays.
    """

    def settle(state: "dict[str, Tensor]") -> str | None:
        items = state["items.weight"]
        if not bool(items[0].any()):
            return None
        padding = items[0].double()
        state["items.weight"] = (items.double() - padding).float()
        if positions is not None:
            state[positions] = (state[positions].double() + padding).float()
        for linear in linears[0 if positions is None else 1 :]:
            weight, bias = state[f"{linear}.weight"].double(), state[f"{linear}.bias"].double()
            state[f"{linear}.bias"] = (bias + weight @ padding).float()
        return (
            "row 0 of the items, padding, was not zero: it was taken off every row and given to the biases"
            f"{'' if positions is None else ' and positions'} that follow, which leaves every score as it was"
        )

    return settle
