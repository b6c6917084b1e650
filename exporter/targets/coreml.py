"""Core ML programs (.mlpackage) through coremltools."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from exporter.core.errors import LoweringError
from exporter.core.extras import require, without_noise
from exporter.core.types import Captured, Precision

NOISE = (
    r"Failed to load _ML\w+: No module named 'coremltools\.libcoremlpython'",
    r"Torch version .* has not been tested with coremltools",
    r"scikit-learn version .* is not supported",
    r"treespec, LeafSpec",
    r"return cls\.__new__\(cls, \*args\)",
    r"^(Converting|Running|Translating) .*(\d+%|passes|ops/s|it/s)",
    r"torchao/_C\w*\..*\.so: Could not load this library",
    r"KernelPreference.* is an Enum subclass",
)


class CoreMLTarget:
    """`.mlpackage` folders, ML Programs only."""

    name = "coreml"
    extra = "coreml"
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    rewrites_half = False

    def unverifiable(self, options: Mapping[str, Any]) -> str | None:
        """Return None: Core ML runs on macOS, and the reference interpreter everywhere else."""
        return None

    def lower(self, captured: Captured, precision: Precision, options: Mapping[str, Any], folder: Path) -> Path:
        """Write model.mlpackage; inputs and outputs stay int32 and float32 at every precision."""
        with without_noise(*NOISE):
            ct = require("coremltools", self.extra)
            try:
                package = ct.convert(
                    captured.exported.run_decompositions({}),
                    outputs=[ct.TensorType(name=spec.name, dtype=np.dtype(spec.dtype).type) for spec in captured.outputs],
                    minimum_deployment_target=getattr(ct.target, options["deployment_target"]),
                    compute_precision={"fp32": ct.precision.FLOAT32, "fp16": ct.precision.FLOAT16}[precision],
                    skip_model_load=True,
                )
                path = folder / "model.mlpackage"
                package.save(str(path))
            except Exception as error:  # coremltools raises whatever its passes raise
                raise LoweringError(f"coremltools refused {captured.model}/{captured.program}: {error}") from error
        (path / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)
        return path
