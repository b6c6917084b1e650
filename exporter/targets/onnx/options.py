"""What a device profile may say of ONNX."""

from pydantic import Field

from exporter.core.strict import Strict


class OnnxOptions(Strict):
    """The ONNX operator set."""

    opset: int = Field(default=20, ge=18, le=23)
