"""Recurrent layers against torch.nn, and against formulas where torch has no such layer."""

import numpy as np
import pytest
from mil_judging import Case, expand, floats

S, B, D, H = 5, 2, 3, 4  # steps, batch, input and hidden size


def _weights(gates, seed):
    return floats(gates * H, D, seed=seed), floats(gates * H, H, seed=seed + 1), floats(gates * H, seed=seed + 2)


def _ordered(array, order):
    """Reorder the gates of a stacked weight or bias."""
    return np.concatenate([np.split(array, len(order))[index] for index in order])


def _torch_layer(kind, weights, back=None, **options):
    import torch

    layer = getattr(torch.nn, kind)(D, H, bidirectional=back is not None, **options)
    state = {}
    for suffix, values in (("", weights), ("_reverse", back)):
        if values is not None:
            for name, value in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), values, strict=True):
                state[f"{name}_l0{suffix}"] = torch.from_numpy(value)
    layer.load_state_dict(state)
    return layer.eval()


def _cases():
    x, h, c = floats(S, B, D, seed=9), floats(B, H, seed=10), floats(B, H, seed=11)
    w_ih, w_hh, bias = _weights(1, 0)
    zero = np.zeros_like(bias)
    for direction in ("forward", "reverse"):
        for sequence in (False, True):
            options = {"direction": direction, "output_sequence": sequence}
            for activation in ("tanh", "relu"):
                layer = _torch_layer("RNN", (w_ih, w_hh, bias, zero), nonlinearity=activation)
                constants = {"weight_ih": w_ih, "weight_hh": w_hh, "bias": bias, "activation": activation, **options}
                name = f"rnn-{direction}-{sequence}-{activation}"
                yield Case(
                    name,
                    "rnn",
                    {"x": x, "initial_h": h},
                    constants,
                    lambda x, h, layer=layer, o=options: _run(layer, x, h, **o),
                    half=False,
                    tolerance=1e-4,
                )
            yield from _lstms(x, h, c, options)
            yield from _grus(x, h, options)
    constants = {"weight_ih": w_ih, "weight_hh": w_hh, "activation": "sigmoid", "output_sequence": True}
    data = {"x": x, "initial_h": h}
    yield Case("rnn-sigmoid", "rnn", data, constants, _sigmoid_rnn(w_ih, w_hh), half=False, tolerance=1e-4)


def _sigmoid_rnn(w_ih, w_hh):
    def run(x, h):
        import torch

        outputs = []
        for step in x:
            h = (step @ torch.from_numpy(w_ih).T + h @ torch.from_numpy(w_hh).T).sigmoid()
            outputs.append(h)
        return torch.stack(outputs), h

    return run


def _run(layer, x, *state, direction="forward", output_sequence=False):
    import torch

    with torch.no_grad():
        x = x.flip(0) if direction == "reverse" else x
        states = tuple(s[None] for s in state)
        output, last = layer(x, states if len(states) > 1 else states[0])
        last = last if isinstance(last, tuple) else (last,)
    return (output if output_sequence else output[-1:], *(item[0] for item in last))


