"""Where an error comes from: shares of constants, values that are found to be the same, and how far they are off."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.core.explanation import GraphValue, TracedValue
from exporter.core.types import Constant
from exporter.parity.locate import alone, change, foreign, off_values, share
from exporter.parity.matching import match, relative_rms
from exporter.parity.verdict import FP16_UNIT_ROUNDOFF, FP32_MAX_ABS_ERROR, ROUNDINGS

unhurried = settings(deadline=None)  # two cores are shared with others


def known(name: str, numbers: np.ndarray, *reads: str, kind: str = "add") -> GraphValue:
    return GraphValue(name, f"module.{name}", kind, kind, reads, numbers)


def traced(name: str, numbers: np.ndarray, origin: str | None = None, kind: str = "add") -> TracedValue:
    return TracedValue(name, kind.upper(), kind, origin, numbers)


def drawn(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(4, *shape)).astype(np.float32)


@unhurried
@given(st.integers(1, 8), st.integers(0, 2**31))
def test_shares_of_what_adds_up_are_one_in_all(parts: int, seed: int) -> None:
    errors = [{"scores": array} for array in np.random.default_rng(seed).normal(size=(parts, 3, 1, 20))]
    together = {"scores": sum(error["scores"] for error in errors)}
    shares = [share(error, together) for error in errors]
    assert sum(shares) == pytest.approx(1, abs=1e-9)
    assert share(together, together) == pytest.approx(1)
    assert share(errors[0], {"scores": np.zeros((3, 1, 20))}) is None


def test_what_a_stored_form_changes() -> None:
    constant = np.array([1.0, 1e6, -np.inf], np.float32)
    half = np.array([1.0, np.inf, -np.inf], np.float32)
    assert change(constant, half) == (None, 1)  # an infinity that was one before is none of its doing
    assert change(constant, np.array([0.75, 1e6, -np.inf], np.float32)) == (0.25, 0)


@unhurried
@given(st.permutations(range(9)), st.integers(0, 2**31))
def test_values_without_names_are_found_by_their_numbers(order: list[int], seed: int) -> None:
    """Rounding to 16 bits leaves them nearer to themselves than to any other, in whatever order they come."""
    arrays = [drawn(seed + at, 5 + at % 3) for at in range(9)]
    values = [known(f"n{at}", array) for at, array in enumerate(arrays)]
    found = match(values, [traced(f"t{at}", arrays[at].astype(np.float16)[:, None]) for at in order], {})
    assert [(one.known, one.by) for one in found] == [(at, "numbers") for at in order]


def test_names_come_first_and_what_is_left_keeps_its_order() -> None:
    """After a planted error numbers tell nothing: a name does, or the place between others with kind and shape."""
    a, b, c, d = (drawn(at, 6) for at in range(4))
    values = [known("a", a), known("b", b, "a", kind="linear"), known("c", c, "b", kind="tanh"), known("d", d, "c")]
    wrong = [traced("t0", a), traced("t1", b + 9, kind="linear"), traced("t2", c + 9, kind="tanh")]
    wrong += [traced("extra", drawn(9, 7), kind="tanh"), traced("scores", d + 9, "scores")]
    found = match(values, wrong, {"scores": "d"})
    assert [(one.traced, one.known, one.by) for one in found] == [
        (0, 0, "numbers"),
        (1, 1, "order"),
        (2, 2, "order"),
        (4, 3, "name"),
    ]
    own, others = alone(values, wrong, found)
    assert ([one.name for one in own], others) == (["extra"], ())
    # Where what is computed of it is right, a value that is far off was not that one.
    right = [traced("t0", a), traced("t1", b + 9, kind="linear"), traced("t2", c, kind="tanh")]
    assert [(one.traced, one.known, one.by) for one in match(values, right, {})] == [
        (0, 0, "numbers"),
        (2, 2, "numbers"),
    ]
    misnamed = match(values, [traced("b", drawn(5, 2, 3), "b")], {})
    assert misnamed == []  # a name with another shape is none


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "int4+fp16"])
def test_the_first_beyond_its_bound(precision: str) -> None:
    """The rule is that of the outputs, and growth is by the worst of what a value is computed from."""
    a, b = drawn(0, 50), drawn(1, 50)
    scale = float(np.abs(a).max())
    bound = FP32_MAX_ABS_ERROR if not precision.endswith("fp16") else ROUNDINGS**0.5 * FP16_UNIT_ROUNDOFF * scale
    within, beyond = a.copy(), b.copy()
    within[0, 0] += 0.9 * bound
    beyond[0, 0] += 100 * bound
    values = [known("a", a), known("hidden", drawn(2, 3), "a"), known("b", b, "hidden")]
    given_values = [traced("A", within, "a"), traced("B", beyond, "b")]
    rows = off_values(values, given_values, match(values, given_values, {}), precision)
    assert [(row.node, row.is_beyond, row.not_finite) for row in rows] == [("a", False, 0), ("b", True, 0)]
    assert rows[0].bound == pytest.approx(bound)
    assert rows[0].max_abs_error == pytest.approx(0.9 * bound, rel=1e-2)
    assert rows[0].growth is None
    assert rows[1].growth == pytest.approx(relative_rms(b, beyond) / relative_rms(a, within), rel=1e-6)


def test_what_overflows_is_beyond_and_a_mask_is_not() -> None:
    a = drawn(0, 4)
    a[:, 0] = -np.inf
    lost, masked = a.copy(), np.where(np.isinf(a), np.float32(-3e38), a)
    lost[1, 2] = np.inf
    for numbers, count in ((lost, 1), (masked, 0)):
        given_values = [traced("A", numbers, "a")]
        (row,) = off_values([known("a", a)], given_values, match([known("a", a)], given_values, {}), "fp16")
        assert (row.not_finite, row.is_beyond, row.max_abs_error) == (count, count > 0, None if count else 0.0)


def test_a_constant_that_is_not_the_program_s() -> None:
    weight, bias, other = drawn(0, 3)[0], drawn(1, 5)[0], drawn(2, 5)[0]

    def stored(name: str, array: np.ndarray) -> Constant:
        return Constant(name, array.shape, array.nbytes, hashlib.sha256(array.tobytes()).hexdigest(), name)

    anew = [stored("w", weight), stored("b", bias.astype(np.float16))]
    own = [anew[0], stored("x", other.astype(np.float16))]
    (stranger,) = foreign(own, anew, {"first.weight": weight, "first.bias": bias})
    assert (stranger.name, stranger.likely) == ("x", "first.bias")
    assert foreign(anew, anew, {}) == ()
