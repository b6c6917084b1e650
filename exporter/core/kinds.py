"""The normal kinds of operations: one vocabulary for the four targets, so that one table of formulas counts them all.

What a kind expects of `Operation.inputs` and `Operation.outputs` (shapes, in this order):

- MATMUL: [..., M, K] and [..., K, N]; the attributes `transpose_x` and `transpose_y` say that the last two axes of the
  first or second input are stored the other way round.
- LINEAR: [..., K], weight [N, K], optionally bias [N].
- CONVOLUTION and TRANSPOSED_CONVOLUTION: input [B, C, *spatial], weight [C_out, C_in / groups, *kernel] (transposed:
  [C_in, C_out / groups, *kernel]), optionally bias; the attribute `groups` where it is not 1. Targets that store images
  with the channels last hand over the shapes in this order.
- NORMALIZATION kinds: input first, then scale and shift where there are any; the scale says how many values are
  normalised together, without one it is the last axis.
- GRU and LSTM: input [T, B, I], weights [directions, G * H, I], recurrent weights [directions, G * H, H] with G = 3 or
  4 gates, then biases where there are any. Cells written out in simpler operations need no kind of their own.
- REDUCE kinds: input first; the output may keep or drop the reduced axes.
- GATHER: table first, then indices.
- every other kind: elementwise with broadcasting; the cost follows from the output's element count.

Attributes that any kind may have: `activation`, the kind that the same operation applies to its output (TFLite fuses
so); `dtype_bytes`, the size of an output element in bytes where it is not 4; SOFTMAX: `axis` where it is not the last.
"""

from typing import Final

MATMUL: Final = "matmul"
LINEAR: Final = "linear"
CONVOLUTION: Final = "convolution"
TRANSPOSED_CONVOLUTION: Final = "transposed_convolution"

ADD: Final = "add"
SUBTRACT: Final = "subtract"
MULTIPLY: Final = "multiply"
DIVIDE: Final = "divide"
POWER: Final = "power"
MINIMUM: Final = "minimum"
MAXIMUM: Final = "maximum"
COMPARE: Final = "compare"
LOGICAL: Final = "logical"
SELECT: Final = "select"
FLOOR_DIVIDE: Final = "floor_divide"
REMAINDER: Final = "remainder"

ABSOLUTE: Final = "absolute"
NEGATE: Final = "negate"
ROUND: Final = "round"
EXP: Final = "exp"
LOG: Final = "log"
SQUARE: Final = "square"
SQRT: Final = "sqrt"
RSQRT: Final = "rsqrt"
RECIPROCAL: Final = "reciprocal"
TANH: Final = "tanh"
SIGMOID: Final = "sigmoid"
ERF: Final = "erf"
SINE: Final = "sine"
COSINE: Final = "cosine"
RELU: Final = "relu"
LEAKY_RELU: Final = "leaky_relu"
GELU: Final = "gelu"
SILU: Final = "silu"
SOFTPLUS: Final = "softplus"

SOFTMAX: Final = "softmax"
ATTENTION: Final = "attention"
LAYER_NORMALIZATION: Final = "layer_normalization"
RMS_NORMALIZATION: Final = "rms_normalization"
BATCH_NORMALIZATION: Final = "batch_normalization"
L2_NORMALIZATION: Final = "l2_normalization"

REDUCE_SUM: Final = "reduce_sum"
REDUCE_MEAN: Final = "reduce_mean"
REDUCE_EXTREME: Final = "reduce_extreme"
REDUCE_PRODUCT: Final = "reduce_product"
REDUCE_L2: Final = "reduce_l2"
REDUCE_VARIANCE: Final = "reduce_variance"
CUMULATIVE_SUM: Final = "cumulative_sum"

GRU: Final = "gru"
LSTM: Final = "lstm"

GATHER: Final = "gather"
MOVE: Final = "move"
SHAPE: Final = "shape"
"""MOVE: copies, casts, reshapes, transposes, slices, concatenations, padding. SHAPE: reads a shape, moves no tensor."""
