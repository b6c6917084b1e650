"""TFLite models through litert-torch, for LiteRT."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from exporter.core.calling import Calling, Snippet
from exporter.core.extras import LOWER, converting, require
from exporter.core.precision import Precision, body_of
from exporter.core.protocols import Target, Tracing
from exporter.core.types import Captured, DeviceRuntime, GraphForm, Lowered, NpmPackage, Options, WebRuntime
from exporter.targets import noise
from exporter.targets.tflite import writing
from safeio.files import write_pieces

if TYPE_CHECKING:
    from pydantic import BaseModel

_NOISE = (
    *noise.SHARED,
    r"Your model is converted in training mode",  # a captured graph has no mode; it was captured in eval mode
    r"^WARNING: All log messages before absl",
    r"^(Model name|Original model size|Quantized model size|Quantization Ratio|Total time): ",
    r"Created TensorFlow Lite XNNPACK delegate",
)


# Without threads and without WebGPU; `compat` is for browsers whose WebAssembly has no relaxed SIMD.
_WEB = (
    NpmPackage(
        "@litertjs/core",
        "2.5.3",
        "sha512-PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
        (
            "dist/index.js",
            "wasm/litert_wasm_internal.js",
            "wasm/litert_wasm_internal.wasm",
            "wasm/litert_wasm_compat_internal.js",
            "wasm/litert_wasm_compat_internal.wasm",
        ),
        {"@litertjs/wasm-utils": "../../wasm-utils/dist/index.js"},
    ),
    NpmPackage(
        "@litertjs/wasm-utils",
        "2.5.3",
        "sha512-4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ==",
        ("dist/index.js",),
    ),
)


class TFLiteTarget:
    """`.tflite` files with one signature whose names are the program's."""

    name = "tflite"
    extra = "tflite"
    packages: Mapping[str, str] = {
        "litert_torch": "litert-torch",
        "ai_edge_litert": "ai-edge-litert",
        "ai_edge_quantizer": "ai-edge-quantizer",
    }
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8", "int4")
    external_weights: Literal["inputs", "parameters"] = "inputs"
    system: str | None = None
    runtime = DeviceRuntime(
        "LiteRT",
        "ai-edge-litert",
        ("ai_edge_litert.interpreter",),
        Path(__file__).with_name("loader.py"),
        bundled=True,
        trivial=Path(__file__).with_name("trivial.tflite"),
        web=WebRuntime("LiteRT.js", Path(__file__).with_name("browser.js"), _WEB),
    )
    model_file: str = "model.tflite"
    read_beside: tuple[str, ...] = ()
    passes: tuple[str, ...] = ("unroll", "simplify", "absorb", "fold_rows", "select_early", "tabulate", "shuffle")
    any_batch: bool = False

    def options_model(self) -> "type[BaseModel]":
        """Return TFLiteOptions."""
        from exporter.targets.tflite.options import TFLiteOptions

        return TFLiteOptions

    def fp16_form(self, options: Options) -> GraphForm:
        """Only the weights are stored in 16 bits."""
        return "captured"

    def refusal(self, precision: Precision, options: Options) -> str | None:
        """Return None: its options say nothing of precision."""
        return None

    def unverifiable(self, options: Options) -> str | None:
        """Return None: LiteRT runs whatever is lowered here."""
        return None

    def lower(self, captured: Captured, precision: Precision, options: Options, folder: Path) -> Path:
        """Write model.tflite; fp16 stores the weights in 16 bits and computes in 32, TFLite's own convention."""
        with converting(f"litert-torch refused {captured.model}/{captured.program}", *_NOISE, captured=captured):
            litert_torch = require("litert_torch", LOWER)
            litert_torch.config.show_progress = False
            # Tables of more than 1 MB are resources then, of which no pass makes a copy; the file is the same.
            model = litert_torch.convert(
                captured.exported.module(),
                sample_kwargs=captured.exported.example_inputs[1],
                lightweight_conversion=True,
                runtime_constant_folding=False,
            )
            # Its export() ends the whole process, without a word, where a write fails.
            content = model.model_content()
            if body_of(precision) == "fp16":
                content = _cast_weights(content)
            pieces = writing.described(content, captured.about)
        path = folder / self.model_file
        write_pieces(path, pieces)
        return path

    def snippets(self, call: Calling) -> tuple[Snippet, ...]:
        """Return code that calls one program."""
        from exporter.targets.tflite.snippets import snippets

        return snippets(call)

    def read(self, model_file: Path) -> Lowered:
        """Read the operators of the only subgraph and its constants, and plan TFLite's arena over its tensors."""
        from exporter.targets.tflite import file

        return file.read(model_file)

    def tracing(self) -> Tracing:
        """Return TFLiteTracing."""
        from exporter.targets.tflite.tracing import TFLiteTracing

        return TFLiteTracing()


def _cast_weights(content: bytes) -> bytes:
    """Return a model with its weights stored in 16 bits."""
    quantizer_module = require("ai_edge_quantizer.quantizer", LOWER)
    qtyping = require("ai_edge_quantizer.qtyping", LOWER)
    manager = require("ai_edge_quantizer.algorithm_manager", LOWER)
    quantizer = quantizer_module.Quantizer(content)
    quantizer.update_quantization_recipe(
        regex=".*",
        operation_name=qtyping.TFLOperationName.ALL_SUPPORTED,
        op_config=qtyping.OpQuantizationConfig(
            weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
            compute_precision=qtyping.ComputePrecision.FLOAT,
            explicit_dequantize=True,
        ),
        algorithm_key=manager.AlgorithmName.FLOAT_CASTING,
    )
    return bytes(quantizer.quantize().quantized_model)


TARGET: Target = TFLiteTarget()
