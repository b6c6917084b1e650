"""ONNX through torch's own exporter, for ONNX Runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from exporter.core.calling import Calling, Snippet
from exporter.core.extras import LOWER, converting, require
from exporter.core.precision import Precision, body_of
from exporter.core.protocols import Target, Tracing
from exporter.core.types import (
    About,
    Captured,
    DeviceRuntime,
    ExternalWeights,
    GraphForm,
    Lowered,
    NpmPackage,
    Options,
    WebRuntime,
)
from exporter.targets.onnx import file as onnx_file
from exporter.targets.onnx import users, writing
from safeio.files import write_new, write_pieces

if TYPE_CHECKING:
    from pydantic import BaseModel

_NOISE = (
    r"^\[torch\.onnx\]",
    r"torchvision is not installed",
    r"^Skipping constant folding for op ",
    r"float16 tensor",  # a weight below fp16's smallest number; parity measures what that does
)


_MOST_NUMBERS = 1 << 26
"""Of the constants that are computed once, and not with each call."""


# The build that is WebAssembly alone, for any number of threads.
_WEB = NpmPackage(
    "onnxruntime-web",
    "1.30.0",
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
    ("dist/ort.wasm.min.mjs", "dist/ort-wasm-simd-threaded.mjs", "dist/ort-wasm-simd-threaded.wasm"),
)


class OnnxTarget:
    """`.onnx` files with their weights inside."""

    name = "onnx"
    extra = "onnx"
    packages: Mapping[str, str] = {"onnx": "onnx", "onnxscript": "onnxscript", "onnxruntime": "onnxruntime"}
    precisions: tuple[Precision, ...] = get_args(Precision)
    external_weights: Literal["inputs", "parameters"] = "inputs"
    system: str | None = None
    runtime = DeviceRuntime(
        "ONNX Runtime",
        "onnxruntime",
        ("onnxruntime",),
        Path(__file__).with_name("loader.py"),
        bundled=True,
        trivial=Path(__file__).with_name("trivial.onnx"),
        web=WebRuntime("onnxruntime-web", Path(__file__).with_name("browser.js"), (_WEB,)),
    )
    model_file: str = "model.onnx"
    read_beside: tuple[str, ...] = (onnx_file.PACKAGE,)
    passes: tuple[str, ...] = (
        "recognise",
        "rms_norm",
        "simplify",
        "absorb",
        "reorder",
        "fold_rows",
        "select_early",
        "tabulate",
        "cut",
        "gemm",
    )
    any_batch: bool = True

    def options_model(self) -> "type[BaseModel]":
        """Return OnnxOptions."""
        from exporter.targets.onnx.options import OnnxOptions

        return OnnxOptions

    def fp16_form(self, options: Options) -> GraphForm:
        """Its runtimes compute in 16 bits where they have kernels for that."""
        return "within_half"

    def refusal(self, precision: Precision, options: Options) -> str | None:
        """Return None: its options say nothing of precision."""
        return None

    def unverifiable(self, options: Options) -> str | None:
        """Return None: ONNX Runtime runs whatever is lowered here."""
        return None

    def lower(self, captured: Captured, precision: Precision, options: Options, folder: Path) -> Path:
        """Write model.onnx: opset from the options; fp16 keeps the inputs and outputs as they are.

        The data file of external weights is their package itself, in fp32 at every precision.
        """
        with converting(f"torch.onnx.export refused {captured.model}/{captured.program}", *_NOISE, captured=captured):
            onnx = require("onnx", LOWER)
            require("onnxscript", LOWER)
            import torch

            program = torch.onnx.export(
                captured.exported,
                dynamo=True,
                external_data=False,
                input_names=[spec.name for spec in captured.inputs],
                output_names=[spec.name for spec in captured.outputs],
                opset_version=options["opset"],
                custom_translation_table=_translations(int(options["opset"])),
                verbose=False,
            )
            if program is None:
                raise ValueError("it gave no program")
            _order_gates(program.model)
            if captured.any_batch:
                users.settle_sizes(program.model)
            # What converts to 16 bits wants to see all of it.
            large = {} if body_of(precision) == "fp16" else writing.take_out(program.model)
            model = program.model_proto
            if body_of(precision) == "fp16":
                float16 = require("onnxruntime.transformers.float16", LOWER)
                model = float16.convert_float_to_float16(model, keep_io_types=True)
                _sort(model.graph)
            _strip(model)
            if captured.any_batch:
                users.name_axis(model.graph)
            _describe(model, captured.about)
            onnx.checker.check_model(model, full_check=True)
        path = folder / self.model_file
        if captured.external is not None and captured.external.tensors:
            _move_out(model.graph, captured.external, folder)
        write_pieces(path, writing.pieces(model, large))
        return path

    def snippets(self, call: Calling) -> tuple[Snippet, ...]:
        """Return code that calls one program."""
        from exporter.targets.onnx.snippets import snippets

        return snippets(call)

    def read(self, model_file: Path) -> Lowered:
        """Read the main graph, with shapes from ONNX's own shape inference, and plan an arena over its values."""
        return onnx_file.read(model_file)

    def tracing(self) -> Tracing:
        """Return OnnxTracing."""
        from exporter.targets.onnx.tracing import OnnxTracing

        return OnnxTracing()


