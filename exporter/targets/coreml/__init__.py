"""Core ML programs (.mlpackage) through coremltools."""

import json
import stat
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from exporter.core import kinds
from exporter.core.calling import Calling, Snippet
from exporter.core.extras import LOWER, converting, require
from exporter.core.liveness import Lifetime, memory_plan, planned_bytes
from exporter.core.precision import Precision, body_of, tables_of
from exporter.core.protocols import Target, Tracing
from exporter.core.types import (
    About,
    Captured,
    Constant,
    DeviceRuntime,
    GraphForm,
    Lowered,
    MemoryPlan,
    Operation,
    Options,
    stored_bytes,
)
from exporter.targets import noise
from exporter.targets.coreml.sparse import NOISE, without_zeros
from safeio import files

if TYPE_CHECKING:
    from pydantic import BaseModel

_KINDS = {
    "matmul": kinds.MATMUL,
    "linear": kinds.LINEAR,
    "conv": kinds.CONVOLUTION,
    "conv_transpose": kinds.TRANSPOSED_CONVOLUTION,
    "add": kinds.ADD,
    "sub": kinds.SUBTRACT,
    "mul": kinds.MULTIPLY,
    "real_div": kinds.DIVIDE,
    "floor_div": kinds.FLOOR_DIVIDE,
    "mod": kinds.REMAINDER,
    "pow": kinds.POWER,
    "minimum": kinds.MINIMUM,
    "maximum": kinds.MAXIMUM,
    "clip": kinds.MAXIMUM,
    "equal": kinds.COMPARE,
    "not_equal": kinds.COMPARE,
    "greater": kinds.COMPARE,
    "greater_equal": kinds.COMPARE,
    "less": kinds.COMPARE,
    "less_equal": kinds.COMPARE,
    "logical_and": kinds.LOGICAL,
    "logical_or": kinds.LOGICAL,
    "logical_not": kinds.LOGICAL,
    "select": kinds.SELECT,
    "abs": kinds.ABSOLUTE,
    "floor": kinds.ROUND,
    "ceil": kinds.ROUND,
    "round": kinds.ROUND,
    "exp": kinds.EXP,
    "log": kinds.LOG,
    "square": kinds.SQUARE,
    "sqrt": kinds.SQRT,
    "rsqrt": kinds.RSQRT,
    "inverse": kinds.RECIPROCAL,
    "tanh": kinds.TANH,
    "sigmoid": kinds.SIGMOID,
    "erf": kinds.ERF,
    "sin": kinds.SINE,
    "cos": kinds.COSINE,
    "relu": kinds.RELU,
    "leaky_relu": kinds.LEAKY_RELU,
    "gelu": kinds.GELU,
    "silu": kinds.SILU,
    "softplus": kinds.SOFTPLUS,
    "softmax": kinds.SOFTMAX,
    "layer_norm": kinds.LAYER_NORMALIZATION,
    "batch_norm": kinds.BATCH_NORMALIZATION,
    "l2_norm": kinds.L2_NORMALIZATION,
    "reduce_sum": kinds.REDUCE_SUM,
    "reduce_mean": kinds.REDUCE_MEAN,
    "reduce_max": kinds.REDUCE_EXTREME,
    "reduce_min": kinds.REDUCE_EXTREME,
    "reduce_prod": kinds.REDUCE_PRODUCT,
    "reduce_l2_norm": kinds.REDUCE_L2,
    "cumsum": kinds.CUMULATIVE_SUM,
    "gather": kinds.GATHER,
    "gather_along_axis": kinds.GATHER,
    "gather_nd": kinds.GATHER,
    "cast": kinds.MOVE,
    "concat": kinds.MOVE,
    "expand_dims": kinds.MOVE,
    "fill": kinds.MOVE,
    "identity": kinds.MOVE,
    "pad": kinds.MOVE,
    "range_1d": kinds.MOVE,
    "reshape": kinds.MOVE,
    "slice_by_index": kinds.MOVE,
    "slice_by_size": kinds.MOVE,
    "split": kinds.MOVE,
    "squeeze": kinds.MOVE,
    "stack": kinds.MOVE,
    "tile": kinds.MOVE,
    "transpose": kinds.MOVE,
    "shape": kinds.SHAPE,
}
_SETTINGS = ("transpose_x", "transpose_y", "axis", "groups")  # those that a formula asks for
_MANIFEST = "Manifest.json"
_SPECIFICATION = "Data/com.apple.CoreML/model.mlmodel"
_PLAN = (
    "the smallest of several arenas over the lifetimes of the program's values, 64-byte aligned;"
    " Core ML plans for itself and does not tell"
)
_UNUSED = ("sklearn", "transformers", "torchao", "executorch", "tensorflow", "xgboost")
"""What coremltools imports where it is installed: to convert the models of other libraries."""
_SHORT_POSITIONS = 1 << 15
_ITEM_BYTES = {"float16": 2, "int8": 1, "uint8": 1, "bool": 1, "int16": 2, "uint16": 2}


