"""Binds a graph to its kernels once, at load: what each step reads, its constants, and what dies after it."""

import inspect
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from exporter.core.errors import ProgramError, UnsupportedOperationError
from exporter.mil.graph import Graph, Literal, Name, Node, Output
from exporter.mil.kernel import Kernel
from exporter.mil.ops.elementwise import converted
from exporter.mil.registry import KERNELS
from exporter.mil.types import ListType, StateType, TensorType, ValueType

CONSTANT_PREFIX = "constexpr_"


@dataclass(slots=True)
class Step:
    """One operation ready to run.

    `constants` are arguments whose values are known at load, `reads` pairs of parameter and value name, `lists` the
    parameters that take several arguments. `frees` are the names that no later step reads.
    """

    node: Node
    kernel: Kernel
    constants: dict[str, Any]
    reads: tuple[tuple[str, str], ...]
    lists: tuple[tuple[str, tuple[Name | Literal, ...]], ...]
    outputs: tuple[Output, ...]
    blocks: tuple["Plan", ...]
    half: bool
    frees: tuple[str, ...] = ()


@dataclass(slots=True)
class Plan:
    """The steps of a function or nested block in order; `prelude` are constant expressions, computed once."""

    inputs: tuple[Output, ...]
    outputs: tuple[str, ...]
    prelude: list[Step]
    steps: list[Step]
    types: dict[str, ValueType]
    constants: dict[str, Literal]
    outer: frozenset[str] = frozenset()
    unread: tuple[str, ...] = ()
    ready: bool = field(default=False)


def bind(graph: Graph, function: str) -> Plan:
    """Bind a function; raises ProgramError for a graph that is not well formed, UnsupportedOperationError otherwise."""
    _check_known(graph, function)
    return _Binder().bind(graph, {}, {}, frozenset())


def unknown_operations(graph: Graph) -> dict[str, list[str]]:
    """Return the operations without a kernel: type -> names of the nodes, nested blocks included."""
    unknown: dict[str, list[str]] = {}
    for node in nodes_of(graph):
        if node.type != "const" and node.type not in KERNELS:
            unknown.setdefault(node.type, []).append(node.name)
    return unknown


def nodes_of(graph: Graph) -> Iterator[Node]:
    """Walk over the nodes of a graph and of its nested blocks, in order."""
    for node in graph.nodes:
        yield node
        for block in node.blocks:
            yield from nodes_of(block)


def _check_known(graph: Graph, function: str) -> None:
    unknown = unknown_operations(graph)
    if unknown:
        listed = ", ".join(f"{kind} ({names[0]!r})" for kind, names in sorted(unknown.items())[:8])
        raise UnsupportedOperationError(
            f"function {function!r} uses operations that this interpreter does not compute: {listed}; rewrite the model"
            " without them, or run the package on macOS"
        )


@cache
def parameters(kernel: Kernel) -> Mapping[str, bool]:
    """Return the input names of a kernel in the spec's order, and whether each is required."""
    signature = inspect.signature(kernel.run).parameters.values()
    return {p.name: p.default is inspect.Parameter.empty for p in signature if p.name not in ("env", "blocks")}


class _Binder:
    """Binds nested graphs; every block sees the values of the blocks around it."""

    def bind(
        self,
        graph: Graph,
        outer_types: Mapping[str, ValueType],
        outer_constants: Mapping[str, Literal],
        outer_computed: frozenset[str],
    ) -> Plan:
        types = dict(outer_types)
        constants = dict(outer_constants)
        defined: set[str] = set()

        def define(output: Output) -> None:
            if output.name in defined:
                raise ProgramError(f"two operations make a value named {output.name!r}; the package is damaged")
            defined.add(output.name)
            types[output.name] = output.type
            constants.pop(output.name, None)

        for input_ in graph.inputs:
            define(input_)
        steps: list[Step] = []
        prelude: list[Step] = []
        computed = set(outer_computed)
        for node in graph.nodes:
            if node.type == "const":
                value = self._constant(node)
                define(node.outputs[0])
                constants[node.outputs[0].name] = value
                continue
            step = self._step(node, types, constants, frozenset(computed))
            for output in node.outputs:
                define(output)
            if node.type.startswith(CONSTANT_PREFIX):
                _check_constant(node, step, computed)
                prelude.append(step)
                computed.update(output.name for output in node.outputs)
            else:
                steps.append(step)
        for name in graph.outputs:
            if name not in types:
                raise ProgramError(f"a block returns {name!r}, which nothing makes; the package is damaged")
        local = {name: value for name, value in constants.items() if name in defined}
        plan = Plan(graph.inputs, graph.outputs, prelude, steps, types, local)
        plan.outer = _outer(plan, defined)
        _free(plan, defined - set(local) - computed)
        return plan

    @staticmethod
    def _constant(node: Node) -> Literal:
        value = node.attributes.get("val")
        if value is None or len(node.outputs) != 1 or node.inputs or node.blocks:
            raise ProgramError(f"constant {node.name!r} has no value, or inputs; the package is damaged")
        declared = node.outputs[0].type
        if isinstance(declared, TensorType) and value.type is not None and declared != value.type:
            raise ProgramError(f"constant {node.name!r} is declared as {declared} but holds {value.type}")
        return value

    def _step(
        self, node: Node, types: Mapping[str, ValueType], constants: Mapping[str, Literal], computed: frozenset[str]
    ) -> Step:
        kernel = KERNELS[node.type]
        # Up to iOS 17 the constexpr operations carry their inputs as attributes.
        arguments = {**{key: (value,) for key, value in node.attributes.items()}, **node.inputs}
        if len(arguments) != len(node.attributes) + len(node.inputs):
            raise ProgramError(f"operation {node.name!r} ({node.type}) has an input and an attribute of one name")
        fixed: dict[str, Any] = {}
        reads: list[tuple[str, str]] = []
        lists: list[tuple[str, tuple[Name | Literal, ...]]] = []
        half = False
        for key, bindings in arguments.items():
            _check_accepted(node, kernel, key)
            resolved = tuple(_resolved(node, binding, types, constants) for binding in bindings)
            half = half or any(_is_half(_type_of(binding, types)) for binding in bindings)
            if key in kernel.lists:
                lists.append((key, resolved))
            elif len(resolved) != 1:
                raise ProgramError(
                    f"operation {node.name!r} ({node.type}) has {len(resolved)} values for input {key!r}"
                )
            elif isinstance(resolved[0], Literal):
                fixed[key] = resolved[0].value
            else:
                reads.append((key, resolved[0].name))
        _check_complete(node, kernel, arguments)
        blocks = tuple(self.bind(block, types, constants, computed) for block in node.blocks)
        for key in kernel.mixes & fixed.keys():
            fixed[key] = _of_kind(fixed[key], node.outputs[0].type if node.outputs else None)
        half = half and kernel.arithmetic
        return Step(node, kernel, fixed, tuple(reads), tuple(lists), node.outputs, blocks, half)


