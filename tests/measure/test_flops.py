"""The formulas against arithmetic that counts itself, counts derived by hand, and torch's own counter."""

import math

import pytest

from exporter.core import kinds
from exporter.core.types import Operation
from exporter.measure.flops import ELEMENTWISE, FORMULAS, ShapeError, cost_of, count


def operation(kind, inputs, outputs, **attributes):
    return Operation("name", "Native", kind, tuple(inputs), tuple(outputs), attributes)


# ------------------------------------------------------------------ arithmetic that counts what it costs


class Number:
    """A number whose arithmetic counts itself: add, subtract, multiply, compare 1; divide, root 4; exp and like 8."""

    flops = 0

    def __init__(self, value):
        self.value = value

    def _spend(self, flops, value):
        Number.flops += flops
        return Number(value)

    def __add__(self, other):
        return self._spend(1, self.value + other.value)

    def __sub__(self, other):
        return self._spend(1, self.value - other.value)

    def __mul__(self, other):
        return self._spend(1, self.value * other.value)

    def __neg__(self):
        return self._spend(1, -self.value)

    def __truediv__(self, other):
        return self._spend(4, self.value / other.value)

    def larger(self, other):
        return self._spend(1, max(self.value, other.value))

    def root(self):
        return self._spend(4, math.sqrt(self.value))

    def elementary(self, function):
        return self._spend(8, function(self.value))


ONE, TWO, EPS = Number(1.0), Number(2.0), Number(1e-6)


def spent(algorithm, *arguments):
    Number.flops = 0
    algorithm(*arguments)
    return Number.flops


def numbers(count):
    return [Number(0.1 + 0.37 * i % 1) for i in range(count)]


def total(values):
    result = values[0]
    for value in values[1:]:
        result = result + value
    return result


def mean(values):
    return total(values) * Number(1 / len(values))


def softmax(row):
    top = row[0]
    for value in row[1:]:
        top = top.larger(value)
    powers = [(value - top).elementary(math.exp) for value in row]
    whole = total(powers)
    return [power / whole for power in powers]


def layer_norm(row, scale, shift):
    middle = mean(row)
    centred = [value - middle for value in row]
    inverse = ONE / (mean([value * value for value in centred]) + EPS).root()
    return [value * inverse * s + b for value, s, b in zip(centred, scale, shift, strict=True)]


def rms_norm(row, scale):
    inverse = ONE / (mean([value * value for value in row]) + EPS).root()
    return [value * inverse * s for value, s in zip(row, scale, strict=True)]


def l2_norm(row):
    inverse = ONE / total([value * value for value in row]).root()
    return [value * inverse for value in row]


def variance(row):
    middle = mean(row)
    centred = [value - middle for value in row]
    return mean([value * value for value in centred])


def sigmoid(x):
    return ONE / (ONE + (-x).elementary(math.exp))


def tanh(x):
    return x.elementary(math.tanh)


def dot(row, weights):
    """As MACs from zero: 2 FLOPs for each term."""
    result = Number(0.0)
    for value, weight in zip(row, weights, strict=True):
        result = result + value * weight
    return result


def gates(x, h, number):
    """W x + b + R h + c for each gate and unit, gate by gate."""
    return [
        [dot(x, numbers(len(x))) + ONE + (dot(h, numbers(len(h))) + ONE) for _ in range(len(h))] for _ in range(number)
    ]


def gru_cell(x, h):
    """torch.nn.GRU; the candidate keeps its two halves apart, which costs the same addition later."""
    r_sum, z_sum, n_sum = gates(x, h, 3)
    for r_in, z_in, n_in, old in zip(r_sum, z_sum, n_sum, h, strict=True):
        reset, update = sigmoid(r_in), sigmoid(z_in)
        new = tanh(n_in)
        reset * old
        (ONE - update) * new + update * old


def lstm_cell(x, h):
    i_sum, f_sum, g_sum, o_sum = gates(x, h, 4)
    for i_in, f_in, g_in, o_in, cell in zip(i_sum, f_sum, g_sum, o_sum, h, strict=True):
        cell = sigmoid(f_in) * cell + sigmoid(i_in) * tanh(g_in)
        sigmoid(o_in) * tanh(cell)


def test_softmax_costs_what_its_arithmetic_costs():
    cost = cost_of(operation(kinds.SOFTMAX, [(3, 4, 7)], [(3, 4, 7)]))
    assert (cost.flops, cost.macs) == (12 * spent(softmax, numbers(7)), 0)
    assert cost_of(operation(kinds.SOFTMAX, [(3, 4, 7)], [(3, 4, 7)], axis=1)).flops == 21 * spent(softmax, numbers(4))


