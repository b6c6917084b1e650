"""FLOPs of a lowered graph from normal kinds and shapes alone: one table of formulas for all targets.

A FLOP is one multiply or one add; 1 MAC = 2 FLOPs. Whole numbers count as floats do, because shapes do not tell them
apart. Gathers and moves are 0 FLOPs and are counted in the bytes that they write. What has no formula, or shapes that
its formula cannot take, is listed and never counted as zero.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from exporter.core import kinds
from exporter.core.types import Operation

# FLOPs of one result, normalised as by the authors of the Livermore loops (Hennessy and Patterson, Computer
# Architecture, 1990, chapter 2): add, subtract, compare and multiply 1, divide and square root 4, exponential, sine and
# their like 8. Other functions are the sum of their parts.
DIVISION = 4
ROOT = 4
ELEMENTARY = 8
ELEMENTWISE: Final[Mapping[str, int]] = {
    kinds.ADD: 1,
    kinds.SUBTRACT: 1,
    kinds.MULTIPLY: 1,
    kinds.SQUARE: 1,
    kinds.MINIMUM: 1,
    kinds.MAXIMUM: 1,
    kinds.COMPARE: 1,
    kinds.LOGICAL: 1,
    kinds.SELECT: 1,
    kinds.ABSOLUTE: 1,
    kinds.NEGATE: 1,
    kinds.ROUND: 1,
    kinds.RELU: 1,
    kinds.LEAKY_RELU: 2,  # multiply, select
    kinds.DIVIDE: DIVISION,
    kinds.RECIPROCAL: DIVISION,
    kinds.FLOOR_DIVIDE: DIVISION + 1,
    kinds.REMAINDER: DIVISION + 3,  # a - floor(a / b) * b
    kinds.SQRT: ROOT,
    kinds.RSQRT: ROOT + DIVISION,
    kinds.EXP: ELEMENTARY,
    kinds.LOG: ELEMENTARY,
    kinds.TANH: ELEMENTARY,
    kinds.ERF: ELEMENTARY,
    kinds.SINE: ELEMENTARY,
    kinds.COSINE: ELEMENTARY,
    kinds.POWER: 2 * ELEMENTARY + 1,  # exp(b * log(a))
    kinds.SIGMOID: ELEMENTARY + DIVISION + 2,  # 1 / (1 + exp(-x))
    kinds.SILU: ELEMENTARY + DIVISION + 3,  # x * sigmoid(x)
    kinds.SOFTPLUS: 2 * ELEMENTARY + 1,  # log(1 + exp(x))
    kinds.GELU: ELEMENTARY + 4,  # x / 2 * (1 + erf(x / sqrt(2)))
}
SEVERAL_OPERANDS = (kinds.ADD, kinds.MULTIPLY, kinds.MINIMUM, kinds.MAXIMUM)

Shape = tuple[int, ...]


class ShapeError(Exception):
    """The shapes of an operation are not what its kind expects."""


@dataclass(frozen=True)
class Cost:
    """FLOPs of one operation, how many MACs are among them (2 FLOPs each), and the bytes that it only moves."""

    flops: int = 0
    macs: int = 0
    moved_bytes: int = 0


@dataclass(frozen=True)
class OperationCount:
    """The cost of one operation of the graph, and who runs it, if not the runtime itself."""

    name: str
    native: str
    kind: str
    delegate: str | None
    cost: Cost


@dataclass(frozen=True)
class FlopCount:
    """The cost of a graph: totals, FLOPs by kind, a row for each counted operation, and how often what was not."""

    total: int
    macs: int
    moved_bytes: int
    by_kind: Mapping[str, int]
    by_operation: tuple[OperationCount, ...]
    uncounted: Mapping[str, int]


def count(operations: Iterable[Operation]) -> FlopCount:
    """Count every operation whose kind has a formula; the others are in `uncounted` under their native names."""
    rows: list[OperationCount] = []
    uncounted: Counter[str] = Counter()
    for operation in operations:
        try:
            cost = cost_of(operation)
        except ShapeError:
            uncounted[operation.native] += 1
            continue
        rows.append(OperationCount(operation.name, operation.native, str(operation.kind), operation.delegate, cost))
    by_kind: Counter[str] = Counter()
    for row in rows:
        by_kind[row.kind] += row.cost.flops
    return FlopCount(
        total=sum(row.cost.flops for row in rows),
        macs=sum(row.cost.macs for row in rows),
        moved_bytes=sum(row.cost.moved_bytes for row in rows),
        by_kind=dict(by_kind.most_common()),
        by_operation=tuple(rows),
        uncounted=dict(uncounted.most_common()),
    )


def cost_of(operation: Operation) -> Cost:
    """The cost of one operation; raises ShapeError where its kind has no formula or its shapes do not fit it."""
    kind = operation.kind
    formula = FORMULAS.get(kind) if kind is not None else None
    if kind is None or (formula is None and kind not in ELEMENTWISE):
        raise ShapeError(f"kind {kind!r} has no formula")
    if kind == kinds.SHAPE:
        return Cost()
    if not operation.outputs:
        raise ShapeError("no output")
    if kind in (kinds.GATHER, kinds.MOVE):
        return Cost(
            moved_bytes=sum(map(math.prod, operation.outputs)) * int(operation.attributes.get("dtype_bytes", 4))
        )
    if any(0 in sizes for sizes in (*operation.inputs, *operation.outputs)):
        raise ShapeError("a size of 0 is a size that is not known")  # converters write it for symbolic sizes
    cost = elementwise(operation) if formula is None else formula(operation)
    activation = operation.attributes.get("activation")
    if activation is None:
        return cost
    if activation not in ELEMENTWISE:
        raise ShapeError(f"activation {activation!r} has no cost")
    return Cost(cost.flops + ELEMENTWISE[str(activation)] * elements(operation), cost.macs, cost.moved_bytes)


def elements(operation: Operation) -> int:
    """The number of elements of the first output."""
    return math.prod(operation.outputs[0])


def shape(operation: Operation, index: int, axes: int = 0) -> Shape:
    """The shape of an input, which must exist and have at least `axes` axes."""
    if len(operation.inputs) <= index or len(operation.inputs[index]) < axes:
        raise ShapeError(f"input {index} must have {axes} axes")
    return operation.inputs[index]


def axis_size(operation: Operation, axis: int) -> int:
    """The size of an axis of the first output."""
    sizes = operation.outputs[0]
    if not -len(sizes) <= axis < len(sizes):
        raise ShapeError(f"{sizes} has no axis {axis}")
    return sizes[axis]


def products(macs: int, additions: int) -> Cost:
    """The cost of so many MACs and single additions."""
    return Cost(2 * macs + additions, macs)


def bias_additions(operation: Operation, operands: int = 2) -> int:
    """One addition for each output element where a bias follows the operands."""
    return elements(operation) if len(operation.inputs) > operands else 0


def elementwise(operation: Operation) -> Cost:
    """The stated cost for each output element; a sum or an extreme of n operands is n - 1 of them."""
    if any(math.prod(sizes) > elements(operation) for sizes in operation.inputs):
        raise ShapeError("the output is smaller than an input: its shape is not known")
    steps = max(len(operation.inputs) - 1, 1) if operation.kind in SEVERAL_OPERANDS else 1
    return Cost(ELEMENTWISE[str(operation.kind)] * steps * elements(operation))


def matmul(operation: Operation) -> Cost:
    """K MACs for each output element of [..., M, K] x [..., K, N]; vectors have the one axis K."""
    left, right = shape(operation, 0, 1), shape(operation, 1, 1)
    inner = left[-2] if operation.attributes.get("transpose_x") and len(left) > 1 else left[-1]
    first_of_right = len(right) > 1 and not operation.attributes.get("transpose_y")
    if inner != (right[-2] if first_of_right else right[-1]):
        raise ShapeError(f"{left} and {right} do not multiply")
    return products(elements(operation) * inner, bias_additions(operation))


def linear(operation: Operation) -> Cost:
    """K MACs for each output element of [..., K] x [N, K]; the rows may come flattened."""
    rows, weight = shape(operation, 0), shape(operation, 1, 2)
    units, inner = weight
    if math.prod(rows) * units != elements(operation) * inner:
        raise ShapeError(f"{rows} does not multiply with {weight}")
    return products(elements(operation) * inner, bias_additions(operation))


def convolution(operation: Operation) -> Cost:
    """C_in / groups * kernel MACs for each output element, those that meet padding included."""
    image, weight = shape(operation, 0, 3), shape(operation, 1, 3)
    if weight[1] * int(operation.attributes.get("groups", 1)) != image[1]:
        raise ShapeError(f"{image} and {weight} do not convolve")
    return products(elements(operation) * math.prod(weight[1:]), bias_additions(operation))


def transposed_convolution(operation: Operation) -> Cost:
    """C_out / groups * kernel MACs for each input element."""
    image, weight = shape(operation, 0, 3), shape(operation, 1, 3)
    if weight[0] != image[1]:
        raise ShapeError(f"{image} and {weight} do not convolve")
    return products(math.prod(image) * math.prod(weight[1:]), bias_additions(operation))


def softmax(operation: Operation) -> Cost:
    """Each of n values: a subtraction, an exponential, a division; each row: n - 1 comparisons and n - 1 additions."""
    total = elements(operation)
    rows = total // axis_size(operation, int(operation.attributes.get("axis", -1)))
    return Cost(total * (1 + ELEMENTARY + DIVISION) + 2 * (total - rows))


def attention(operation: Operation) -> Cost:
    """softmax(s Q K^T + mask) V of Q [..., M, d], K [..., N, d], V [..., N, e]: products, scale, mask, softmax."""
    query, key, value = (shape(operation, at, 3) for at in range(3))
    if query[-1] != key[-1] or key[-2] != value[-2] or (*query[:-1], value[-1]) != operation.outputs[0]:
        raise ShapeError(f"{query}, {key} and {value} are not those of attention")
    rows, columns = math.prod(query[:-1]), key[-2]
    masked = rows * columns if len(operation.inputs) > 3 else 0
    weights = rows * columns * (1 + 1 + ELEMENTARY + DIVISION) + 2 * rows * (columns - 1)
    return products(rows * columns * (query[-1] + value[-1]), weights + masked)


def groups_of(operation: Operation) -> tuple[int, int]:
    """How many groups of values are normalised, and how many values are in one."""
    values = shape(operation, 0, 1)
    size = math.prod(shape(operation, 1)) if len(operation.inputs) > 1 else values[-1]
    if size == 0 or math.prod(values) % size:
        raise ShapeError(f"a scale of {size} values does not fit {values}")
    return math.prod(values) // size, size


def layer_normalization(operation: Operation) -> Cost:
    """Mean n, centring n, variance 2n, epsilon and inverse root, scaling n; n more for each of scale and shift."""
    groups, size = groups_of(operation)
    return Cost(groups * (5 * size + 1 + ROOT + DIVISION + size * (len(operation.inputs) - 1)))


def rms_normalization(operation: Operation) -> Cost:
    """Mean of squares 2n, epsilon and inverse root, scaling n; n more for each of scale and shift."""
    groups, size = groups_of(operation)
    return Cost(groups * (3 * size + 1 + ROOT + DIVISION + size * (len(operation.inputs) - 1)))


def batch_normalization(operation: Operation) -> Cost:
    """One multiply and one add for each element: at inference the statistics are constants."""
    return Cost(2 * elements(operation))


def l2_normalization(operation: Operation) -> Cost:
    """Squares n, sum n - 1, inverse root, scaling n, along the last axis."""
    size = axis_size(operation, -1)
    return Cost(elements(operation) // size * (3 * size - 1 + ROOT + DIVISION))


def reduction(each: int, per_result: int) -> Callable[[Operation], Cost]:
    """A formula: `each` FLOPs for each value that is reduced and `per_result` for each result."""

    def formula(operation: Operation) -> Cost:
        values = math.prod(shape(operation, 0))
        if values < elements(operation):
            raise ShapeError("more results than values")
        return Cost(each * values + per_result * elements(operation))

    return formula


def recurrent(gates: int, pointwise: int) -> Callable[[Operation], Cost]:
    """A formula for a recurrent layer: both products of each step, `pointwise` FLOPs a unit, 2 per gate for biases."""

    def formula(operation: Operation) -> Cost:
        steps, batch, width = shape(operation, 0, 3)
        weight, recurrent_weight = shape(operation, 1, 3), shape(operation, 2, 3)
        directions, rows, units = recurrent_weight
        if rows != gates * units or weight != (directions, rows, width):
            raise ShapeError(f"{weight} and {recurrent_weight} are not the weights of {gates} gates")
        cells = steps * batch * directions * units
        biases = 2 * gates if len(operation.inputs) > 3 else 0
        return products(cells * gates * (width + units), cells * (pointwise + gates + biases))

    return formula


SIGMOID, TANH = ELEMENTWISE[kinds.SIGMOID], ELEMENTWISE[kinds.TANH]
FORMULAS: Final[Mapping[str, Callable[[Operation], Cost]]] = {
    kinds.MATMUL: matmul,
    kinds.LINEAR: linear,
    kinds.CONVOLUTION: convolution,
    kinds.TRANSPOSED_CONVOLUTION: transposed_convolution,
    kinds.SOFTMAX: softmax,
    kinds.ATTENTION: attention,
    kinds.LAYER_NORMALIZATION: layer_normalization,
    kinds.RMS_NORMALIZATION: rms_normalization,
    kinds.BATCH_NORMALIZATION: batch_normalization,
    kinds.L2_NORMALIZATION: l2_normalization,
    kinds.REDUCE_SUM: reduction(1, -1),
    kinds.REDUCE_EXTREME: reduction(1, -1),
    kinds.REDUCE_PRODUCT: reduction(1, -1),
    kinds.REDUCE_MEAN: reduction(1, 0),  # n - 1 additions, one multiplication by 1 / n
    kinds.REDUCE_VARIANCE: reduction(4, 0),  # mean n, centring n, squares n, their mean n
    kinds.REDUCE_L2: reduction(2, ROOT - 1),
    kinds.CUMULATIVE_SUM: reduction(1, 0),
    kinds.GRU: recurrent(3, 2 * SIGMOID + TANH + 5),  # r * h; (1 - z) * n + z * h
    kinds.LSTM: recurrent(4, 3 * SIGMOID + 2 * TANH + 4),  # f * c + i * g; o * tanh(c)
    # Counted in bytes, by cost_of itself.
    kinds.GATHER: lambda _: Cost(),
    kinds.MOVE: lambda _: Cost(),
    kinds.SHAPE: lambda _: Cost(),
}