class CoreMLTarget:
    """`.mlpackage` folders, ML Programs only."""

    name = "coreml"
    extra = "coreml"
    packages: Mapping[str, str] = {"coremltools": "coremltools"}
    precisions: tuple[Precision, ...] = get_args(Precision)
    external_weights: Literal["inputs", "parameters"] = "inputs"
    system: str | None = "darwin"
    runtime = DeviceRuntime("Core ML", "coremltools", ("coremltools",), Path(__file__).with_name("loader.py"))
    model_file: str = "model.mlpackage"
    read_beside: tuple[str, ...] = ()
    passes: tuple[str, ...] = ("unroll", "simplify", "absorb", "fold_rows", "select_early", "tabulate")
    any_batch: bool = False

    def options_model(self) -> "type[BaseModel]":
        """Return CoreMLOptions."""
        from exporter.targets.coreml.options import CoreMLOptions

        return CoreMLOptions

    def fp16_form(self, options: Options) -> GraphForm:
        """Core ML computes in 16 bits."""
        return "within_half"

    def refusal(self, precision: Precision, options: Options) -> str | None:
        """Tables of 8 bits are looked up by an operation that came with iOS 17."""
        if tables_of(precision) in ("int8", "int4") and options["deployment_target"] in ("iOS15", "iOS16"):
            return "it needs deployment_target iOS17; choose that in the profile, or --precision fp16"
        return None

    def unverifiable(self, options: Options) -> str | None:
        """Return None: Core ML runs on macOS, and the reference interpreter everywhere else."""
        return None

    def lower(self, captured: Captured, precision: Precision, options: Options, folder: Path) -> Path:
        """Write model.mlpackage; inputs and outputs stay int32 and float32 at every precision."""
        refusal, silenced = f"coremltools refused {captured.model}/{captured.program}", (*noise.SHARED, *NOISE)
        with converting(refusal, *silenced, captured=captured):
            np = require("numpy", LOWER)
            ct = require("coremltools", LOWER, without=_UNUSED)
            converted = ct.convert(
                captured.exported.run_decompositions(_of_the_type_asked_for()),
                outputs=[ct.TensorType(name=spec.name, dtype=np.dtype(spec.dtype).type) for spec in captured.outputs],
                minimum_deployment_target=getattr(ct.target, str(options["deployment_target"])),
                compute_precision={"fp32": ct.precision.FLOAT32, "fp16": ct.precision.FLOAT16}[body_of(precision)],
                pass_pipeline=None if body_of(precision) == "fp32" else _pipeline(ct),
                skip_model_load=True,
            )
            converted = without_zeros(ct, converted, captured, str(options["deployment_target"]))
        path = folder / self.model_file
        # Its own save() copies the same package and adds notes for debugging; a failed write is a list of texts there.
        _copy(Path(converted.package_path), path)
        _name_parts(path / _MANIFEST)
        _describe(path / _SPECIFICATION, captured.about)
        return path

    def snippets(self, call: Calling) -> tuple[Snippet, ...]:
        """Return code that calls one program."""
        from exporter.targets.coreml.snippets import snippets

        return snippets(call)

    def read(self, model_file: Path) -> Lowered:
        """Read the default function, and plan an arena over the lifetimes of its values; raises ProgramError."""
        return lowered(model_file)

    def tracing(self) -> Tracing:
        """Return CoreMLTracing."""
        from exporter.targets.coreml.tracing import CoreMLTracing

        return CoreMLTracing()


def _pipeline(ct: Any) -> Any:
    """Return coremltools' passes for fp16, without 16-bit positions of a topk over more elements than they can name.

    Its pass asks that of gather alone.
    """

    def may_be_short(operation: Any) -> bool:
        return bool(operation.op_type != "topk" or operation.x.shape[operation.axis.val] <= _SHORT_POSITIONS)

    pipeline = ct.PassPipeline()
    pipeline.set_options("common::add_int16_cast", {"op_selector": may_be_short})
    return pipeline