def _check_constant(node: Node, step: Step, computed: set[str]) -> None:
    varying = set(step_reads(step)) - computed
    if varying:
        raise ProgramError(
            f"operation {node.name!r} ({node.type}) reads {min(varying)!r}, which is not constant;"
            " the package is damaged"
        )


def _check_accepted(node: Node, kernel: Kernel, key: str) -> None:
    if key not in parameters(kernel):
        raise UnsupportedOperationError(
            f"operation {node.name!r} ({node.type}) has an input {key!r} that the spec of iOS 15 to 18 does not"
            " know; convert for an earlier deployment target"
        )


def _check_complete(node: Node, kernel: Kernel, arguments: Collection[str]) -> None:
    """Raise ProgramError where an input of the spec is missing, or a nested block, or where there is one too many."""
    missing = [key for key, required in parameters(kernel).items() if required and key not in arguments]
    if missing:
        raise ProgramError(
            f"operation {node.name!r} ({node.type}) lacks its input {missing[0]!r}; the package is damaged"
        )
    if bool(node.blocks) != kernel.blocks:
        raise ProgramError(
            f"operation {node.name!r} ({node.type}) has {len(node.blocks)} blocks; the package is damaged"
        )


def _resolved(
    node: Node, binding: Name | Literal, types: Mapping[str, ValueType], constants: Mapping[str, Literal]
) -> Name | Literal:
    """Return the constant that an operation's argument names, or the argument itself; raises ProgramError."""
    if isinstance(binding, Literal):
        return binding
    if binding.name not in types:
        raise ProgramError(f"operation {node.name!r} ({node.type}) reads {binding.name!r} before anything makes it")
    return constants.get(binding.name, binding)


def _type_of(binding: Name | Literal, types: Mapping[str, ValueType]) -> ValueType | None:
    return binding.type if isinstance(binding, Literal) else types[binding.name]


def _of_kind(value: Any, declared: ValueType | None) -> Any:
    """Return an integer array as floats where a float is declared, and the other way round; others as they are."""
    if not isinstance(declared, TensorType) or not isinstance(value, np.ndarray):
        return value
    kinds = {value.dtype.kind, declared.numpy.kind}
    return converted(value, declared.numpy) if kinds in ({"f", "i"}, {"f", "u"}) else value


def _is_half(type_: ValueType | None) -> bool:
    return isinstance(type_, TensorType) and type_.dtype == "float16"


def step_reads(step: Step) -> Iterator[str]:
    """Return the names of the computed values that a step and its nested blocks read from around them."""
    for _, name in step.reads:
        yield name
    for _, bindings in step.lists:
        for binding in bindings:
            if isinstance(binding, Name):
                yield binding.name
    for block in step.blocks:
        yield from block.outer


def _outer(plan: Plan, defined: set[str]) -> frozenset[str]:
    used = {name for step in (*plan.prelude, *plan.steps) for name in step_reads(step)} | set(plan.outputs)
    return frozenset(used - defined)


def _free(plan: Plan, mortal: set[str]) -> None:
    """Set on each step the values that die after it; results that nothing reads die where they are made."""
    alive = set(plan.outputs)
    for step in reversed(plan.steps):
        touched = set(step_reads(step)) | {output.name for output in step.outputs}
        step.frees = tuple(sorted((touched & mortal) - alive))
        alive |= touched
    plan.unread = tuple(sorted({input_.name for input_ in plan.inputs} - alive))


def nbytes(type_: ValueType) -> int | None:
    """Return the bytes of a value of known shape, as numpy holds it; None where a size is unknown, 0 for lists."""
    if isinstance(type_, StateType):
        return nbytes(type_.wrapped)
    if isinstance(type_, TensorType):
        return None if type_.count is None else type_.count * type_.numpy.itemsize
    return 0 if isinstance(type_, ListType) else None


def literal_bytes(literal: Literal) -> int:
    """Return the bytes that a constant takes in the file, sub-byte types packed."""
    if literal.type is not None:
        return literal.type.stored_bytes or 0
    return sum(value.nbytes for value in literal.value if isinstance(value, np.ndarray))
