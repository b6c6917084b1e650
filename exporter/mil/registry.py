"""Every MIL operation that the interpreter computes, by name."""

from exporter.mil.kernel import Kernel
from exporter.mil.ops.activation import ACTIVATION
from exporter.mil.ops.attention import ATTENTION
from exporter.mil.ops.control import CONTROL
from exporter.mil.ops.convolution import CONVOLUTION
from exporter.mil.ops.elementwise import ELEMENTWISE
from exporter.mil.ops.gathering import GATHERING
from exporter.mil.ops.linear import LINEAR
from exporter.mil.ops.normalization import NORMALIZATION
from exporter.mil.ops.pooling import POOLING
from exporter.mil.ops.quantization import QUANTIZATION
from exporter.mil.ops.random import RANDOM
from exporter.mil.ops.recurrent import RECURRENT
from exporter.mil.ops.reduction import REDUCTION
from exporter.mil.ops.resizing import RESIZING
from exporter.mil.ops.sampling import SAMPLING
from exporter.mil.ops.selection import SELECTION
from exporter.mil.ops.slicing import SLICING
from exporter.mil.ops.tensor import TENSOR
from exporter.mil.ops.transformation import TRANSFORMATION

KERNELS: dict[str, Kernel] = {
    **ACTIVATION,
    **ATTENTION,
    **CONTROL,
    **CONVOLUTION,
    **ELEMENTWISE,
    **GATHERING,
    **LINEAR,
    **NORMALIZATION,
    **POOLING,
    **QUANTIZATION,
    **RANDOM,
    **RECURRENT,
    **REDUCTION,
    **RESIZING,
    **SAMPLING,
    **SELECTION,
    **SLICING,
    **TENSOR,
    **TRANSFORMATION,
}
