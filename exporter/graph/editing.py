"""Editing a captured graph: new operations know their shapes, constants are read and made, and what is unused goes."""

import itertools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from exporter.graph import origins

if TYPE_CHECKING:
    import torch
    from torch.fx import Graph, GraphModule, Node

_OWN = "rewritten"  # constants that a pass made


class Editor:
    """A graph that is being rewritten; every value of it has its shape and dtype in `meta["val"]`.

    `outside` names the weights that come from outside of the program: they are parameters, and no constants. `growth`
    is by what factor the bytes of constants may grow.
    """

    def __init__(self, graph_module: "GraphModule", outside: frozenset[str] = frozenset(), growth: float = 1.0) -> None:
        from torch._subclasses.fake_tensor import FakeTensorMode

        self.graph_module, self.outside, self.growth = graph_module, outside, growth
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self._made = itertools.count()
        for node in self.graph.nodes:
            self._describe(node)

    @property
    def graph(self) -> "Graph":
        """Return the graph itself."""
        return self.graph_module.graph

    def shape(self, node: "Node") -> tuple[int, ...]:
        """Return the shape of a node's value."""
        return tuple(node.meta["val"].shape)

    def axis_in(self, value: "Node", axis: int, rank: int) -> int | None:
        """Return which axis of a value is `axis` of a result of `rank` axes that it is broadcast to; None for none."""
        shape = self.shape(value)
        at = axis - rank + len(shape)
        return at if at >= 0 and shape[at] > 1 else None

    def dtype(self, node: "Node") -> "torch.dtype":
        """Return the dtype of a node's value."""
        dtype: torch.dtype = node.meta["val"].dtype
        return dtype

    def is_tensor(self, node: "Node") -> bool:
        """Say whether a node's value is one tensor."""
        import torch

        return isinstance(node.meta.get("val"), torch.Tensor)

    def constants(self) -> "set[Node]":
        """Return the constants, and what is computed of constants alone."""
        fixed: set[Node] = set()
        for node in self.graph.nodes:
            plain = node.op == "call_function" and self.is_plain(node)
            if self.is_constant(node) or (plain and all(value in fixed for value in node.all_input_nodes)):
                fixed.add(node)
        return fixed

    def is_outside(self, node: "Node") -> bool:
        """Say whether a constant is a weight that comes from outside."""
        return str(node.target).rpartition(".")[2] in self.outside

    def is_constant(self, value: Any) -> bool:
        """Say whether an argument is a constant of the program: a weight that does not come from outside."""
        return getattr(value, "op", None) == "get_attr" and not self.is_outside(value)

    def readers(self, constant: "Node") -> "set[Node]":
        """Return what reads the numbers of a constant, under whatever name."""
        place = self.value(constant).data_ptr()
        same = [node for node in self.graph.find_nodes(op="get_attr") if self.value(node).data_ptr() == place]
        return {user for node in same for user in node.users}

    def is_plain(self, node: "Node") -> bool:
        """Say whether an operation gives one tensor that depends on what it reads alone, and does nothing else."""
        return self.is_tensor(node) and self._has_no_effect(node)

    def _has_no_effect(self, node: "Node") -> bool:
        """Say whether all that an operation does is to give values, which depend on what it reads alone."""
        import torch

        if node.target is operator.getitem or _without_dropout(node):
            return True
        if not isinstance(node.target, torch._ops.OpOverload):
            return False
        return torch.Tag.nondeterministic_seeded not in node.target.tags and not node.target._schema.is_mutable

    def call(self, operation: Any, *args: Any, **kwargs: Any) -> "Node":
        """Add an operation at the place of insertion and return its node; it is of the module of what is there."""
        node = self.graph.call_function(operation, args, kwargs)
        origins.inherit(node)
        self._describe(node)
        return node

    def reshape(self, node: "Node", shape: Sequence[int]) -> "Node":
        """Return a node with the numbers of another in another shape; itself where it has that one."""
        import torch

        if self.is_constant(node) and self.shape(node) != tuple(shape):
            return self.constant(self.value(node).reshape([*shape]))
        while str(node.target) == "aten.reshape.default":
            node = node.args[0]
        return node if self.shape(node) == tuple(shape) else self.call(torch.ops.aten.reshape.default, node, [*shape])

    def copied(self, node: "Node", shape: Sequence[int]) -> "Node":
        """Return a copy of a node, in a shape that may be its own."""
        import torch

        if self.is_constant(node):
            return self.constant(self.value(node).reshape([*shape]).clone())
        return self.call(torch.ops.aten.reshape.default, node, [*shape])

    def constant(self, value: "torch.Tensor") -> "Node":
        """Add a constant at the place of insertion and return its node; what is part of another tensor is copied."""
        name = next(name for at in self._made if not hasattr(self.graph_module, name := f"{_OWN}_{at}"))
        value = value.detach().contiguous()
        if value.untyped_storage().nbytes() != value.nbytes:  # ExecuTorch reads a storage from its beginning
            value = value.clone()
        self.graph_module.register_buffer(name, value)
        node = self.graph.get_attr(name)
        self._describe(node)
        return node

    def shared_constant(self, value: "torch.Tensor") -> "Node":
        """Add a node at the place of insertion for a constant that the graph has already, or for a new one."""
        import torch

        for node in self.graph.find_nodes(op="get_attr"):
            alike = self.is_constant(node) and self.shape(node) == value.shape and self.dtype(node) == value.dtype
            if alike and torch.equal(self.value(node), value):
                same = self.graph.get_attr(str(node.target))
                self._describe(same)
                return same
        return self.constant(value)

    def value(self, node: "Node") -> "torch.Tensor":
        """Return the tensor of a constant."""
        tensor: torch.Tensor = operator.attrgetter(str(node.target))(self.graph_module)
        return tensor.detach()

    def compute(
        self,
        steps: "Iterable[Node]",
        values: "dict[Node, torch.Tensor]",
        arguments: "Callable[[Node], tuple[Any, ...]]" = lambda node: node.args,
    ) -> None:
        """Add to `values` what operations give, in their order, for the values that are in it and the constants.

        `arguments` says what an operation takes in place of its own arguments.
        """
        import torch
        from torch.fx.node import map_arg

        def known(node: "Node") -> "torch.Tensor":
            return values[node] if node in values else self.value(node)

        with torch.no_grad():
            for node in steps:
                if node not in values:
                    args, kwargs = map_arg((arguments(node), node.kwargs), known)
                    values[node] = node.target(*args, **kwargs)

    def remove_unused(self) -> None:
        """Remove what nothing uses, constants among it."""
        for node in reversed(self.graph.nodes):
            unused = not node.users and (
                node.op == "get_attr" or (node.op == "call_function" and self._has_no_effect(node))
            )
            if unused:
                self.graph.erase_node(node)

    def finish(self) -> None:
        """Remove what nothing uses any more, and compile what is left."""
        self.remove_unused()
        self.graph.lint()
        used = {str(node.target) for node in self.graph.find_nodes(op="get_attr")}
        for name in [name for name, _ in self.graph_module.named_buffers(recurse=False)]:
            if name.startswith(_OWN) and name not in used:
                delattr(self.graph_module, name)
        self.graph_module.recompile()

    def _describe(self, node: "Node") -> None:
        """Compute the shape and dtype of a node's value from those of its inputs."""
        import torch
        from torch.fx.node import map_arg

        if node.op == "get_attr":
            node.meta["val"] = self._mode.from_tensor(self.value(node))
        elif node.op == "placeholder":
            value = node.meta["val"]
            with self._mode:
                node.meta["val"] = torch.empty(tuple(value.shape), dtype=value.dtype)
        elif node.op == "call_function":
            args, kwargs = map_arg((node.args, node.kwargs), lambda one: one.meta["val"])
            with self._mode, torch.no_grad():
                node.meta["val"] = node.target(*args, **kwargs)


