"""A program that somebody hands over: what goes in, what comes out, and a module with the targets' types."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.core.errors import ProgramError

if TYPE_CHECKING:
    from torch import nn

_AT_THE_BORDER = {"int32": "int32", "int64": "int32", "bool": "int32", "float32": "float32"}
"""What a target takes or gives for what the program does: ids are int32 on every target."""


@dataclass(frozen=True)
class Side:
    """An input or output of a program: its own dtype and its shape, None for an axis of any size."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    @property
    def at_the_border(self) -> str:
        """Return the dtype that all targets have for it."""
        return _AT_THE_BORDER[self.dtype]


@dataclass(frozen=True)
class Given:
    """An ExportedProgram of tensors alone, its inputs and outputs in a row."""

    exported: Any
    inputs: tuple[Side, ...]
    outputs: tuple[Side, ...]


def given(exported: Any, form: str, names: Sequence[str] | None, dynamic: frozenset[tuple[str, int]]) -> Given:
    """Return what goes in and out of an ExportedProgram; raises ProgramError where it is not tensors that do.

    `form` is that of the outputs, as torch's pytree writes it: a dict's keys name them, unless `names` does. `dynamic`
    are axes (value, axis) that have any size, beside those that have no number.
    """
    signature = exported.graph_signature
    values = {node.name: node.meta.get("val") for node in exported.graph.nodes}
    inputs = []
    for spec in signature.input_specs:
        kind = spec.kind.name
        if kind in ("CUSTOM_OBJ", "TOKEN"):
            raise ProgramError(f"takes {spec.arg.name!r}, which is no tensor; a program here is tensors alone")
        if kind == "USER_INPUT":
            inputs.append(_side("takes", spec.arg, spec.arg.name, values, dynamic))
    kept = {spec.arg.name: spec.target or spec.arg.name for spec in signature.input_specs}
    changed = [result.target for result in signature.output_specs if result.kind.name != "USER_OUTPUT"]
    changed += [kept[name] for name in _written(exported.graph) if name in kept]
    if changed:
        raise ProgramError(
            f"changes {changed[0]!r} as it runs; call eval() before torch.export, and let what is kept from call to"
            " call come in as an input and go out as an output"
        )
    results = [result.arg for result in signature.output_specs]
    own = _names(form, len(results)) if names is None else list(names)
    if len(own) != len(results):
        raise ProgramError(f"gives {len(results)} outputs, not {len(own)}; name as many")
    outputs = [_side("gives", arg, name, values, dynamic) for name, arg in zip(own, results, strict=True)]
    twice = {side.name for side in outputs} & {side.name for side in inputs}
    if twice or len(set(own)) < len(own) or not inputs or not outputs:
        of_two = sorted(twice)[0] if twice else "a name"
        raise ProgramError(f"has no inputs or outputs, or {of_two} for two of them; name the outputs otherwise")
    return Given(exported, tuple(inputs), tuple(outputs))


def _written(graph: Any) -> Iterator[str]:
    """Yield the inputs of a graph, weights and buffers among them, that an operation writes to, or to a view of."""
    for node in graph.nodes:
        if not getattr(getattr(node.target, "_schema", None), "is_mutable", False) or not node.args:
            continue
        base = node.args[0]
        while getattr(base, "op", None) == "call_function" and base.args and _is_view(base.target):
            base = base.args[0]
        if getattr(base, "op", None) == "placeholder":
            yield base.name


def _is_view(operator: Any) -> bool:
    """Say whether what an operator gives is memory that it was given."""
    schema = getattr(operator, "_schema", None)
    return schema is not None and any(value.alias_info is not None for value in schema.returns)


def _side(does: str, arg: Any, name: str, values: Any, dynamic: frozenset[tuple[str, int]]) -> Side:
    """Return the tensor that an argument of a signature is."""
    value = values.get(arg.name)
    if type(arg).__name__ != "TensorArgument" or value is None:
        what = f"{name!r}, which is no tensor" if name else f"{getattr(arg, 'value', None)!r}, which is no tensor"
        raise ProgramError(f"{does} {what}; give and return tensors alone")
    if not (name.isidentifier() and name.isascii()):
        raise ProgramError(f"{does} {name!r}, and targets name tensors with letters, digits and _; name it otherwise")
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in _AT_THE_BORDER:
        raise ProgramError(f"{does} {name!r} as {dtype}; targets have float32 and int32, export it in float32")
    known = [None if (arg.name, axis) in dynamic else size for axis, size in enumerate(value.shape)]
    return Side(name, dtype, tuple(size if isinstance(size, int) else None for size in known))


def _names(form: str, count: int) -> list[str]:
    """Return the names of outputs: the keys of a dict, `output`, or `output_0` and so on."""
    try:
        _, top = json.loads(form)
        keys = json.loads(top["context"]) if top["type"] == "builtins.dict" else []
    except (ValueError, TypeError, KeyError):  # a form of a class of its own: its values come in a row
        keys = []
    if len(keys) == count and all(isinstance(key, str) for key in keys):
        return list(keys)
    return ["output"] if count == 1 else [f"output_{at}" for at in range(count)]


def module(program: Given) -> "nn.Module":
    """Return the program as a module of its inputs in order, which gives a tuple: int32 and float32 alone.

    Ids that the program wants in 64 bits, and what is true or false, come and go as int32. Operations keep the lines
    of the source that they come from.
    """
    import torch
    from torch.fx import Interpreter
    from torch.fx.traceback import preserve_node_meta

    inside = [getattr(torch, side.dtype) for side in program.inputs]

    class Bordered(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.program = program.exported.module(check_guards=False)

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            cast = [x if x.dtype == dtype else x.to(dtype) for x, dtype in zip(inputs, inside, strict=True)]
            with preserve_node_meta():
                values = Interpreter(self.program).run(*cast, enable_io_processing=False)
            return tuple(x if x.dtype == torch.float32 else x.to(torch.int32) for x in values)

    return Bordered()
