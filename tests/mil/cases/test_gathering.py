"""Gather and scatter, repeated indices included."""

import numpy as np
import pytest
from mil_judging import Case, expand, floats, ints


def _cases():
    import torch

    x = floats(4, 5, 6)
    scalar, vector, matrix = np.int32(2), np.int32([3, 0, 0, 1]), np.int32([[0, 3], [2, 1]])
    for axis in (0, 1, 2, -1):
        for name, indices in (("scalar", scalar), ("vector", vector), ("matrix", matrix)):
            yield Case(
                f"gather-{axis}-{name}",
                "gather",
                {"x": x, "indices": indices},
                {"axis": np.int32(axis)},
                lambda x, i, a=axis: _gather(x, i, a),
            )
    data = {"x": x, "indices": np.int32([-1, 0, -4])}
    yield Case("gather-negative", "gather", data, {"axis": np.int32(0)}, lambda x, i: x[i.long()], until=16)
    yield Case("gather-int", "gather", {"x": ints(9), "indices": vector}, torch=lambda x, i: x[i.long()])
    batched = {"x": x, "indices": np.int32([[0, 4], [1, 1], [2, 0], [3, 3]])}
    constants = {"axis": np.int32(1), "batch_dims": np.int32(1)}
    yield Case(
        "gather-batch",
        "gather",
        batched,
        constants,
        lambda x, i: torch.stack([x[b][i[b].long()] for b in range(4)]),
        since=16,
    )
    constants = {"axis": np.int32(2), "batch_dims": np.int32(1)}
    yield Case(
        "gather-batch-later-axis",
        "gather",
        batched,
        constants,
        lambda x, i: torch.stack([x[b][:, i[b].long()] for b in range(4)]),
        since=16,
    )
    for dtype in (np.int8, np.uint8, np.int16, np.uint16):
        data = {"x": x, "indices": vector.astype(dtype)}
        yield Case(f"gather-{dtype.__name__}", "gather", data, torch=lambda x, i: x[i.long()], since=17)
    for axis in (0, 1, -1):
        shape = [2 if a == axis % 3 else s for a, s in enumerate(x.shape)]
        indices = ints(*shape, low=0, high=4)
        data = {"x": x, "indices": indices}
        yield Case(
            f"gather_along_axis-{axis}",
            "gather_along_axis",
            data,
            {"axis": np.int32(axis)},
            lambda x, i, a=axis: x.gather(a, i.long()),
        )
    for number, indices in enumerate([[[0], [3]], [[0, 1], [3, 4]], [[[0, 1, 2], [3, 4, 5]]]]):
        yield Case(
            f"gather_nd-{number}",
            "gather_nd",
            {"x": x, "indices": np.int32(indices)},
            torch=lambda x, i: x[tuple(i.long().unbind(-1))],
        )
    data = {"x": x, "indices": np.int32([[[0], [3]], [[1], [1]], [[4], [2]], [[0], [0]]])}
    yield Case(
        "gather_nd-batch",
        "gather_nd",
        data,
        {"batch_dims": np.int32(1)},
        lambda x, i: torch.stack([x[b][i[b, :, 0].long()] for b in range(4)]),
        since=16,
    )
    yield from _scatters()


def _gather(x, indices, axis):
    axis %= x.ndim
    taken = x.index_select(axis, indices.long().reshape(-1))
    return taken.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


MODES = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _scatters():
    data = floats(4, 5, 6, seed=1)
    unique, repeated = np.int32([3, 0]), np.int32([2, 2, 0])
    for axis in (0, 1, -1):
        for mode in ("update", "add", "sub", "mul", "div", "max", "min"):
            indices = unique if mode == "update" else repeated
            shape = [len(indices) if a == axis % 3 else s for a, s in enumerate(data.shape)]
            inputs = {"data": data, "indices": indices, "updates": floats(*shape, low=0.5, high=2, seed=2)}
            constants = {"axis": np.int32(axis), "mode": mode}
            yield Case(
                f"scatter-{axis}-{mode}",
                "scatter",
                inputs,
                constants,
                lambda d, i, u, a=axis, m=mode: _scatter(d, i, u, a, m),
                tolerance=2e-5,
            )
            along = np.argsort(floats(*shape, seed=3), axis).astype(np.int32)
            inputs = {"data": data, "indices": along, "updates": floats(*shape, low=0.5, high=2, seed=2)}
            # The folder of scatter_along_axis puts the updates in place whatever the mode says.
            record = (
                {} if mode == "update" else {"differs": "the folder ignores the mode and overwrites", "trust": "torch"}
            )
            yield Case(
                f"scatter_along_axis-{axis}-{mode}",
                "scatter_along_axis",
                inputs,
                constants,
                lambda d, i, u, a=axis, m=mode: _along(d, i, u, a, m),
                tolerance=2e-5,
                **record,
            )
    inputs = {"data": data, "indices": np.int32([[0, 1], [3, 4], [0, 1]]), "updates": floats(3, 6, seed=4)}
    yield Case(
        "scatter_nd-add", "scatter_nd", inputs, {"mode": "add"}, lambda d, i, u: _nd(d, i, u, True), tolerance=2e-5
    )
    inputs = {"data": data, "indices": np.int32([[0, 1], [3, 4], [2, 2]]), "updates": floats(3, 6, seed=4)}
    yield Case("scatter_nd-update", "scatter_nd", inputs, {"mode": "update"}, lambda d, i, u: _nd(d, i, u, False))
    yield Case("scatter_nd-default", "scatter_nd", inputs, torch=lambda d, i, u: _nd(d, i, u, True))
    plain = {"data": ints(5), "indices": np.int32([1, 3]), "updates": np.int32([10, 20])}
    yield Case("scatter-int-default", "scatter", plain, torch=lambda d, i, u: d.index_add(0, i.long(), u))


def _scatter(data, indices, updates, axis, mode):
    indices = indices.long()
    if mode == "update":
        return data.index_copy(axis, indices, updates)
    if mode == "sub":
        return data.index_add(axis, indices, -updates)
    if mode == "div":
        return data.index_reduce(axis, indices, 1 / updates, "prod")
    if mode == "add":
        return data.index_add(axis, indices, updates)
    return data.index_reduce(axis, indices, updates, MODES[mode])


def _along(data, indices, updates, axis, mode):
    indices = indices.long()
    if mode == "update":
        return data.scatter(axis, indices, updates)
    if mode == "sub":
        return data.scatter_add(axis, indices, -updates)
    if mode == "div":
        return data.scatter_reduce(axis, indices, 1 / updates, "prod")
    return data.scatter_reduce(axis, indices, updates, MODES[mode])


def _nd(data, indices, updates, accumulate):
    return data.index_put(tuple(indices.long().unbind(-1)), updates, accumulate=accumulate)


CASES = list(_cases())


@pytest.mark.parametrize(("case", "opset", "half"), expand(CASES))
def test_gathering(judge, case, opset, half):
    judge(CASES, case, opset, half)