def test_attention_costs_what_its_products_and_softmax_cost():
    shapes = [(1, 2, 3, 8), (1, 2, 5, 8), (1, 2, 5, 4), (3, 5)]
    cost = cost_of(operation(kinds.ATTENTION, shapes, [(1, 2, 3, 4)]))
    assert cost.macs == 2 * 3 * 5 * (8 + 4)
    assert cost.flops == 2 * cost.macs + 2 * 3 * (spent(softmax, numbers(5)) + 5 + 5)  # scale and mask
    assert cost.flops - cost_of(operation(kinds.ATTENTION, shapes[:3], [(1, 2, 3, 4)])).flops == 2 * 3 * 5


def test_normalisations_cost_what_their_arithmetic_costs():
    row, scale = numbers(64), numbers(64)
    shapes = [(1, 10, 64), (64,), (64,)]
    cases = {
        kinds.LAYER_NORMALIZATION: (shapes, 10 * spent(layer_norm, row, scale, scale)),
        kinds.RMS_NORMALIZATION: (shapes[:2], 10 * spent(rms_norm, row, scale)),
        kinds.L2_NORMALIZATION: (shapes[:1], 10 * spent(l2_norm, row)),
        kinds.REDUCE_VARIANCE: (shapes[:1], 10 * spent(variance, row)),
        kinds.REDUCE_MEAN: (shapes[:1], 10 * spent(mean, row)),
        kinds.REDUCE_SUM: (shapes[:1], 10 * spent(total, row)),
        kinds.REDUCE_EXTREME: (shapes[:1], 10 * 63),
        kinds.REDUCE_L2: (shapes[:1], 10 * spent(lambda r: total([v * v for v in r]).root(), row)),
    }
    for kind, (inputs, flops) in cases.items():
        output = (1, 10) if kind.startswith("reduce") else (1, 10, 64)
        assert (kind, cost_of(operation(kind, inputs, [output])).flops) == (kind, flops)
    assert cases[kinds.LAYER_NORMALIZATION][1] == 10 * (7 * 64 + 9)  # by hand


def test_a_normalisation_over_several_axes_takes_its_size_from_the_scale():
    one = cost_of(operation(kinds.LAYER_NORMALIZATION, [(2, 3, 4), (3, 4), (3, 4)], [(2, 3, 4)])).flops
    assert one == 2 * (7 * 12 + 9)


def test_composed_activations_cost_what_their_arithmetic_costs():
    x = Number(0.3)
    algorithms = {
        kinds.SIGMOID: lambda: sigmoid(x),
        kinds.SILU: lambda: x * sigmoid(x),
        kinds.RSQRT: lambda: ONE / x.root(),
        kinds.RECIPROCAL: lambda: ONE / x,
        kinds.POWER: lambda: (TWO * x.elementary(math.log)).elementary(math.exp),
        kinds.SOFTPLUS: lambda: (ONE + x.elementary(math.exp)).elementary(math.log),
        kinds.GELU: lambda: x * Number(0.5) * (ONE + (x * Number(0.7)).elementary(math.erf)),
        kinds.REMAINDER: lambda: x - (x / TWO).larger(x) * TWO,  # any 1-FLOP step stands for floor
        kinds.TANH: lambda: tanh(x),
        kinds.SQRT: x.root,
    }
    for kind, algorithm in algorithms.items():
        assert (kind, ELEMENTWISE[kind]) == (kind, spent(algorithm))


@pytest.mark.parametrize(("kind", "cell", "number"), [(kinds.GRU, gru_cell, 3), (kinds.LSTM, lstm_cell, 4)])
def test_recurrent_layers_cost_what_their_arithmetic_costs(kind, cell, number):
    steps, batch, width, units = 5, 2, 3, 4
    inputs = [(steps, batch, width), (1, number * units, width), (1, number * units, units), (1, 2 * number * units)]
    cost = cost_of(operation(kind, inputs, [(steps, 1, batch, units)]))
    assert cost.flops == steps * batch * spent(cell, numbers(width), numbers(units))
    assert cost.macs == steps * batch * number * units * (width + units)
    without_bias = cost_of(operation(kind, inputs[:3], [(steps, 1, batch, units)]))
    assert cost.flops - without_bias.flops == steps * batch * 2 * number * units


# ------------------------------------------------------------------------------------- counts by hand


