"""What the graph of a saved program may say: names that are names, operators of torch's own, sizes that are numbers.

torch makes Python code of a graph. So every text in it is held to what its place is for, and texts at other places are
refused: a name that is none could end the line that it stands in. What no target needs is left out, not checked.
"""

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from exporter.core.errors import ProgramError

_NAME = re.compile(r"[A-Za-z_]\w{0,250}", re.ASCII)
_PATH = re.compile(r"\w+(\.\w+){0,60}", re.ASCII)
_WORD = re.compile(r"\w{0,40}", re.ASCII)
_TEXT = re.compile(r"[ -~]{0,500}")
_OPERATOR = re.compile(r"[\w.]{1,250}", re.ASCII)
# (class of torch's schema, field) -> what a text there may be; no other place may have a text
_TEXTS: dict[tuple[str, str], re.Pattern[str]] = {
    **{(kind, "name"): _NAME for kind in ("TensorArgument", "Node", "GraphArgument", "InputToConstantInputSpec")},
    **{(f"Sym{kind}Argument", "as_name"): _NAME for kind in ("Int", "Float", "Bool")},
    **{("Graph", f"{kind}_values"): _NAME for kind in ("tensor", "sym_int", "sym_float", "sym_bool")},
    ("NamedArgument", "name"): _WORD,
    ("Node", "target"): _OPERATOR,
    ("Node", "metadata"): re.compile(r"stack_trace|[^\x00-\x09\x0b-\x1f]*"),  # made by _frames
    ("Argument", "as_string"): _TEXT,
    ("Argument", "as_strings"): _TEXT,
    ("ConstantValue", "as_string"): _TEXT,
    ("Device", "type"): _WORD,
    ("InputToParameterSpec", "parameter_name"): _PATH,
    ("InputToBufferSpec", "buffer_name"): _PATH,
    ("InputToTensorConstantSpec", "tensor_constant_name"): _PATH,
    ("BufferMutationSpec", "buffer_name"): _PATH,
    ("ParameterMutationSpec", "parameter_name"): _PATH,
    ("UserInputMutationSpec", "user_input_name"): _NAME,
    ("ModuleCallEntry", "fqn"): re.compile(""),  # the program itself
    ("ModuleCallSignature", "in_spec"): re.compile(".*"),  # made by _without_the_rest, as is out_spec
    ("ModuleCallSignature", "out_spec"): re.compile(".*"),
    ("ExportedProgram", "verifiers"): _WORD,
    ("ExportedProgram", "opset_version"): _WORD,
    ("ExportedProgram", "torch_version"): re.compile(r"[\w.+]*", re.ASCII),
    ("PayloadConfig", "config"): _PATH,
    ("PayloadMeta", "path_name"): _WORD,
}
# What torch puts around the parts of a model that switch gradients off.
_NESTED = "torch.ops.higher_order.wrap_with_set_grad_enabled"
# They give a tensor other memory, or other bounds in it.
_ON_MEMORY = ("set", "set_", "resize", "resize_", "resize_as", "resize_as_", "_resize_output", "_reshape_alias")
_NUMBERS = ("as_int", "as_float", "as_bool", "as_sym_int", "as_sym_float", "as_sym_bool")
_FLAT_TUPLE = '{{"type": "builtins.tuple", "context": "null", "children_spec": [{}]}}'
_LEAF = '{"type": null, "context": null, "children_spec": []}'
_FRAME = re.compile(r'\s*File "([^"\n]{1,400})", line (\d{1,7}), in ([\w<>.]{1,100})', re.ASCII)
_LINES_KEPT = 60


def graph(document: object) -> tuple[Any, frozenset[tuple[str, int]], str]:
    """Return torch's typed form of a graph's document, its dynamic axes, and the form of its outputs as torch wrote it.

    Raises ProgramError, with words that follow the file's path, and what torch raises for what does not fit its schema.
    """
    from torch._export.serde import schema
    from torch._export.serde.serialize import _dict_to_dataclass

    _check_version(document, schema.SCHEMA_VERSION[0])
    program = _dict_to_dataclass(schema.ExportedProgram, document)
    form = _without_the_rest(program)
    dynamic: set[tuple[str, int]] = set()
    for inner in _graphs(program.graph_module.graph):
        dynamic |= _specialise(inner, schema)
        for node in inner.nodes:
            _check_operator(node)
    _check_texts(program)
    return program, frozenset(dynamic), form


