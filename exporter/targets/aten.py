"""The normal kinds of ATen's operators, which ExecuTorch and its Vulkan delegate keep by name."""

from collections.abc import Sequence

from exporter.core import kinds

# ATen operator without namespace and overload -> normal kind
KINDS = {
    "linear": kinds.LINEAR,
    "addmm": kinds.LINEAR,
    "mm": kinds.MATMUL,
    "bmm": kinds.MATMUL,
    "matmul": kinds.MATMUL,
    "convolution": kinds.CONVOLUTION,
    "add": kinds.ADD,
    "sub": kinds.SUBTRACT,
    "mul": kinds.MULTIPLY,
    "div": kinds.DIVIDE,
    "pow": kinds.POWER,
    "remainder": kinds.REMAINDER,
    "minimum": kinds.MINIMUM,
    "maximum": kinds.MAXIMUM,
    "clamp": kinds.MAXIMUM,
    "eq": kinds.COMPARE,
    "ne": kinds.COMPARE,
    "ge": kinds.COMPARE,
    "gt": kinds.COMPARE,
    "le": kinds.COMPARE,
    "lt": kinds.COMPARE,
    "logical_and": kinds.LOGICAL,
    "logical_or": kinds.LOGICAL,
    "logical_not": kinds.LOGICAL,
    "bitwise_and": kinds.LOGICAL,
    "bitwise_or": kinds.LOGICAL,
    "bitwise_not": kinds.LOGICAL,
    "where": kinds.SELECT,
    "abs": kinds.ABSOLUTE,
    "neg": kinds.NEGATE,
    "floor": kinds.ROUND,
    "ceil": kinds.ROUND,
    "exp": kinds.EXP,
    "log": kinds.LOG,
    "sqrt": kinds.SQRT,
    "rsqrt": kinds.RSQRT,
    "reciprocal": kinds.RECIPROCAL,
    "tanh": kinds.TANH,
    "sigmoid": kinds.SIGMOID,
    "erf": kinds.ERF,
    "sin": kinds.SINE,
    "cos": kinds.COSINE,
    "relu": kinds.RELU,
    "leaky_relu": kinds.LEAKY_RELU,
    "gelu": kinds.GELU,
    "_softmax": kinds.SOFTMAX,
    "softmax": kinds.SOFTMAX,
    "native_layer_norm": kinds.LAYER_NORMALIZATION,
    "layer_norm": kinds.LAYER_NORMALIZATION,
    "rms_norm": kinds.RMS_NORMALIZATION,
    "sum": kinds.REDUCE_SUM,
    "mean": kinds.REDUCE_MEAN,
    "amax": kinds.REDUCE_EXTREME,
    "amin": kinds.REDUCE_EXTREME,
    "var": kinds.REDUCE_VARIANCE,
    "cumsum": kinds.CUMULATIVE_SUM,
    "embedding": kinds.GATHER,
    "gather": kinds.GATHER,
    "index": kinds.GATHER,
    "index_select": kinds.GATHER,
    **dict.fromkeys(
        (
            *("_to_copy", "_to_dim_order_copy", "_clone_dim_order", "arange", "cat", "clone", "constant_pad_nd"),
            *("copy_", "expand_copy", "full", "full_like", "scalar_tensor", "zeros_like", "permute_copy", "repeat"),
            *("select_copy", "select_scatter", "slice_copy", "slice_scatter", "split_copy", "split_with_sizes_copy"),
            *("squeeze_copy", "stack", "t_copy", "transpose_copy", "tril", "triu", "unbind_copy", "unsqueeze_copy"),
            *("view", "view_copy"),
        ),
        kinds.MOVE,
    ),
}

CAPTURED = {
    **KINDS,
    "square": kinds.SQUARE,
    "silu": kinds.SILU,
    "softplus": kinds.SOFTPLUS,
    "floor_divide": kinds.FLOOR_DIVIDE,
    "scaled_dot_product_attention": kinds.ATTENTION,
    "gru": kinds.GRU,
    "lstm": kinds.LSTM,
    **dict.fromkeys(
        (
            *("expand", "permute", "reshape", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "to"),
            *("transpose", "unbind", "unsqueeze"),
        ),
        kinds.MOVE,
    ),
}
"""The kinds of operators of a captured graph, which has more of them."""


def in_order(name: str, shapes: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Return an operator's input shapes as its kind wants them: `addmm` has (bias, x, weight [K, N])."""
    if name == "addmm":
        bias, x, weight = shapes
        return x, weight[::-1], bias
    return tuple(shapes)
