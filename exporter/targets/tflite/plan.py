"""Which tensors LiteRT's memory planner lets share their place, how long each lives, and the scratch of its kernels."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from exporter.core.liveness import Lifetime, lifetimes_of
from exporter.core.types import Shape

Step = tuple[str, list[int], list[int]]
"""An operator: its name, its inputs, its outputs."""


@dataclass(frozen=True)
class Graph:
    """Operators in order, the shape of each tensor, and the tensors that come from outside and that go there."""

    steps: Sequence[Step]
    shapes: Sequence[Shape]
    inputs: Sequence[int]
    outputs: Sequence[int]


# How many of its first inputs an operator's result may take the place of, in its own kernels.
_SHARING = {
    **dict.fromkeys(("ADD", "SUB", "MUL", "DIV"), 2),
    **dict.fromkeys(("RESHAPE", "EXPAND_DIMS", "SQUEEZE", "BITCAST", "SOFTMAX", "DYNAMIC_UPDATE_SLICE"), 1),
}
_KEEPS_DATA = {"RESHAPE", "EXPAND_DIMS", "SQUEEZE", "BITCAST"}
_SCALAR_BYTES = 4


def lifetimes(graph: Graph, sizes: Mapping[int, int]) -> list[Lifetime]:
    """Return the lifetimes of the tensors with `sizes` in bytes, those that share memory as one, and of scratch.

    The result of some operators takes the place of an input that nobody else needs. Inputs of the graph are never
    overwritten, and what nobody reads is never freed.
    """
    steps, given, results = graph.steps, set(graph.inputs), set(graph.outputs)
    references = Counter(index for _, read, _ in steps for index in read)
    references.update([*graph.inputs, *graph.outputs])
    places: dict[int, int] = {}

    def overwritten(native: str, read: Sequence[int], result: int) -> int | None:
        keeps = native in _KEEPS_DATA
        for index in read[: _SHARING.get(native, 0)]:
            alike = sizes.get(index) == sizes[result] > _SCALAR_BYTES and references[index] == 1
            if index in sizes and (keeps or alike) and index not in given and result not in results:
                place = places.get(index, index)
                return place if keeps or references[place] == 1 else None
        return None

    for native, read, written in steps:
        place = overwritten(native, read, written[0]) if written and written[0] in sizes else None
        if place is not None:
            places[written[0]] = place
    merged = [
        ([places.get(index, index) for index in read], [index for index in written if index not in places])
        for _, read, written in steps
    ]
    unread = set(sizes) - {index for read, _ in merged for index in read}
    lives = lifetimes_of(merged, graph.inputs, [*results, *given, *unread], sizes)
    for step, (native, read, written) in enumerate(steps):
        lives += [Lifetime(size, step, step) for size in _scratch(native, graph, read, written, sizes)]
    return lives


def _scratch(
    native: str, graph: Graph, read: Sequence[int], written: Sequence[int], sizes: Mapping[int, int]
) -> list[int]:
    """Return the bytes of each tensor that LiteRT's own kernel of an operator needs while it runs."""
    if native == "BATCH_MATMUL":  # both operands turned; a constant one is turned once, outside of the arena
        return [4 * math.prod(graph.shapes[index]) for index in read[:2] if index in sizes or index == read[0]]
    if native in {"SUM", "MEAN"}:  # an index and the sizes along each axis, the axes, the sums
        axes, reduced = len(graph.shapes[read[0]]), math.prod(graph.shapes[read[1]])
        return [4 * axes, 4 * reduced, 4 * math.prod(graph.shapes[written[0]]), 4 * axes]
    return []