def test_scn_pieces_by_hand():
    tokens = 10
    query = cost_of(operation(kinds.LINEAR, [(1, tokens, 64), (64, 64)], [(1, tokens, 64)]))
    assert (query.flops, query.macs) == (2 * tokens * 64 * 64, tokens * 64 * 64)
    # A = Q K^T of four heads of width 16 over a mini-batch of 10, and eta A times G
    attention = cost_of(operation(kinds.MATMUL, [(4, 10, 16), (4, 10, 16)], [(4, 10, 10)], transpose_y=True))
    assert attention.macs == 4 * 10 * 10 * 16
    mixed = cost_of(operation(kinds.MATMUL, [(4, 10, 10), (4, 10, 16)], [(4, 10, 16)]))
    assert mixed.macs == 4 * 10 * 16 * 10
    update = cost_of(operation(kinds.MATMUL, [(4, 10, 16), (4, 10, 16)], [(4, 16, 16)], transpose_x=True))
    assert update.macs == 4 * 16 * 16 * 10
    tau = cost_of(operation(kinds.MULTIPLY, [(1, 4, 10, 1), (1, 4, 1, 10)], [(1, 4, 10, 10)]))
    assert (tau.flops, tau.macs) == (400, 0)  # broadcasting: the output's elements


def test_biases_add_once_for_each_output():
    with_bias = cost_of(operation(kinds.LINEAR, [(5, 64), (32, 64), (32,)], [(5, 32)]))
    assert (with_bias.flops, with_bias.macs) == (2 * 5 * 32 * 64 + 5 * 32, 5 * 32 * 64)


def test_rows_of_a_linear_layer_may_come_flattened():
    assert cost_of(operation(kinds.LINEAR, [(1, 10, 64), (32, 64)], [(10, 32)])).macs == 10 * 32 * 64


def test_vectors_multiply_too():
    assert cost_of(operation(kinds.MATMUL, [(64,), (64, 7)], [(7,)])).macs == 7 * 64
    assert cost_of(operation(kinds.MATMUL, [(3, 64), (64,)], [(3,)])).macs == 3 * 64
    assert cost_of(operation(kinds.MATMUL, [(64,), (64,)], [()])).macs == 64


def test_sums_of_several_operands():
    for inputs, steps in ([(2, 3)], 1), ([(2, 3)] * 2, 1), ([(2, 3)] * 4, 3):
        assert cost_of(operation(kinds.ADD, inputs, [(2, 3)])).flops == 6 * steps


def test_a_fused_activation_is_counted_with_its_operation():
    plain = operation(kinds.LINEAR, [(5, 64), (32, 64)], [(5, 32)])
    fused = operation(kinds.LINEAR, [(5, 64), (32, 64)], [(5, 32)], activation=kinds.TANH)
    assert cost_of(fused).flops - cost_of(plain).flops == 8 * 160
    assert cost_of(fused).macs == cost_of(plain).macs
    with pytest.raises(ShapeError, match="has no cost"):
        cost_of(operation(kinds.LINEAR, [(5, 64), (32, 64)], [(5, 32)], activation="mystery"))


def test_gathers_and_moves_are_counted_in_bytes():
    rows = cost_of(operation(kinds.GATHER, [(12102, 64), (1, 10)], [(1, 10, 64)]))
    assert (rows.flops, rows.macs, rows.moved_bytes) == (0, 0, 2560)
    half = cost_of(operation(kinds.MOVE, [(4, 6)], [(4, 2), (4, 4)], dtype_bytes=2))
    assert (half.flops, half.moved_bytes) == (0, 48)
    assert cost_of(operation(kinds.SHAPE, [(4, 6)], [(2,)])).moved_bytes == 0
    assert cost_of(operation(kinds.MOVE, [(4, 6)], [(0, 6)])).moved_bytes == 0


# ----------------------------------------------------------------------------------------- the judges


