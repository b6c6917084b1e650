"""Recurrent layers (MIL recurrent).

The input products of all steps are one matrix product; the loop over the steps is the recurrence itself. `reverse`
reads the sequence from its end, and the output keeps the order of reading, as coremltools' own tests expect of
Core ML; in a bidirectional LSTM the backward half is put back into the order of the input.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from exporter.mil.kernel import Env, Kernel, RefusedError, arithmetic
from exporter.mil.ops.activation import relu, sigmoid

Activation = Callable[[np.ndarray], np.ndarray]


def _tanh(x: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.tanh(x)
    return result


def _hard_sigmoid(x: np.ndarray) -> np.ndarray:
    kind = x.dtype.type
    result: np.ndarray = np.clip(kind(0.2) * x + kind(0.5), kind(0), kind(1))
    return result


def _linear(x: np.ndarray) -> np.ndarray:
    return x


# The spec gives scaled_tanh and hard_sigmoid no parameters here; coremltools' own tests expect their usual ones.
ACTIVATIONS: dict[str, Activation] = {
    "tanh": _tanh,
    "scaled_tanh": _tanh,
    "sigmoid": sigmoid,
    "hard_sigmoid": _hard_sigmoid,
    "sigmoid_hard": _hard_sigmoid,
    "relu": relu,
    "linear": _linear,
}


def _activation(name: str) -> Activation:
    if name.lower() not in ACTIVATIONS:
        raise RefusedError(f"activation {name!r} is not known; the spec has {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name.lower()]


def _check(x: np.ndarray, h: np.ndarray, weight_ih: np.ndarray, weight_hh: np.ndarray, gates: int) -> int:
    """Return the hidden size; refuses shapes that do not fit [s, b, I], [b, H], [gates*H, I] and [gates*H, H]."""
    size = int(weight_hh.shape[-1])
    if (
        x.ndim != 3
        or h.shape != (x.shape[1], size)
        or weight_ih.shape != (gates * size, x.shape[2])
        or weight_hh.shape != (gates * size, size)
        or not x.shape[0]
    ):
        shapes = ", ".join(str(list(array.shape)) for array in (x, h, weight_ih, weight_hh))
        raise RefusedError(f"x, the initial state and the weights do not fit: {shapes}")
    return size


def _order(x: np.ndarray, direction: str) -> np.ndarray:
    if direction not in ("forward", "reverse"):
        raise RefusedError(f"direction {direction!r} is not known here")
    return x[::-1] if direction == "reverse" else x


def _projected(env: Env, x: np.ndarray, weight: np.ndarray, *biases: np.ndarray | None) -> np.ndarray:
    product = env.matmul(x, weight.T)
    for bias in biases:
        if bias is not None:
            product = product + bias
    return product


def _sequence(steps: list[np.ndarray], output_sequence: bool) -> np.ndarray:
    return np.stack(steps if output_sequence else steps[-1:])


def rnn(
    env: Env,
    x: np.ndarray,
    initial_h: np.ndarray,
    weight_ih: np.ndarray,
    weight_hh: np.ndarray,
    bias: np.ndarray | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    activation: str = "tanh",
) -> Any:
    """h_t = activation(W_ih x_t + W_hh h_{t-1} + b); returns [s or 1, b, H] and the last state [b, H]."""
    _check(x, initial_h, weight_ih, weight_hh, 1)
    act = _activation(activation)
    steps: list[np.ndarray] = []
    h = initial_h
    for from_input in _projected(env, _order(x, direction), weight_ih, bias):
        h = act(from_input + env.matmul(h, weight_hh.T))
        steps.append(h)
    return _sequence(steps, bool(output_sequence)), h


def gru(
    env: Env,
    x: np.ndarray,
    initial_h: np.ndarray,
    weight_ih: np.ndarray,
    weight_hh: np.ndarray,
    bias: np.ndarray | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    activation: str = "tanh",
    reset_after: bool = False,
    input_bias: np.ndarray | None = None,
) -> Any:
    """Gates in the order reset, output, update: h_t = (1 - z) * o + z * h_{t-1}.

    o = act(W_io x + W_ho (r * h) + b), or with `reset_after` o = act(W_io x + b_input + r * (W_ho h + b)) as in torch.
    """
    size = _check(x, initial_h, weight_ih, weight_hh, 3)
    gate, act = _activation(recurrent_activation), _activation(activation)
    recurrent = np.zeros(3 * size, x.dtype) if bias is None else bias
    update_and_reset = np.r_[0:size, 2 * size : 3 * size]
    weight_o = weight_hh[size : 2 * size].T
    weight_rz = weight_hh[update_and_reset].T
    bias_o, bias_rz = recurrent[size : 2 * size], recurrent[update_and_reset]
    steps: list[np.ndarray] = []
    h = initial_h
    for from_input in _projected(env, _order(x, direction), weight_ih, input_bias):
        rz = gate(from_input[:, update_and_reset] + env.matmul(h, weight_rz) + bias_rz)
        r, z = rz[:, :size], rz[:, size:]
        candidate = from_input[:, size : 2 * size]
        if reset_after:
            o = act(candidate + r * (env.matmul(h, weight_o) + bias_o))
        else:
            o = act(candidate + env.matmul(r * h, weight_o) + bias_o)
        h = (x.dtype.type(1) - z) * o + z * h
        steps.append(h)
    return _sequence(steps, bool(output_sequence)), h


def lstm(
    env: Env,
    x: np.ndarray,
    initial_h: np.ndarray,
    initial_c: np.ndarray,
    weight_ih: np.ndarray,
    weight_hh: np.ndarray,
    bias: np.ndarray | None = None,
    peephole: np.ndarray | None = None,
    weight_ih_back: np.ndarray | None = None,
    weight_hh_back: np.ndarray | None = None,
    bias_back: np.ndarray | None = None,
    peephole_back: np.ndarray | None = None,
    direction: str = "forward",
    output_sequence: bool = False,
    recurrent_activation: str = "sigmoid",
    cell_activation: str = "tanh",
    activation: str = "tanh",
    clip: np.ndarray | None = None,
) -> Any:
    """Gates in the order input, forget, output, cell; returns [s or 1, b, H'], the last state and cell [b, H'].

    H' is H, or 2 H with the two directions side by side when `direction` is bidirectional.
    """
    acts = (_activation(recurrent_activation), _activation(cell_activation), _activation(activation))
    limit = None if clip is None else x.dtype.type(clip)
    if direction != "bidirectional":
        run = _order(x, direction)
        steps, h, c = _lstm(env, run, initial_h, initial_c, weight_ih, weight_hh, bias, peephole, acts, limit)
        return _sequence(steps, bool(output_sequence)), h, c
    if weight_ih_back is None or weight_hh_back is None:
        raise RefusedError("a bidirectional LSTM needs weight_ih_back and weight_hh_back")
    size = weight_hh.shape[-1]
    h_f, h_b, c_f, c_b = (
        state[:, part] for state in (initial_h, initial_c) for part in (slice(size), slice(size, None))
    )
    forward = _lstm(env, x, h_f, c_f, weight_ih, weight_hh, bias, peephole, acts, limit)
    backward = _lstm(env, x[::-1], h_b, c_b, weight_ih_back, weight_hh_back, bias_back, peephole_back, acts, limit)
    h, c = (np.concatenate([a, b], -1) for a, b in zip(forward[1:], backward[1:], strict=True))
    both = [np.concatenate(pair, -1) for pair in zip(forward[0], backward[0][::-1], strict=True)]
    return (np.stack(both) if output_sequence else h[None]), h, c


def _lstm(
    env: Env,
    x: np.ndarray,
    h: np.ndarray,
    c: np.ndarray,
    weight_ih: np.ndarray,
    weight_hh: np.ndarray,
    bias: np.ndarray | None,
    peephole: np.ndarray | None,
    acts: tuple[Activation, Activation, Activation],
    limit: Any,
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    size = _check(x, h, weight_ih, weight_hh, 4)
    gate, cell, out = acts
    peep_i, peep_f, peep_o = (None, None, None) if peephole is None else np.split(peephole, 3)
    steps: list[np.ndarray] = []
    for from_input in _projected(env, x, weight_ih, bias):
        i, f, o, z = np.split(from_input + env.matmul(h, weight_hh.T), [size, 2 * size, 3 * size], -1)
        if peep_i is not None:
            i, f = i + c * peep_i, f + c * peep_f
        c = gate(f) * c + gate(i) * cell(z)
        if limit is not None:
            c = np.clip(c, -limit, limit)
        if peep_o is not None:
            o = o + c * peep_o
        h = gate(o) * out(c)
        steps.append(h)
    return steps, h, c


RECURRENT: dict[str, Kernel] = {"gru": arithmetic(gru), "lstm": arithmetic(lstm), "rnn": arithmetic(rnn)}