def _of_the_type_asked_for() -> dict[Any, Any]:
    """Return rewrites of zeros_like and its kind to `full`: coremltools does not heed the type that they ask for."""
    torch = require("torch", LOWER)
    aten = torch.ops.aten

    def full_like(like: Any, value: Any, *, dtype: Any = None, **_layout: object) -> Any:
        return torch.full(like.shape, value, dtype=dtype or like.dtype)

    return {
        aten.full_like.default: full_like,
        aten.zeros_like.default: lambda like, **kind: full_like(like, 0, **kind),
        aten.ones_like.default: lambda like, **kind: full_like(like, 1, **kind),
    }


def _copy(package: Path, place: Path) -> None:
    """Copy the files of a package that was made here; raises OSError."""
    place.mkdir()
    for name, status in files.tree(package):
        if stat.S_ISDIR(status.st_mode):
            (place / name).mkdir()
        else:
            files.write_new(place / name, (package / name).read_bytes())


def _name_parts(manifest: Path) -> None:
    """Give the parts of a package identifiers by their paths, so that the same program is the same bytes.

    coremltools draws them; they only have to differ within the package.
    """
    document = json.loads(manifest.read_bytes())
    parts = document["itemInfoEntries"]
    names = {drawn: str(uuid.uuid5(uuid.NAMESPACE_URL, part["path"])) for drawn, part in parts.items()}
    document["itemInfoEntries"] = {names[drawn]: part for drawn, part in parts.items()}
    document["rootModelIdentifier"] = names[document["rootModelIdentifier"]]
    manifest.unlink()
    files.write_new(manifest, json.dumps(document, indent=4, sort_keys=True).encode())


def _describe(specification: Path, about: About) -> None:
    """Fill in what Xcode shows of a model: what it is for, who made it, and what its inputs and outputs mean."""
    model = require("coremltools", "coreml").proto.Model_pb2.Model.FromString(specification.read_bytes())
    metadata = model.description.metadata
    metadata.shortDescription, metadata.author = about.description, f"{about.made_by} {about.maker_version}".strip()
    metadata.versionString, metadata.license = about.weights, about.licence
    for values, meanings in ((model.description.input, about.inputs), (model.description.output, about.outputs)):
        for value in values:
            value.shortDescription = meanings.get(value.name, "")
    specification.unlink()
    files.write_new(specification, model.SerializeToString(deterministic=True))


def lowered(package: Path) -> Lowered:
    """Read a package's default function: operations with constants left out, constants each once, and a plan."""
    from exporter import mil  # it needs numpy, which the command line does not want when it starts

    function = mil.load(package).function()
    constants = tuple(Constant(one.name, one.shape, one.bytes, one.sha256, one.name) for one in function.constants)
    given = [spec.name for spec in function.inputs]
    return Lowered(
        operations=tuple(
            _operation(info, delayed)
            for delayed, infos in ((False, function.constant_operations), (True, function.operations))
            for info in infos
        ),
        constants=constants,
        inputs=tuple(zip(given, given, strict=True)),
        memory_plan=_plan(function, stored_bytes(constants)),
    )


def _operation(info: Any, computes: bool) -> Operation:
    """Return an operation; one that only decompresses a constant does so when the program is loaded, and costs 0."""
    kind = _KINDS.get(info.type) if computes else kinds.SHAPE
    attributes = {name: value for name in _SETTINGS if isinstance(value := info.attributes.get(name), int)}
    if kind in (kinds.GATHER, kinds.MOVE) and info.outputs:
        attributes["dtype_bytes"] = _ITEM_BYTES.get(info.outputs[0].dtype, 4)
    return Operation(
        name=info.name,
        native=info.type,
        kind=kind,
        inputs=tuple(spec.shape for spec in info.inputs),
        outputs=tuple(spec.shape for spec in info.outputs),
        attributes=attributes,
        reads=tuple(spec.name for spec in info.inputs),
        writes=tuple(spec.name for spec in info.outputs),
    )


def _plan(function: Any, constant_bytes: int) -> MemoryPlan:
    unknown = [value.name for value in function.values if value.bytes is None]
    if unknown:
        return MemoryPlan(constant_bytes, None, "", f"the size of {unknown[0]!r} is only known in a run")
    lifetimes = [Lifetime(value.bytes or 0, value.first, value.last) for value in function.values]
    return memory_plan(constant_bytes, lifetimes, planned_bytes, _PLAN)


TARGET: Target = CoreMLTarget()