def judged(function):
    """FLOPs that torch's counter sees in a call: it counts matrix products and convolutions, without their biases."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        result = function()
    return counter.get_total_flops(), tuple(result.shape)


def test_products_agree_with_torch():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    t = torch.zeros
    cases = [
        (kinds.MATMUL, lambda a, b: a @ b, [(7, 5), (5, 3)], {}),
        (kinds.MATMUL, torch.bmm, [(4, 7, 5), (4, 5, 3)], {}),
        (kinds.MATMUL, torch.matmul, [(2, 4, 7, 5), (2, 4, 5, 3)], {}),
        (kinds.MATMUL, lambda a, b: a @ b.mT, [(4, 7, 5), (4, 3, 5)], {"transpose_y": True}),
        (kinds.MATMUL, lambda a, b: a.mT @ b, [(4, 5, 7), (4, 5, 3)], {"transpose_x": 1}),
        (kinds.MATMUL, lambda a, b: a.mT @ b.mT, [(4, 5, 7), (4, 3, 5)], {"transpose_x": True, "transpose_y": True}),
        (kinds.MATMUL, torch.matmul, [(6, 4, 7, 5), (5, 3)], {}),
        (kinds.LINEAR, functional.linear, [(2, 10, 64), (32, 64), (32,)], {}),
        (kinds.CONVOLUTION, functional.conv1d, [(2, 8, 20), (6, 8, 3), (6,)], {}),
        (
            kinds.CONVOLUTION,
            lambda x, w: functional.conv1d(x, w, dilation=4, padding=8),
            [(2, 8, 20), (6, 8, 3)],
            {},
        ),
        (
            kinds.CONVOLUTION,
            lambda x, w: functional.conv1d(x, w, groups=8),
            [(2, 8, 20), (8, 1, 4)],
            {"groups": 8},
        ),
        (
            kinds.CONVOLUTION,
            lambda x, w: functional.conv2d(x, w, stride=2),
            [(1, 3, 9, 11), (5, 3, 3, 3)],
            {},
        ),
        (
            kinds.TRANSPOSED_CONVOLUTION,
            lambda x, w: functional.conv_transpose2d(x, w, stride=2),
            [(1, 3, 9, 11), (3, 5, 2, 2)],
            {},
        ),
    ]
    for kind, function, shapes, attributes in cases:
        flops, output = judged(lambda f=function, s=shapes: f(*(t(shape) for shape in s)))
        cost = cost_of(operation(kind, shapes, [output], **attributes))
        assert (kind, shapes, 2 * cost.macs) == (kind, shapes, flops)
        assert cost.flops - 2 * cost.macs == (math.prod(output) if len(shapes) > 2 else 0)


# --------------------------------------------------------------------- what cannot be counted is listed


def test_every_kind_has_a_formula():
    names = {value for name, value in vars(kinds).items() if name.isupper()}
    assert names == set(ELEMENTWISE) | set(FORMULAS)
    assert not set(ELEMENTWISE) & set(FORMULAS)


@pytest.mark.parametrize(
    "wrong",
    [
        operation(None, [(2, 2)], [(2, 2)]),
        operation("einsum", [(2, 2)], [(2, 2)]),
        operation(kinds.ADD, [(2, 2)], []),
        operation(kinds.ADD, [(2, 2)], [()]),  # an output whose shape was not inferred
        operation(kinds.TANH, [(0, 2)], [(0, 2)]),  # a symbolic size
        operation(kinds.MATMUL, [(2, 3), (4, 5)], [(2, 5)]),
        operation(kinds.MATMUL, [(2, 0), (0, 5)], [(2, 5)]),
        operation(kinds.MATMUL, [(2, 3)], [(2, 5)]),
        operation(kinds.MATMUL, [(), ()], [()]),
        operation(kinds.LINEAR, [(2, 3), (5, 4)], [(2, 5)]),
        operation(kinds.LINEAR, [(2, 3), (3,)], [(2, 3)]),
        operation(kinds.CONVOLUTION, [(1, 8, 20), (6, 4, 3)], [(1, 6, 18)]),
        operation(kinds.TRANSPOSED_CONVOLUTION, [(1, 8, 20), (6, 4, 3)], [(1, 4, 22)]),
        operation(kinds.LAYER_NORMALIZATION, [(2, 10), (3,)], [(2, 10)]),
        operation(kinds.SOFTMAX, [(2, 10)], [(2, 10)], axis=2),
        operation(kinds.SOFTMAX, [()], [()]),
        operation(kinds.REDUCE_SUM, [()], [(2, 10)]),
        operation(kinds.GRU, [(5, 2, 3), (1, 12, 3), (1, 16, 4)], [(5, 1, 2, 4)]),
        operation(kinds.GRU, [(5, 2, 3), (1, 12, 7), (1, 12, 4)], [(5, 1, 2, 4)]),
    ],
)
def test_what_has_no_formula_or_does_not_fit_it_is_listed(wrong):
    right = operation(kinds.TANH, [(2, 2)], [(2, 2)])
    counted = count([wrong, right, wrong])
    assert counted.uncounted == {"Native": 2}
    assert counted.total == 32
    assert len(counted.by_operation) == 1


def test_a_count_adds_up():
    graph = [
        Operation("ids", "Gather", kinds.GATHER, ((50, 8), (1, 4)), ((1, 4, 8),)),
        Operation("map", "MatMul", kinds.MATMUL, ((1, 4, 8), (8, 8)), ((1, 4, 8),), delegate="XNNPACK"),
        Operation("bend", "Tanh", kinds.TANH, ((1, 4, 8),), ((1, 4, 8),)),
        Operation("more", "Tanh", kinds.TANH, ((1, 4, 8),), ((1, 4, 8),)),
        Operation("odd", "Einsum", None, ((1, 4, 8),), ((1, 4, 8),)),
    ]
    counted = count(graph)
    assert counted.by_kind == {kinds.MATMUL: 512, kinds.TANH: 512, kinds.GATHER: 0}
    assert (counted.total, counted.macs, counted.moved_bytes) == (1024, 256, 128)
    assert [(row.name, row.delegate) for row in counted.by_operation] == [
        ("ids", None),
        ("map", "XNNPACK"),
        ("bend", None),
        ("more", None),
    ]
    assert counted.uncounted == {"Einsum": 1}