def _lstms(x, h, c, options):
    import torch

    w_ih, w_hh, bias = _weights(4, 3)
    to_torch = [0, 1, 3, 2]  # MIL: input, forget, output, cell; torch: input, forget, cell, output
    swapped = [_ordered(value, to_torch) for value in (w_ih, w_hh, bias, np.zeros_like(bias))]
    layer = _torch_layer("LSTM", swapped)
    data = {"x": x, "initial_h": h, "initial_c": c}
    constants = {"weight_ih": w_ih, "weight_hh": w_hh, "bias": bias, **options}
    suffix = f"{options['direction']}-{options['output_sequence']}"
    yield Case(
        f"lstm-{suffix}",
        "lstm",
        data,
        constants,
        lambda x, h, c: _run(layer, x, h, c, **options),
        half=False,
        tolerance=1e-4,
    )
    peephole = floats(3 * H, seed=20)
    constants = {
        **constants,
        "peephole": peephole,
        "clip": np.float32(0.3),
        "activation": "linear",
        "cell_activation": "relu",
    }
    yield Case(
        f"lstm-peephole-{suffix}",
        "lstm",
        data,
        constants,
        lambda x, h, c: _peeping(x, h, c, w_ih, w_hh, bias, peephole, options),
        half=False,
        tolerance=1e-4,
    )
    if options["direction"] == "reverse":
        return
    back = _weights(4, 30)
    swapped_back = [_ordered(value, to_torch) for value in (*back, np.zeros_like(back[2]))]
    both = _torch_layer("LSTM", swapped, swapped_back)
    data = {"x": x, "initial_h": floats(B, 2 * H, seed=12), "initial_c": floats(B, 2 * H, seed=13)}
    constants = {
        "weight_ih": w_ih,
        "weight_hh": w_hh,
        "bias": bias,
        "weight_ih_back": back[0],
        "weight_hh_back": back[1],
        "bias_back": back[2],
        "direction": "bidirectional",
        "output_sequence": options["output_sequence"],
    }

    def judge_both(x, h, c):
        with torch.no_grad():
            halves = [torch.stack([s[:, :H], s[:, H:]]) for s in (h, c)]
            output, (last_h, last_c) = both(x, tuple(halves))
        ends = [torch.cat([s[0], s[1]], -1) for s in (last_h, last_c)]
        return (output if options["output_sequence"] else ends[0][None], *ends)

    yield Case(
        f"lstm-both-{options['output_sequence']}", "lstm", data, constants, judge_both, half=False, tolerance=1e-4
    )


def _peeping(x, h, c, w_ih, w_hh, bias, peephole, options):
    import torch

    w_ih, w_hh, bias, peephole = (torch.from_numpy(v) for v in (w_ih, w_hh, bias, peephole))
    p_i, p_f, p_o = peephole.split(H)
    outputs = []
    for step in x.flip(0) if options["direction"] == "reverse" else x:
        i, f, o, z = (step @ w_ih.T + h @ w_hh.T + bias).split(H, -1)
        c = ((f + c * p_f).sigmoid() * c + (i + c * p_i).sigmoid() * z.relu()).clamp(-0.3, 0.3)
        h = (o + c * p_o).sigmoid() * c
        outputs.append(h)
    return torch.stack(outputs if options["output_sequence"] else outputs[-1:]), h, c


def _grus(x, h, options):
    w_ih, w_hh, bias = _weights(3, 6)
    suffix = f"{options['direction']}-{options['output_sequence']}"
    data = {"x": x, "initial_h": h}
    constants = {"weight_ih": w_ih, "weight_hh": w_hh, "bias": bias, **options}
    yield Case(
        f"gru-{suffix}",
        "gru",
        data,
        constants,
        lambda x, h: _gru(x, h, w_ih, w_hh, bias, options),
        half=False,
        tolerance=1e-4,
    )
    input_bias = floats(3 * H, seed=40)
    to_torch = [0, 2, 1]  # MIL: reset, output, update; torch: reset, update, new
    layer = _torch_layer("GRU", [_ordered(value, to_torch) for value in (w_ih, w_hh, input_bias, bias)])
    constants = {**constants, "reset_after": True, "input_bias": input_bias}
    yield Case(
        f"gru-reset-after-{suffix}",
        "gru",
        data,
        constants,
        lambda x, h: _run(layer, x, h, **options),
        half=False,
        tolerance=1e-4,
        since=18,
    )


def _gru(x, h, w_ih, w_hh, bias, options):
    """The formula that coremltools' own tests hold Core ML to: the reset gate is applied before the matrix product."""
    import torch

    w_ih, w_hh, bias = (torch.from_numpy(v) for v in (w_ih, w_hh, bias))
    outputs = []
    for step in x.flip(0) if options["direction"] == "reverse" else x:
        given_r, given_o, given_z = (step @ w_ih.T + bias).split(H, -1)
        r, z = (
            (g + h @ w_hh[part].T).sigmoid() for g, part in ((given_r, slice(0, H)), (given_z, slice(2 * H, 3 * H)))
        )
        o = (given_o + (r * h) @ w_hh[H : 2 * H].T).tanh()
        h = (1 - z) * o + z * h
        outputs.append(h)
    return torch.stack(outputs if options["output_sequence"] else outputs[-1:]), h


CASES = list(_cases())


@pytest.mark.parametrize(("case", "opset", "half"), expand(CASES))
def test_recurrent(judge, case, opset, half):
    judge(CASES, case, opset, half)
