"""Activations, softmax included."""

import numpy as np
import pytest
from mil_judging import Case, expand, floats

X = np.append(floats(2, 3, 4, low=-4, high=4).reshape(-1), np.float32([0, -20, 20, 0.5])).reshape(1, 4, 7, 1)


def _functional(name, *arguments, **options):
    def run(x):
        import torch

        return getattr(torch.nn.functional, name)(x, *arguments, **options)

    return run


def _cases():
    a, b = np.float32(0.3), np.float32(1.7)
    yield Case("relu", "relu", {"x": X}, torch=_functional("relu"))
    yield Case("relu6", "relu6", {"x": X}, torch=_functional("relu6"))
    yield Case("silu", "silu", {"x": X}, torch=_functional("silu"))
    yield Case("sigmoid", "sigmoid", {"x": X}, torch=_functional("sigmoid"))
    yield Case("softplus", "softplus", {"x": X}, torch=_functional("softplus"))
    yield Case("softsign", "softsign", {"x": X}, torch=_functional("softsign"))
    yield Case("leaky_relu", "leaky_relu", {"x": X}, {"alpha": a}, _functional("leaky_relu", 0.3))
    yield Case("elu", "elu", {"x": X}, {"alpha": b}, _functional("elu", 1.7))
    yield Case(
        "prelu", "prelu", {"x": X}, {"alpha": floats(4, seed=3)}, lambda x: _prelu(x, floats(4, seed=3)), half=False
    )
    same = np.full(4, a)
    yield Case("prelu-rank3", "prelu", {"x": X[..., 0]}, {"alpha": same}, lambda x: _prelu(x, same))
    yield Case(
        "clamped_relu", "clamped_relu", {"x": X}, {"alpha": a, "beta": b}, lambda x: _leaky(x, 0.3).clamp(max=1.7)
    )
    yield Case("linear_activation", "linear_activation", {"x": X}, {"alpha": a, "beta": b}, lambda x: x * 0.3 + 1.7)
    yield Case("scaled_tanh", "scaled_tanh", {"x": X}, {"alpha": a, "beta": b}, lambda x: 0.3 * (1.7 * x).tanh())
    yield Case("sigmoid_hard", "sigmoid_hard", {"x": X}, {"alpha": a, "beta": b}, lambda x: (0.3 * x + 1.7).clamp(0, 1))
    yield Case(
        "thresholded_relu", "thresholded_relu", {"x": X}, {"alpha": a}, _functional("threshold", 0.3, 0.0), half=False
    )
    alpha, beta = floats(4, seed=1), floats(4, seed=2, low=0.1)
    constants = {"alpha": alpha, "beta": beta}
    yield Case(
        "softplus_parametric", "softplus_parametric", {"x": X}, constants, lambda x: _soft(x, alpha, beta), half=False
    )
    for mode, approximate in (("EXACT", "none"), ("TANH_APPROXIMATION", "tanh")):
        yield Case(f"gelu-{mode}", "gelu", {"x": X}, {"mode": mode}, _functional("gelu", approximate=approximate))
    yield Case("gelu-SIGMOID", "gelu", {"x": X}, {"mode": "SIGMOID_APPROXIMATION"}, lambda x: x * (1.702 * x).sigmoid())
    yield Case("gelu-default", "gelu", {"x": X}, torch=_functional("gelu"))
    for axis in (-1, 0, 1, 2):
        x = floats(2, 3, 4, low=-9, high=9)
        yield Case(f"softmax-{axis}", "softmax", {"x": x}, {"axis": np.int32(axis)}, lambda x, a=axis: x.softmax(a))
    yield Case("softmax-default", "softmax", {"x": floats(2, 3)}, torch=lambda x: x.softmax(-1))
    masked = np.float32([[0.5, -np.inf, 1.0], [-np.inf, -np.inf, 2.0]])
    yield Case("softmax-masked", "softmax", {"x": masked}, {"axis": np.int32(1)}, lambda x: x.softmax(1))


def _leaky(x, slope):
    import torch

    return torch.nn.functional.leaky_relu(x, slope)


def _prelu(x, alpha):
    import torch

    return torch.nn.functional.prelu(x, torch.from_numpy(alpha))


def _soft(x, alpha, beta):
    import torch

    alpha, beta = (torch.from_numpy(v).reshape(1, -1, 1, 1) for v in (alpha, beta))
    return alpha * torch.nn.functional.softplus(beta * x)


CASES = list(_cases())


@pytest.mark.parametrize(("case", "opset", "half"), expand(CASES))
def test_activation(judge, case, opset, half):
    judge(CASES, case, opset, half)
