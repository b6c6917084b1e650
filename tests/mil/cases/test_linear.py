"""Matrix products and attention."""

import numpy as np
import pytest
from mil_judging import Case, bools, expand, floats, ints


def _einsum(equation):
    def run(values):
        import torch

        return torch.einsum(equation, *values)

    return run


def _attention(*tensors):
    import torch

    return torch.nn.functional.scaled_dot_product_attention(*tensors)


def _cases():
    for number, shape in enumerate([(5,), (3, 5), (2, 3, 5), (1, 1, 5), (0, 5)]):
        weight, bias = floats(4, 5, seed=1), floats(4, seed=2)
        data = {"x": floats(*shape)}
        yield Case(
            f"linear-{number}", "linear", data, {"weight": weight, "bias": bias}, _linear(weight, bias), half=False
        )
        yield Case(f"linear-plain-{number}", "linear", data, {"weight": weight}, _linear(weight, None), half=False)
    weight = ints(4, 5, seed=1)
    yield Case("linear-int", "linear", {"x": ints(3, 5)}, {"weight": weight}, lambda x: x @ x.new_tensor(weight).T)
    shapes = [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (6, 4, 5)), ((4,), (4, 5))]
    for number, (left, right) in enumerate(shapes):
        data = {"x": floats(*left, seed=1), "y": floats(*right, seed=2)}
        yield Case(f"matmul-{number}", "matmul", data, torch=lambda x, y: x @ y)
        flip = {"x": floats(*left, seed=1), "y": floats(*right[:-2], right[-1], right[-2], seed=2)}
        yield Case(f"matmul-y-{number}", "matmul", flip, {"transpose_y": True}, lambda x, y: x @ y.transpose(-1, -2))
        if len(left) > 1:
            flip = {"x": floats(*left[:-2], left[-1], left[-2], seed=1), "y": floats(*right, seed=2)}
            yield Case(
                f"matmul-x-{number}", "matmul", flip, {"transpose_x": True}, lambda x, y: x.transpose(-1, -2) @ y
            )
    yield Case("matmul-int", "matmul", {"x": ints(3, 4), "y": ints(4, 2)}, torch=lambda x, y: x @ y)
    yield Case(
        "matmul-const",
        "matmul",
        {"x": floats(3, 4)},
        {"y": floats(4, 2)},
        lambda x: x @ x.new_tensor(floats(4, 2)),
        half=False,
    )
    # Since iOS 17 a constant may be of integers beside floats, and the other way round.
    weight, bias = ints(4, 5, seed=1), ints(4, seed=2)
    constants = {"weight": weight, "bias": bias}
    yield Case("linear-mixed", "linear", {"x": floats(3, 5)}, constants, _linear(weight, bias), since=17, folds=False)
    yield Case(
        "matmul-mixed",
        "matmul",
        {"y": ints(5, 2)},
        {"x": weight.astype(np.float32)},
        lambda y: y.new_tensor(weight) @ y,
        since=17,
        folds=False,
    )
    pairs = [
        ("nchw,nwhu->nchu", (2, 3, 4, 5), (2, 5, 4, 6)),
        ("abcd,adce->abce", (1, 3, 4, 5), (2, 5, 4, 6)),
        ("chw,whr->chr", (3, 4, 5), (5, 4, 6)),
        ("chw,whr->chr", (3, 1, 5), (5, 4, 6)),
    ]
    for number, (equation, left, right) in enumerate(pairs):
        data = {"values": (floats(*left, seed=1), floats(*right, seed=2))}
        yield Case(f"einsum-{number}", "einsum", data, {"equation": equation}, _einsum(equation))
    for number, (q, k, v, m) in enumerate(
        [
            ((2, 3, 4), (2, 5, 4), (2, 5, 6), None),
            ((1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 4), (3, 5)),
            ((1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 4), (1, 2, 3, 5)),
        ]
    ):
        data = {"query": floats(*q, seed=1), "key": floats(*k, seed=2), "value": floats(*v, seed=3)}
        if m is None:
            yield Case(f"attention-{number}", "scaled_dot_product_attention", data, torch=_attention, since=18)
            continue
        yield Case(
            f"attention-{number}",
            "scaled_dot_product_attention",
            {**data, "attn_mask": floats(*m)},
            torch=_attention,
            since=18,
        )
        mask = bools(*m) | np.eye(*m[-2:], dtype=bool)
        yield Case(
            f"attention-bool-{number}",
            "scaled_dot_product_attention",
            {**data, "attn_mask": mask},
            torch=_attention,
            since=18,
        )


def _linear(weight, bias):
    def run(x):
        import torch

        return torch.nn.functional.linear(x, x.new_tensor(weight), None if bias is None else x.new_tensor(bias))

    return run


CASES = list(_cases())


@pytest.mark.parametrize(("case", "opset", "half"), expand(CASES))
def test_linear(judge, case, opset, half):
    judge(CASES, case, opset, half)
