"""How the values inside an .onnx file are seen: all of them are outputs of a copy of it."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from exporter.core.errors import ArtifactError
from exporter.core.explanation import TracedValue
from exporter.core.extras import require
from exporter.core.precision import Precision
from exporter.core.types import Arrays, Captured, Options
from exporter.targets.depending import depending
from exporter.targets.onnx import file as onnx_file


class OnnxTracing:
    """Values have names, which are those of torch's nodes where the exporter kept them."""

    method = "all values as outputs of a copy of the file, in ONNX Runtime without its graph optimisations"

    def lower(self, captured: Captured, precision: Precision, options: Options, folder: Path) -> Path | None:
        """Return None: the file itself is looked into."""
        return None

    def load(self, model_file: Path) -> Callable[[Arrays], Sequence[TracedValue]]:
        """Load a copy with all values as outputs; raises ArtifactError for one with weights in other files."""
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        onnx, runtime = require("onnx", "onnx"), require("onnxruntime", "onnx")
        lowered = onnx_file.read(model_file)
        if lowered.data is not None:
            raise ArtifactError("it reads weights from another file")
        makers = depending(lowered)
        model = onnx.load(model_file, load_external_data=False)
        given = {value.name for value in model.graph.output}
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in makers if name not in given)
        settings = runtime.SessionOptions()
        settings.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        settings.log_severity_level = 4  # fatal only: errors come as exceptions
        session = runtime.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])

        def values(case: Arrays) -> list[TracedValue]:
            arrays = zip(makers.items(), session.run(list(makers), dict(case)), strict=True)
            return [
                TracedValue(name, maker.native, maker.kind, name, array)
                for (name, maker), array in arrays
                if array.dtype.kind == "f"
            ]

        return values
