"""Which of the user's modules an operation of a captured graph comes from, also after passes."""

from collections.abc import Mapping
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from exporter.core.types import Captured

if TYPE_CHECKING:
    from torch.fx import Graph, Node

_STACK = "nn_module_stack"
_PROGRAM = "program"  # what `capture` calls the module that it was given


def inherit(node: "Node") -> None:
    """Let an operation that a pass adds be of the module of the operation before which it stands."""
    stack = node.next.meta.get(_STACK)
    if stack:
        node.meta[_STACK] = stack


def carried(before: "Graph", after: "Graph") -> dict[str, str]:
    """Return the module of each operation of `after`, by its node's name: `before` is what torch.export traced anew.

    Tracing keeps the operations and their order, and adds or drops some that compute nothing, but forgets modules.
    """
    old, new = ([node for node in graph.nodes if node.op == "call_function"] for graph in (before, after))
    same = SequenceMatcher(None, [str(node.target) for node in old], [str(node.target) for node in new], False)
    paths = _paths(old)
    return {
        new[block.b + at].name: path
        for block in same.get_matching_blocks()
        for at in range(block.size)
        if (path := paths.get(old[block.a + at])) is not None
    }


def modules(captured: Captured) -> Mapping[str, str]:
    """Return the module of each operation of a captured graph, by its node's name; "" is the program itself."""
    if captured.modules:
        return captured.modules
    nodes = [node for node in captured.exported.graph.nodes if node.op == "call_function"]
    return {node.name: path for node, path in _paths(nodes).items()}


def _paths(nodes: "list[Node]") -> "dict[Node, str]":
    """Return the modules of operations in order; one without a note of it is of the next one's, which reads it."""
    paths: dict[Node, str] = {}
    following: str | None = None
    for node in reversed(nodes):
        stack = node.meta.get(_STACK)
        if stack:
            following = own_path(list(stack.values())[-1][0])
        if following is not None:
            paths[node] = following
    return paths


def own_path(path: str) -> str:
    """Return a path inside the captured module as the user has it: without the name of the program in front."""
    return "" if path == _PROGRAM else path.removeprefix(f"{_PROGRAM}.")
