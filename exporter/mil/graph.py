"""The operations of a program as typed nodes, read from the decoded messages."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from exporter.core.errors import ProgramError
from exporter.mil.types import TensorType, ValueType, value_type
from exporter.mil.values import Constants
from exporter.mil.wire import Record

# Function.opset -> the iOS release whose operation definitions it means.
OPSETS = {"CoreML5": 15, "CoreML6": 16, "CoreML7": 17, "CoreML8": 18, "CoreML9": 26}


@dataclass(frozen=True, slots=True)
class Name:
    """An argument that is the value of that name."""

    name: str


@dataclass(frozen=True, slots=True)
class Literal:
    """An argument that is written out: an array, a string or a list."""

    value: Any
    type: TensorType | None


Binding = Name | Literal


@dataclass(frozen=True, slots=True)
class Output:
    """A named result with its declared type."""

    name: str
    type: ValueType


@dataclass(frozen=True, slots=True)
class Node:
    """One operation as the file states it."""

    name: str
    type: str
    inputs: Mapping[str, tuple[Binding, ...]]
    outputs: tuple[Output, ...]
    blocks: tuple["Graph", ...]
    attributes: Mapping[str, Literal]


@dataclass(frozen=True, slots=True)
class Graph:
    """A function or nested block: its inputs, operations in order, and the names that it returns."""

    inputs: tuple[Output, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]


def read_function(record: Record, name: str, constants: Constants) -> tuple[Graph, int]:
    """Read a Function message into its graph and the iOS release of its operations."""
    opset = record.get("opset", "")
    if opset not in OPSETS:
        raise ProgramError(f"function {name!r} wants operation set {opset!r}; known: {', '.join(OPSETS)}")
    block = record.get("block_specializations", {}).get(opset)
    if block is None:
        raise ProgramError(f"function {name!r} has no block for its operation set {opset}; the package is damaged")
    graph = _graph(block, constants)
    if graph.inputs:
        raise ProgramError(f"the outermost block of function {name!r} has inputs of its own; the package is damaged")
    inputs = tuple(_output(item) for item in record.get("inputs", []))
    return Graph(inputs, graph.nodes, graph.outputs), OPSETS[opset]


def _graph(record: Record, constants: Constants) -> Graph:
    return Graph(
        inputs=tuple(_output(item) for item in record.get("inputs", [])),
        nodes=tuple(_node(item, constants) for item in record.get("operations", [])),
        outputs=tuple(record.get("outputs", [])),
    )


def _node(record: Record, constants: Constants) -> Node:
    attributes = {key: Literal(*constants.read(value)) for key, value in record.get("attributes", {}).items()}
    outputs = tuple(_output(item) for item in record.get("outputs", []))
    label = attributes.pop("name", None)
    kind = record.get("type", "")
    # Operations without outputs (write_state) and const operations carry their name as an attribute only.
    name = label.value if label is not None and isinstance(label.value, str) else (outputs[0].name if outputs else kind)
    return Node(
        name=name,
        type=kind,
        inputs={
            key: tuple(_binding(item, constants) for item in value.get("arguments", []))
            for key, value in record.get("inputs", {}).items()
        },
        outputs=outputs,
        blocks=tuple(_graph(item, constants) for item in record.get("blocks", [])),
        attributes=attributes,
    )


def _binding(record: Record, constants: Constants) -> Binding:
    if len(record) != 1:
        raise ProgramError("an argument of the program is neither a name nor a value")
    return Name(record["name"]) if "name" in record else Literal(*constants.read(record["value"]))


def _output(record: Record) -> Output:
    name = record.get("name", "")
    if not name:
        raise ProgramError("a value of the program has no name")
    return Output(name, value_type(record.get("type", {})))