def payloads(document: object) -> Any:
    """Return torch's typed form of what says where tensors lie, by the names of the tensors; raises as `graph`."""
    from torch._export.serde import schema
    from torch._export.serde.serialize import _dict_to_dataclass

    config = _dict_to_dataclass(schema.PayloadConfig, document)
    _check_texts(config)
    return config.config


def dtype(number: int) -> Any:
    """Return torch's dtype for its number in a saved program."""
    from torch._export.serde.serialize import deserialize_scalar_type

    return deserialize_scalar_type(number)


def _check_version(document: object, major: int) -> None:
    """Raise ProgramError for a graph of another torch, whose operators may mean something else."""
    import torch

    if not isinstance(document, dict) or not isinstance(document.get("schema_version"), dict):
        raise ProgramError("has no graph that torch.export.save wrote; save it again")
    saved, here = (_release(str(version)) for version in (document.get("torch_version"), torch.__version__))
    if document["schema_version"].get("major") != major or saved != here:
        raise ProgramError(f"was saved by torch {saved}, here is torch {here}; export and save it with torch {here}")


def _release(version: str) -> str:
    """Return 2.13 of 2.13.0+cpu."""
    return ".".join(re.sub(r"[^\w.+<=]", "?", version)[:40].partition("+")[0].split(".")[:2])


def _without_the_rest(program: Any) -> str:
    """Leave out what no target needs, guards, ranges, forms, calls of modules; return the form of the outputs."""
    module = program.graph_module
    program.guards_code, program.range_constraints = [], {}
    module.metadata, module.treespec_namedtuple_fields = {}, {}
    module.module_call_graph = [entry for entry in module.module_call_graph if entry.fqn == ""][:1]
    if len(module.module_call_graph) != 1 or module.module_call_graph[0].signature is None:
        raise ProgramError("does not say what goes in and what comes out; save it again with torch.export.save")
    module.module_call_graph[0].fqn = ""
    call = module.module_call_graph[0].signature
    form = str(call.out_spec)
    inputs, outputs = (
        _FLAT_TUPLE.format(", ".join([_LEAF] * sum(spec.type == kind for spec in specs)))
        for kind, specs in (
            ("user_input", module.signature.input_specs),
            ("user_output", module.signature.output_specs),
        )
    )
    nothing = '{"type": "builtins.dict", "context": "[]", "children_spec": []}'
    call.in_spec, call.out_spec = f"[1, {_FLAT_TUPLE.format(f'{inputs}, {nothing}')}]", f"[1, {outputs}]"
    call.inputs, call.outputs, call.forward_arg_names = [], [], None
    for inner in _graphs(module.graph):
        if inner.custom_obj_values:
            raise ProgramError("has a script object or a class of its own; a program here is tensors alone")
        for node in inner.nodes:
            frames = _frames(node.metadata.get("stack_trace"))
            node.metadata = {"stack_trace": frames} if frames else {}
    return form


def _frames(trace: object) -> str:
    """Return the files and lines of a stack trace, without the code that stands there."""
    if not isinstance(trace, str):
        return ""
    found = [_FRAME.match(line) for line in trace.splitlines()[:_LINES_KEPT]]
    return "\n".join(f'  File "{m[1]}", line {m[2]}, in {m[3]}' for m in found if m and m[1].isprintable())


def _graphs(outer: Any) -> Iterator[Any]:
    """Yield a graph and those that its operators call."""
    waiting = [outer]
    while waiting:
        inner = waiting.pop()
        yield inner
        values = [named.arg for node in inner.nodes for named in node.inputs]
        waiting += [value.as_graph.graph for value in values if value.type == "as_graph"]


def _specialise(inner: Any, schema: Any) -> set[tuple[str, int]]:
    """Put in the place of every expression the number that it was; return which axes of which values had one."""
    dynamic = set()
    for name, meta in inner.tensor_values.items():
        if meta.device.type != "cpu":
            raise ProgramError(
                f"was exported on {str(meta.device.type)[:20]!r}; move the model to the CPU, export and save it again"
            )
        dynamic |= {(name, axis) for axis, size in enumerate(meta.sizes) if size.type == "as_expr"}
        meta.sizes, meta.strides = (
            [_number(name, size, schema) for size in part] for part in (meta.sizes, meta.strides)
        )
        meta.storage_offset = _number(name, meta.storage_offset, schema)
    inner.sym_int_values = {name: _number(name, size, schema) for name, size in inner.sym_int_values.items()}
    # Nothing is computed from these but what is computed anew.
    inner.sym_bool_values = {name: schema.SymBool.create(as_bool=True) for name in inner.sym_bool_values}
    inner.sym_float_values = {name: schema.SymFloat.create(as_float=1.0) for name in inner.sym_float_values}
    return dynamic


