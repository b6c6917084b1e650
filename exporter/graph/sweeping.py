"""Passes that put one operation in place of a formula: what a formula is found as, and how it is replaced."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.graph.editing import Editor
from exporter.graph.formulas import name, operands

if TYPE_CHECKING:
    from torch.fx import Node


@dataclass(frozen=True)
class Found:
    """A value that an operation gives: of what it is computed, and what adds that operation before it."""

    reads: "tuple[Node, ...]"
    add: "Callable[[], Node]"


Kind = Callable[[Editor, "Node", "set[Node]"], Found | None]


def sweep(editor: Editor, kinds: tuple[Kind, ...]) -> int:
    """Replace what any of these finds, what is computed last first."""
    import torch

    editor.remove_unused()  # it would count as a reader of what lies between
    places, gone, fixed = 0, set[Any](), editor.constants()
    for node in reversed(list(editor.graph.nodes)):
        if node in gone or node in fixed or not name(node) or not editor.is_tensor(node):
            continue
        if editor.dtype(node) != torch.float32:
            continue
        for kind in kinds:
            found = kind(editor, node, fixed)
            inside = None if found is None else between(node, {*found.reads, *fixed})
            if found is None or inside is None:
                continue
            with editor.graph.inserting_before(node):
                node.replace_all_uses_with(found.add())
            for one in inside:
                editor.graph.erase_node(one)
            gone |= {*inside}
            places += 1
            break
    return places


def between(root: "Node", ends: "set[Node]") -> "list[Node] | None":
    """Return what lies between a value and those that it is computed of, last first, or None if others read of it."""
    found = behind(root, ends)
    if any(user not in found for node in found if node is not root for user in node.users):
        return None
    return sorted(found, reverse=True)


def behind(root: "Node", ends: "set[Node]") -> "set[Node]":
    """Return a value and all that it is computed of, up to these ends."""
    found, waiting = {root}, [root]
    while waiting:
        for value in waiting.pop().all_input_nodes:
            if value not in ends and value not in found:
                found.add(value)
                waiting.append(value)
    return found


def uncast(editor: Editor) -> int:
    """Leave out casts to the dtype that a value has."""
    places = 0
    for node in list(editor.graph.nodes):
        args = operands(node, "to.dtype", "detach.default", "alias.default")
        if args is not None and len(args) <= 2 and editor.dtype(args[0]) == editor.dtype(node):
            node.replace_all_uses_with(args[0])
            editor.graph.erase_node(node)
            places += 1
    return places