def _without_dropout(node: "Node") -> bool:
    """Say whether an operation that may draw numbers, for dropout, draws none."""
    match str(node.target):
        case "aten.dropout.default":
            return node.args[2] is False
        case "aten.scaled_dot_product_attention.default":
            dropout = node.args[4] if len(node.args) > 4 else node.kwargs.get("dropout_p", 0.0)
            return bool(dropout == 0.0)
        case _:
            return False


def made_bytes(graph_module: "GraphModule") -> int:
    """Return the bytes of the constants that passes made; a table may be among them."""
    return sum(value.nbytes for name, value in graph_module.named_buffers(recurse=False) if name.startswith(_OWN))


def same_but(shape: Sequence[int], axis: int, extent: int) -> list[int]:
    """Return a shape with another extent of one axis."""
    return [extent if at == axis else size for at, size in enumerate(shape)]


def order_of(node: "Node", rank: int) -> list[int]:
    """Return which axis of what it reads each axis of a transpose or permute is, for a value of `rank` axes."""
    axes = node.args[1:]
    if str(node.target) == "aten.permute.default":
        return [axis % rank for axis in axes[0]]
    one, other = (axis % rank for axis in axes)
    order = list(range(rank))
    order[one], order[other] = other, one
    return order


def rewrite_each(editor: Editor, rule: "Callable[[Editor, Node], bool]") -> int:
    """Let a rule rewrite the operations of a graph that are read; return at how many places it did."""
    places = 0
    for node in list(editor.graph.nodes):
        if node.op == "call_function" and node.users and editor.is_tensor(node):
            with editor.graph.inserting_before(node):
                applied = rule(editor, node)
            if applied:
                editor.remove_unused()  # who reads a value decides what may be rewritten
                places += 1
    return places


def replace(editor: Editor, node: "Node", other: "Node") -> bool:
    """Let another node be read in place of one, in the shape of that one."""
    node.replace_all_uses_with(editor.reshape(other, editor.shape(node)))
    return True