def _number(name: str, size: Any, schema: Any) -> Any:
    if size.type == "as_int":
        return size
    hint = size.as_expr.hint
    if hint is None or hint.type != "as_int":
        raise ProgramError(
            f"has a size that depends on values ({str(name)[:60]!r}), which no target takes; give it one size"
        )
    return schema.SymInt.create(as_int=hint.as_int)


def _check_operator(node: Any) -> None:
    """Raise ProgramError for an operator that is none of torch's own on tensors, or that reads and writes files."""
    import torch

    target = node.target
    if target in _operators_on_sizes():
        if any(named.arg.type not in _NUMBERS for named in node.inputs):
            raise ProgramError(f"has {target} of other things than numbers; export the model again")
        return
    if target == _NESTED:
        return
    name = str(target)[:100]
    parts = name.split(".")
    if parts[:2] != ["torch", "ops"] or len(parts) not in (4, 5):
        raise ProgramError(f"calls {name!r}, which is no operator on tensors; export the model again")
    if parts[2] == "higher_order":
        raise ProgramError(f"has control flow or another operator on functions ({name}); write it with tensors alone")
    if parts[2] != "aten" or len(parts) != 5:
        raise ProgramError(
            f"has the custom operator {'.'.join(parts[2:])}; write it with torch's own, and export again"
        )
    operator = getattr(getattr(torch.ops.aten, parts[3], None), parts[4], None)
    if not isinstance(operator, torch._ops.OpOverload):
        raise ProgramError(f"has the operator {name}, which this torch has not; export the model again")
    if not _is_on_tensors(operator):
        raise ProgramError(
            f"has the operator {name}, which is not one on tensors alone, or writes to them; write it with others"
        )


def _is_on_tensors(operator: Any) -> bool:
    """Say whether an operator gives tensors, or asserts something of one, takes no name of a file, and writes nowhere.

    In place is allowed, as nn.ReLU(inplace=True) has it: an operator may write to its first argument. out= is not, nor
    what gives a tensor other memory, or bounds in it that nobody holds to its size.
    """
    schema = operator._schema
    written = [at for at, value in enumerate(schema.arguments) if value.alias_info and value.alias_info.is_write]
    if written not in ([], [0]) or operator.overloadpacket.__name__ in _ON_MEMORY:
        return False
    gives = [str(value.type) for value in schema.returns]
    asserts = operator.overloadpacket.__name__ in ("_assert_tensor_metadata", "sym_size", "sym_stride", "sym_numel")
    on_tensors = bool(gives) and all(kind in ("Tensor", "List[Tensor]") for kind in gives)
    return (on_tensors or asserts) and all(argument.name != "filename" for argument in schema.arguments)


@cache
def _operators_on_sizes() -> frozenset[str]:
    """Return the names of functions on numbers, as a saved program has them."""
    from torch._export.serde.serialize import _SYM_OPS

    names = {f"{function.__module__}.{function.__name__}" for function in _SYM_OPS}
    return frozenset(name for name in names if not name.endswith(("shift", "pow")))  # those grow without end


def _check_texts(program: Any) -> None:
    for (kind, field), text in _texts(program, ("", "")):
        pattern = _TEXTS.get((kind, field))
        if pattern is None or not pattern.fullmatch(text):
            raise ProgramError(f"has {text[:60]!r} as {kind}.{field}, where no such text belongs; save it again")


def _texts(value: Any, place: tuple[str, str]) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield every text in a document of torch's, keys of its mappings too, with the class and field that it is in."""
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield place, key
            yield from _texts(inner, place)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner, place)
    elif is_dataclass(value):
        kind = type(value).__name__
        union = getattr(value, "_type", None)
        for name in [str(union)] if union is not None else [field.name for field in fields(value)]:
            yield from _texts(getattr(value, name), (kind, name))
