"""Figures as a person reads them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core.types import BudgetName
from exporter.report.units import needed


@pytest.mark.parametrize(
    ("budget", "value", "limit", "words"),
    [
        ("size_bytes", 3_251_342, 3_000_000, "3.25 MB of 3.00 MB"),
        ("size_bytes", 3_000_001, 3_000_000, "3,000,001 of 3,000,000 bytes"),
        ("memory_bytes", 3_000_000, 3_000_000, "3.00 MB of 3.00 MB"),
        ("memory_bytes", None, 700_000, "- of 700.00 kB"),
        ("latency_us", 1234.5, 250, "1,234.5 us of 250.0 us"),
        ("latency_us", 250.01, 250, "250.01 of 250 us"),
        ("flops_per_token", 120_500, 1e5, "120.500 k of 100.000 k FLOPs per click"),
        ("flops_per_token", 100_000.2, 1e5, "100,000.2 of 100,000 FLOPs per click"),
        ("parameters", 812_345, 800_000, "812.345 k of 800.000 k"),
    ],
)
def test_what_is_needed_of_a_budget(budget: BudgetName, value: float | None, limit: float, words: str) -> None:
    assert needed(budget, value, limit) == words


@given(value=st.integers(1, 10**12), more=st.integers(1, 10**6), budget=st.sampled_from(["size_bytes", "parameters"]))
def test_what_is_over_a_budget_never_looks_like_it(value: int, more: int, budget: BudgetName) -> None:
    first, _, second = needed(budget, value + more, value).partition(" of ")
    assert first.split()[0] != second.split()[0] or first.split()[1:] != second.split()[1:]
