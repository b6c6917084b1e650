"""Normalisations, against torch.nn.functional."""

import numpy as np
import pytest
from mil_judging import Case, expand, floats


def _functional(name, *arguments, **options):
    def run(x):
        import torch

        def tensor(value):
            return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

        return getattr(torch.nn.functional, name)(
            x, *(tensor(v) for v in arguments), **{key: tensor(v) for key, v in options.items()}
        )

    return run


def _cases():
    mean, gamma, beta = floats(3, seed=1), floats(3, seed=2), floats(3, seed=3)
    variance = floats(3, low=0.1, high=2, seed=4)
    for number, shape in enumerate([(2, 3, 5), (2, 3, 4, 5), (1, 3, 2, 3, 4)]):
        data = {"x": floats(*shape)}
        full = {"mean": mean, "variance": variance, "gamma": gamma, "beta": beta, "epsilon": np.float32(1e-3)}
        judge = _functional("batch_norm", mean, variance, gamma, beta, eps=1e-3)
        yield Case(f"batch_norm-{number}", "batch_norm", data, full, judge, half=False)
        plain = {"mean": mean, "variance": variance}
        yield Case(
            f"batch_norm-plain-{number}",
            "batch_norm",
            data,
            plain,
            _functional("batch_norm", mean, variance),
            half=False,
        )
        if len(shape) < 5:
            both = {"gamma": gamma, "beta": beta, "epsilon": np.float32(1e-3)}
            judge = _functional("instance_norm", weight=gamma, bias=beta, eps=1e-3)
            yield Case(f"instance_norm-{number}", "instance_norm", data, both, judge, half=False)
            yield Case(f"instance_norm-plain-{number}", "instance_norm", data, torch=_functional("instance_norm"))
    for number, (shape, axes) in enumerate(
        [((2, 6), [1]), ((2, 3, 6), [-1]), ((2, 3, 4), [1, 2]), ((3, 4, 5), [-2, -1])]
    ):
        normalised = shape[len(shape) - len(axes) :]
        scale, shift = floats(*normalised, seed=1), floats(*normalised, seed=2)
        constants = {"axes": np.int32(axes), "gamma": scale, "beta": shift, "epsilon": np.float32(1e-3)}
        judge = _functional("layer_norm", normalised, scale, shift, eps=1e-3)
        yield Case(f"layer_norm-{number}", "layer_norm", {"x": floats(*shape)}, constants, judge, half=False)
        judge = _functional("layer_norm", normalised)
        yield Case(f"layer_norm-plain-{number}", "layer_norm", {"x": floats(*shape)}, {"axes": np.int32(axes)}, judge)
    yield Case("layer_norm-first-axis", "layer_norm", {"x": floats(4, 3)}, {"axes": np.int32([0])}, _first_axis)
    yield Case(
        "layer_norm-all",
        "layer_norm",
        {"x": floats(4, 3)},
        {"axes": np.int32([0, 1])},
        _functional("layer_norm", (4, 3)),
    )
    for number, shape in enumerate([(2, 3, 4), (2, 2, 3, 4), (1, 2, 2, 3, 4)]):
        epsilon = {"epsilon": np.float32(1e-3)}
        yield Case(f"l2_norm-{number}", "l2_norm", {"x": floats(*shape)}, epsilon, _l2_norm)
    for number, (shape, size) in enumerate([((2, 7, 4), 3), ((2, 7, 4, 3), 5), ((1, 3, 2, 2), 5), ((1, 6, 2), 4)]):
        constants = {"size": np.int32(size), "alpha": np.float32(0.3), "beta": np.float32(0.6), "k": np.float32(1.5)}
        judge = _functional("local_response_norm", size, 0.3, 0.6, 1.5)
        yield Case(f"local_response_norm-{number}", "local_response_norm", {"x": floats(*shape)}, constants, judge)
    yield Case(
        "local_response_norm-default",
        "local_response_norm",
        {"x": floats(1, 4, 3)},
        {"size": np.int32(3)},
        _functional("local_response_norm", 3),
    )


def _first_axis(x):
    return (x - x.mean(0, keepdim=True)) / (x.var(0, correction=0, keepdim=True) + 1e-5).sqrt()


def _l2_norm(x):
    return x / ((x * x).sum((-3, -2, -1), keepdim=True) + 1e-3).sqrt()


CASES = list(_cases())


@pytest.mark.parametrize(("case", "opset", "half"), expand(CASES))
def test_normalization(judge, case, opset, half):
    judge(CASES, case, opset, half)
