"""What a device profile may say of ExecuTorch."""

from typing import Literal

from exporter.core.strict import Strict


class ExecuTorchOptions(Strict):
    """Who computes a .pte: XNNPACK, the portable kernels, or a delegate that only the device has."""

    delegate: Literal["xnnpack", "portable", "coreml", "vulkan"] = "xnnpack"
