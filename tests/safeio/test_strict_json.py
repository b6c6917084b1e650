"""JSON from strangers: what is none, or would become none when it is written again, is refused."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safeio import strict_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_what_json_can_say_comes_back(value: object) -> None:
    assert strict_json.loads(json.dumps(value)) == value


@pytest.mark.parametrize("text", ["1e999", "-1e999", "NaN", "Infinity", "-Infinity", "[" * 100_000, "", b"\xff"])
@pytest.mark.parametrize("around", ["{}", '{{"a": [{}]}}'])
def test_what_is_no_json_is_one_kind_of_error(text: str | bytes, around: str) -> None:
    data = text if isinstance(text, bytes) else around.format(text).replace('"a": []', '"a": [,]')
    with pytest.raises(ValueError):
        strict_json.loads(data)


def test_the_largest_number_is_one() -> None:
    assert strict_json.loads("1.7976931348623157e308") == math.nextafter(math.inf, 0)
