"""The line through figures by length, judged by numpy's own least squares."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.measure.growth import LENGTHS, line, steps

figures = st.floats(-1e9, 1e9, allow_nan=False)


@given(st.dictionaries(st.integers(1, 200), figures, min_size=2, max_size=8))
def test_it_is_the_least_squares_line(points: dict[int, float]) -> None:
    fitted = line(points)
    lengths, values = np.array(list(points), float), np.array(list(points.values()))
    system = np.stack([lengths, np.ones_like(lengths)], 1)
    slope, start = np.linalg.lstsq(system, values, rcond=None)[0]
    scale = max(1.0, float(np.abs(values).max()))
    assert fitted.per_token == pytest.approx(slope, abs=1e-7 * scale)
    assert fitted.at_zero == pytest.approx(start, abs=1e-5 * scale)
    residuals = values - (slope * lengths + start)
    assert fitted.largest_residual == pytest.approx(np.abs(residuals).max(), abs=1e-5 * scale)
    if fitted.r_squared is not None:
        assert fitted.r_squared <= 1 + 1e-9


def test_a_line_has_equal_steps_and_a_parabola_rising_ones() -> None:
    straight, bent = [3 * n + 5 for n in LENGTHS], [n * n for n in LENGTHS]
    assert steps(straight, LENGTHS) == [3, 3, 3]
    assert steps(bent, LENGTHS) == [25, 35, 45]
    fitted = line(dict(zip(LENGTHS, straight, strict=True)))
    assert (fitted.per_token, fitted.at_zero, fitted.r_squared) == pytest.approx((3, 5, 1))
    assert line(dict(zip(LENGTHS, bent, strict=True))).per_token == pytest.approx(35)
    assert line({10: 4.0, 20: 4.0}).r_squared is None


def test_one_length_is_no_growth() -> None:
    with pytest.raises(ValueError, match="at least two lengths"):
        line({10: 1.0})
