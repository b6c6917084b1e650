"""What a device profile may say of Core ML."""

from typing import Literal

from exporter.core.strict import Strict


class CoreMLOptions(Strict):
    """The oldest system that must run the package, and the processors that Core ML may use for it."""

    deployment_target: Literal["iOS15", "iOS16", "iOS17", "iOS18"] = "iOS17"
    compute_units: Literal["ALL", "CPU_ONLY", "CPU_AND_GPU", "CPU_AND_NE"] = "ALL"
