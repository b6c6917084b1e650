"""Every MIL operation that the interpreter computes, by name."""

from exporter.mil.kernel import Kernel
from exporter.mil.ops.activation import ACTIVATION
from exporter.mil.ops.elementwise import ELEMENTWISE
from exporter.mil.ops.gathering import GATHERING
from exporter.mil.ops.linear import LINEAR
from exporter.mil.ops.normalization import NORMALIZATION
from exporter.mil.ops.reduction import REDUCTION
from exporter.mil.ops.slicing import SLICING
from exporter.mil.ops.tensor import TENSOR
from exporter.mil.ops.transformation import TRANSFORMATION

KERNELS: dict[str, Kernel] = {
    **ACTIVATION,
    **ELEMENTWISE,
    **GATHERING,
    **LINEAR,
    **NORMALIZATION,
    **REDUCTION,
    **SLICING,
    **TENSOR,
    **TRANSFORMATION,
}