def _translations(opset: int) -> dict[Any, Any]:
    """Return how operations are written that the exporter itself writes in a way that ONNX Runtime does not recognise.

    Of an RMS norm the runtime makes one kernel where it is a division by a root, and the exporter multiplies by a
    reciprocal; from opset 23 on it is an operation of its own.
    """
    if opset >= 23:
        return {}
    import torch

    op = require("onnxscript", LOWER).opset18

    def rms_norm(x: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
        axes = op.Constant(value_ints=list(range(-len(normalized_shape), 0)))
        mean = op.ReduceMean(op.Pow(x, op.Constant(value_float=2.0)), axes)
        eps = torch.finfo(torch.float32).eps if eps is None else eps
        result = op.Div(x, op.Sqrt(op.Add(mean, op.Constant(value_float=eps))))
        return result if weight is None else op.Mul(result, weight)

    return {torch.ops.aten.rms_norm.default: rms_norm}


def _order_gates(model: Any) -> None:
    """Bring the gates of a GRU's or an LSTM's weights into ONNX's order here.

    The exporter writes that into the graph, and leaves it there where weights have more than some 8,000 numbers.
    """
    if any(node.op_type in {"GRU", "LSTM"} for node in model.graph):
        optimizer = require("onnxscript.optimizer", LOWER)
        optimizer.fold_constants(model, input_size_limit=_MOST_NUMBERS, output_size_limit=_MOST_NUMBERS)


def _sort(graph: Any) -> None:
    """Put nodes behind those whose outputs they read, and leave them as they are otherwise.

    The converter to 16 bits writes some of its casts behind the nodes that read them.
    """
    nodes = list(graph.node)
    makers = {name: at for at, node in enumerate(nodes) for name in node.output if name}  # "" is one that is left out
    reads = [[makers[name] for name in node.input if name in makers] for node in nodes]
    places: dict[int, int] = {}
    for first in range(len(nodes)):
        waiting = [first]
        while waiting:
            missing = [at for at in reads[waiting[-1]] if at not in places]
            if missing:
                waiting.extend(missing)
            else:
                places.setdefault(waiting.pop(), len(places))
    graph.node.sort(key=lambda node: places[makers[next(filter(None, node.output))]])


def _strip(model: Any) -> None:
    """Remove the exporter's notes for debugging: they name source files of this machine and double the graph's size."""
    graph = model.graph
    del graph.value_info[:]  # what shape inference finds anyway
    for entry in (*graph.node, *graph.input, *graph.output, *graph.initializer, graph, model):
        del entry.metadata_props[:]
        entry.doc_string = ""


def _describe(model: Any, about: About) -> None:
    """Fill in who made the model, what it is for, and what its inputs and outputs mean."""
    model.producer_name, model.producer_version = about.made_by, about.maker_version
    model.doc_string = about.description
    for key, value in (("author", about.made_by), ("version", about.weights), ("license", about.licence)):
        model.metadata_props.add(key=key, value=value)
    for values, meanings in ((model.graph.input, about.inputs), (model.graph.output, about.outputs)):
        for value in values:
            value.doc_string = meanings.get(value.name, "")


def _move_out(graph: Any, external: ExternalWeights, folder: Path) -> None:
    """Turn inputs into initializers that lie in the weights' package, written into `folder`."""
    # As inputs they got through the exporter's constant folding whole; a parameter would have come out transposed.
    from exporter.artifact import weights

    onnx = require("onnx", LOWER)
    content = weights.to_bytes(external)
    write_new(folder / onnx_file.PACKAGE, content)
    inputs = [value for value in graph.input if value.name not in external.tensors]
    del graph.input[:]
    graph.input.extend(inputs)
    for name, offset in weights.offsets(content).items():
        tensor = external.tensors[name]
        entry = graph.initializer.add(name=name, dims=tensor.shape, data_type=onnx.TensorProto.FLOAT)
        entry.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", onnx_file.PACKAGE), ("offset", offset), ("length", tensor.nbytes)):
            entry.external_data.add(key=key, value=str(value))


TARGET: Target = OnnxTarget()
