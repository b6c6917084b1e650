"""Weights packages in int8: what comes back of them, what both sides of the contract write, and what is refused."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from exporter.artifact import weights
from exporter.core.precision import weights_of
from exporter.core.types import ExternalWeights
from models.forward_ofa import weights_package
from models.forward_ofa.assembler import block_weight_shapes
from models.forward_ofa.supernet import Supernet

METADATA = {"format": weights.FORMAT, "backbone": "sasrec", "structure": "1"}
SHAPES = {"weight": (32, 16), "bias": (32,), "small": (2, 8)}
NUMBERS = st.floats(-(2.0**96), 2.0**96, width=32)


def _tensors(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def _package() -> weights.Package:
    return weights.pack(ExternalWeights(_tensors(), METADATA), "int8")


def _read(data: bytes) -> weights.Package:
    return weights.from_bytes(data, SHAPES, METADATA, "it")


@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 9)), elements=NUMBERS))
def test_each_number_comes_back_within_half_a_step_of_its_row(tensor: np.ndarray) -> None:
    steps, scales = weights.in_int8(tensor)
    assert (steps.dtype, scales.dtype, scales.shape) == (np.int8, np.float32, (len(tensor), 1))
    error = np.abs(steps * scales.astype(np.float64) - tensor)
    assert (error <= 0.501 * scales).all()
    empty = ~tensor.any(axis=1)
    assert (scales[empty] == 1).all() and not steps[empty].any()


def test_a_package_comes_back_as_it_was_stored() -> None:
    package = _package()
    data = package.to_bytes()
    assert set(load(data)) == {"weight", "weight.scale", "bias", "small"}  # a vector, and one of 16 numbers, stay
    again = _read(data)
    assert (again.stored, again.in_form("int8") is again) == ("int8", True)
    assert all(np.array_equal(again.entries[name], entry) for name, entry in package.entries.items())
    exact = _tensors()
    for name, tensor in again.tensors.items():
        assert np.array_equal(tensor, exact[name]) == (name != "weight")
        assert np.abs(tensor - exact[name]).max() <= np.abs(exact[name]).max() / 253
    in_fp32 = again.in_form("fp32")
    assert all(np.array_equal(in_fp32.entries[name], again.tensors[name]) for name in SHAPES)
    assert _read(in_fp32.to_bytes()).stored == "fp32"


def test_other_steps_than_ours_stay_as_they_came() -> None:
    """A row need not use all 127 steps: to quantise it once more would lose some."""
    entries = dict(_package().entries)
    entries["weight"] = (entries["weight"] // 5).astype(np.int8)
    data = save(entries, {**METADATA, "stored": "int8"})
    assert _read(data).in_form("int8").entries["weight"].tobytes() == entries["weight"].tobytes()


def test_the_cost_and_the_bytes_of_what_is_stored() -> None:
    exact = {name: np.stack([_tensors(seed)[name] for seed in range(3)]) for name in SHAPES}
    restored = {name: weights.through_int8(array) for name, array in exact.items()}
    (cost,) = weights.costs(exact, restored)
    assert (cost.name, cost.rows, cost.width, cost.fp32_bytes, cost.bytes) == ("weight", 32, 16, 2048, 512 + 128)
    error = np.linalg.norm(restored["weight"] - exact["weight"]) / np.linalg.norm(exact["weight"])
    assert cost.relative_rmse == pytest.approx(error, rel=1e-5)
    entries = _package().entries.values()
    assert sum(weights.stored_bytes(shape, "int8") for shape in SHAPES.values()) == sum(e.nbytes for e in entries)


@pytest.mark.parametrize("backbone", ["sasrec", "nextitnet"])
def test_the_cloud_writes_what_a_device_would(backbone: str) -> None:
    torch.manual_seed(0)
    made = Supernet(vocabulary=9, dimension=64, blocks=2, history_length=4, backbone=backbone).backbone
    tensors = {name: torch.randn(shape) for name, shape in block_weight_shapes(made, (1, 1)).items()}
    next(iter(tensors.values()))[3] = 0
    data, in_fp32 = (weights_package.to_bytes(made, (1, 1), tensors, stored) for stored in ("int8", "fp32"))
    assert 0.25 < len(data) / len(in_fp32) < 0.3
    metadata = {**METADATA, "backbone": backbone, "structure": "11"}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    own = weights.pack(ExternalWeights({name: tensor.numpy() for name, tensor in tensors.items()}, metadata), "int8")
    sent = weights.from_bytes(data, shapes, metadata, "it").entries
    assert sent.keys() == own.entries.keys()
    assert all(np.array_equal(sent[name], entry) for name, entry in own.entries.items())


def _with(**entries: np.ndarray | None) -> bytes:
    changed = {**_package().entries, **{name.replace("__", "."): entry for name, entry in entries.items()}}
    return save({name: entry for name, entry in changed.items() if entry is not None}, {**METADATA, "stored": "int8"})


def _scale(number: float) -> np.ndarray:
    scales = np.ones((32, 1), np.float32)
    scales[5] = number
    return scales


def _renamed(old: bytes, new: bytes) -> bytes:
    """Return a package in fp32 with another word in its header."""
    data = save(_tensors(), METADATA)
    end = 8 + int.from_bytes(data[:8], "little")
    header = data[8:end].replace(old, new)
    assert header != data[8:end]
    return len(header).to_bytes(8, "little") + header + data[end:]


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (lambda: _with(weight__scale=None), "weight.scale is missing"),
        (lambda: _with(weight__scale=np.ones((32,), np.float32)), "weight.scale is float32 [32] where float32 [32, 1]"),
        (lambda: _with(weight__scale=np.ones((1, 16), np.float32)), "where float32 [32, 1] is expected"),
        (lambda: _with(weight__scale=np.ones((32, 1), np.float16)), "weight.scale is float16"),
        *(
            (lambda number=number: _with(weight__scale=_scale(number)), "no finite numbers above 0")
            for number in (np.nan, np.inf, 0.0, -1.0)
        ),
        (lambda: _with(weight__scale=_scale(3e38)), "weight has NaN or infinite values"),
        (lambda: _with(weight=_tensors()["weight"]), "weight.scale is not part of it"),
        (lambda: _with(weight=np.zeros((16, 32), np.int8)), "weight is int8 [16, 32] where int8 [32, 16] is expected"),
        (
            lambda: _with(weight=np.zeros((32, 16), np.uint8)),
            "in 'U8', where a package has F32, F16 or I8; ask for one",
        ),
        (lambda: _renamed(b'"F32"', b'"F8_E4M3"'), "in 'F8_E4M3', where a package has F32, F16 or I8"),
        (lambda: _renamed(b'"format":', b'"format":"1","format":'), "'format' stands twice"),
        (lambda: _with(bias=np.zeros(32, np.int8)), "bias.scale is missing"),
        (lambda: _with(small=np.full((2, 8), np.nan, np.float32)), "small has NaN"),
        (lambda: save(_package().entries, METADATA), "weight is int8 [32, 16] where float32 [32, 16] is expected"),
        (lambda: save(_tensors(), {**METADATA, "stored": "int2"}), "is stored in 'int2', not in fp32, fp16 or int8"),
        (lambda: save(_tensors(), {**METADATA, "zipped": "yes"}), "unknown metadata, 'zipped'"),
    ],
)
def test_what_is_no_package(data, part: str) -> None:
    with pytest.raises(weights.PackageError) as caught:
        _read(data())
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_numbers_that_int8_cannot_hold() -> None:
    largest = np.finfo(np.float32).max  # 127 steps round to more than that
    for number in (np.nan, np.inf, largest):
        with pytest.raises(weights.PackageError, match="int8 cannot hold"):
            weights.pack(ExternalWeights({"weight": np.full((32, 16), number, np.float32)}, METADATA), "int8")
    assert weights.pack(ExternalWeights({"weight": np.full((32, 16), 3e38, np.float32)}, METADATA), "int8")


def test_which_schemes_have_packages_in_int8() -> None:
    in_bytes = {"int8", "int4", "int8+fp16", "int4+fp16"}
    for precision in ("fp32", "fp16", "fp16+fp32", *in_bytes):
        assert weights_of(precision) == ("int8" if precision in in_bytes else "fp32")
