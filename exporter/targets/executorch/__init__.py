"""ExecuTorch programs (.pte): XNNPACK or portable kernels, or a delegate that only a phone has."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from exporter.core.calling import Calling, Snippet
from exporter.core.extras import LOWER, converting, require
from exporter.core.precision import Precision, body_of, tables_of
from exporter.core.protocols import Target, Tracing
from exporter.core.types import Captured, DataFile, DeviceRuntime, ExternalWeights, GraphForm, Lowered, Options
from exporter.targets import noise
from exporter.targets.executorch import needed_traces, stored_rows
from exporter.targets.executorch.needed_passes import needed_passes
from safeio.files import create, write_new
from safeio.staging import scratch

if TYPE_CHECKING:
    from pydantic import BaseModel

_NOISE = (
    *noise.SHARED,
    r"was exported with CoreML specification version",  # the artifact's profile states the deployment target
)
_UNVERIFIABLE = {
    "coreml": "the Core ML delegate runs on Apple devices only; the host's ExecuTorch runtime has no such backend",
    "vulkan": "the Vulkan delegate needs a GPU driver of the device; the host's ExecuTorch runtime has no such backend",
}
LAYOUT_FILE = "layout.json"
DATA_FILE = "weights.ptd"

_PLAN = (
    "the buffers that ExecuTorch planned and wrote into the program; XNNPACK's workspace and what a delegate packs anew"
    " are not in it"
)


class ExecuTorchTarget:
    """`.pte` files, with a data file of weights beside them where those stay outside."""

    name = "executorch"
    extra = "executorch"
    packages: Mapping[str, str] = {"executorch": "executorch"}
    precisions: tuple[Precision, ...] = get_args(Precision)
    external_weights: Literal["inputs", "parameters"] = "parameters"
    system: str | None = None
    runtime = DeviceRuntime(
        "ExecuTorch",
        "executorch",
        ("torch", "executorch"),
        Path(__file__).with_name("loader.py"),
        bundled=True,
        trivial=Path(__file__).with_name("trivial.pte"),
    )
    model_file: str = "model.pte"
    read_beside: tuple[str, ...] = (LAYOUT_FILE, DATA_FILE)
    passes: tuple[str, ...] = (
        "recognise",
        "unroll",
        "simplify",
        "absorb",
        "fold_rows",
        "select_early",
        "tabulate",
        "shuffle",
        "spell_out",
    )
    any_batch: bool = False

    def options_model(self) -> "type[BaseModel]":
        """Return ExecuTorchOptions."""
        from exporter.targets.executorch.options import ExecuTorchOptions

        return ExecuTorchOptions

    def fp16_form(self, options: Options) -> GraphForm:
        """The Core ML delegate has a precision of its own; every other one takes the graph as it is."""
        return "within_half" if options["delegate"] == "coreml" else "half"

    def refusal(self, precision: Precision, options: Options) -> str | None:
        """Return None: each delegate takes them all."""
        return None

    def unverifiable(self, options: Options) -> str | None:
        """Return why nothing here can run a delegate that only the device has."""
        return _UNVERIFIABLE.get(str(options["delegate"]))

    def lower(self, captured: Captured, precision: Precision, options: Options, folder: Path) -> Path:
        """Write model.pte; with external weights also weights.ptd, and layout.json to find them."""
        external = captured.external if captured.external and captured.external.tensors else None
        with converting(f"ExecuTorch refused {captured.model}/{captured.program}", *_NOISE, captured=captured):
            with needed_traces.without_compiler():
                exir = require("executorch.exir", LOWER)
            exported, stand_ins = (captured.exported, {}) if external is None else _stand_ins(captured, external)
            partitioners = _partitioners(str(options["delegate"]), precision)
            for_xnnpack = options["delegate"] == "xnnpack"
            in_bytes = for_xnnpack and tables_of(precision) in ("int8", "int4")
            with _needed() if for_xnnpack else nullcontext():
                rewrites = [stored_rows.dequantised] if in_bytes else None
                edge = exir.to_edge_transform_and_lower(exported, rewrites, partitioner=partitioners)
                if in_bytes and stored_rows.is_outside(edge):
                    edge = exir.to_edge_transform_and_lower(exported, partitioner=partitioners)
            program = edge.to_executorch(_backend_config(edge, tuple(stand_ins)))
            written = {} if external is None else _data(program, stand_ins, external)
        path = folder / self.model_file
        with create(path) as file:
            program.write_to_file(file)  # piece by piece; its `buffer` would be all of them once more
        for name, content in written.items():
            write_new(folder / name, content)
        return path

    def snippets(self, call: Calling) -> tuple[Snippet, ...]:
        """Return code that calls one program."""
        from exporter.targets.executorch.snippets import snippets

        return snippets(call)

    def read(self, model_file: Path) -> Lowered:
        """Read the operators that the runtime calls and those inside each delegate, and layout.json if it is there."""
        from exporter.targets.executorch.delegates import READERS
        from exporter.targets.executorch.file import read

        layout = model_file.with_name(LAYOUT_FILE)
        data = _layout(layout) if layout.exists() else None
        return replace(read(model_file, READERS, _PLAN), data=data)

    def tracing(self) -> Tracing:
        """Return ExecuTorchTracing."""
        from exporter.targets.executorch.tracing import ExecuTorchTracing

        return ExecuTorchTracing()


@contextmanager
def _needed() -> Iterator[None]:
    """Let XNNPACK lower a program, in the body, without what would change nothing."""
    with needed_passes(), needed_traces.needed_decompositions():
        yield


def _layout(path: Path) -> DataFile:
    """Read where each tensor lies in the data file."""
    layout = json.loads(path.read_text(encoding="utf-8"))
    return DataFile(DATA_FILE, {name: (int(at), str(dtype)) for name, (at, dtype) in layout.items()})


def _partitioners(delegate: str, precision: Precision) -> list[Any]:
    match delegate:
        case "portable":
            return []
        case "xnnpack":
            module = require("executorch.backends.xnnpack.partition.xnnpack_partitioner", LOWER)
            return [module.XnnpackPartitioner()]
        case "vulkan":
            module = require("executorch.backends.vulkan.partitioner.vulkan_partitioner", LOWER)
            return [module.VulkanPartitioner()]
        case _:
            module = require("executorch.backends.apple.coreml.partition", LOWER)
            compiler = require("executorch.backends.apple.coreml.compiler", LOWER)
            ct = require("coremltools", LOWER)
            in_bytes = tables_of(precision) in ("int8", "int4")  # which nothing looks up before iOS 17
            specs = compiler.CoreMLBackend.generate_compile_specs(
                minimum_deployment_target=ct.target.iOS17 if in_bytes else None,
                # the delegate's own default is fp16 whatever comes in
                compute_precision={"fp32": ct.precision.FLOAT32, "fp16": ct.precision.FLOAT16}[body_of(precision)],
            )
            return [module.CoreMLPartitioner(compile_specs=specs)]


def _stand_ins(captured: Captured, external: ExternalWeights) -> tuple[Any, dict[str, Any]]:
    """Return the program with random numbers in place of its external weights, tagged as such, and those numbers.

    What is lowered holds nothing of the weights themselves, and each tensor can be told from all others by its bytes:
    XNNPACK names constants after their content, so that two equal ones would become one.
    """
    import torch
    from executorch.exir.passes.external_constants_pass import delegate_external_constants_pass_unlifted

    module = captured.exported.module()
    random = torch.Generator().manual_seed(0)
    found = {}
    with torch.no_grad():
        for path, parameter in module.named_parameters():
            name = path.rpartition(".")[2]
            if name in external.tensors:
                parameter.copy_(torch.randn(parameter.shape, generator=random))
                found[name] = parameter.detach().numpy().copy()
    delegate_external_constants_pass_unlifted(module, lambda node: _tag(node.target, tuple(found)))
    return torch.export.export(module, args=(), kwargs=captured.exported.example_inputs[1]), found


def _tag(target: object, names: Sequence[str]) -> str | None:
    """Return the data file of a constant, or None for one that stays in the program."""
    return Path(DATA_FILE).stem if str(target).rpartition(".")[2] in names else None


def _backend_config(edge: Any, names: Sequence[str]) -> Any:
    exir = require("executorch.exir", LOWER)
    parameters = edge.exported_program().graph_signature.inputs_to_parameters
    return exir.ExecutorchBackendConfig(
        external_constants=lambda node: _tag(parameters.get(node.target), names) if names else None
    )


def _data(program: Any, stand_ins: Mapping[str, Any], external: ExternalWeights) -> dict[str, bytes]:
    """Return weights.ptd with the weights themselves, and layout.json; raises ValueError where one is not in it."""
    from exporter.artifact import weights

    with scratch("executorch") as folder:
        program.write_tensor_data_to_file(str(folder))
        data = (folder / DATA_FILE).read_bytes()
    places: dict[str, tuple[int, str]] = {}
    for name, numbers in stand_ins.items():
        for dtype in ("float32", "float16"):
            content = numbers.astype(dtype).tobytes()
            if data.count(content) == 1:
                places[name] = data.index(content), dtype
    missing = [name for name in external.tensors if name not in places]
    if missing:
        raise ValueError(f"it did not put the weights {missing[0]} into its data file as they are")
    patched = weights.patch(data, DataFile(DATA_FILE, places), external.tensors)
    return {DATA_FILE: patched, LAYOUT_FILE: json.dumps(places).encode()}


TARGET: Target = ExecuTorchTarget()
