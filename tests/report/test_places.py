"""A time that was taken in a browser says so wherever it is shown, beside another, or held to a limit."""

from dataclasses import replace

import drawn
import pytest

from exporter.artifact.manifest import Manifest
from exporter.artifact.results import Checked
from exporter.core.sections import Comparison, Latency
from exporter.gate import judge, limits
from exporter.gate.judge import Timed
from exporter.pipeline import budgets
from exporter.report.notes import comparison_lines, notes
from exporter.report.rows import shown_rows
from exporter.report.standing import limit_sentence, limits_of

PAGE = "onnxruntime-web 1.30.0 (WebAssembly) in Firefox 153 on Linux"


def timed_over(connection: str, allowed_us: float = 200.0) -> Manifest:
    """Return an artifact whose call took 250 us over a connection, with what its profile allows."""
    made = drawn.manifest(drawn.words(("word",)))
    made = replace(made, latency=Latency(connection=connection, iterations=200, p50_us=250.0))
    return replace(made, budgets=budgets.section({"latency_us": allowed_us, "size_bytes": 10**9}, made))


def test_a_time_of_a_browser_stands_beside_one_of_the_host_with_its_place() -> None:
    host, page = timed_over("host"), timed_over("browser")
    rows = dict(shown_rows([host, page]))
    assert rows["latency p50"] == ["250 us", "250 us"]
    assert rows["  timed over"] == ["host", "browser"]
    assert dict(shown_rows([page]))["  timed over"] == ["browser"]
    assert "  timed over" not in dict(shown_rows([host, host]))


@pytest.mark.parametrize(("allowed_us", "outcome"), [(200.0, "over budget"), (300.0, "within budget")])
def test_a_budget_says_where_the_time_was_taken(allowed_us: float, outcome: str) -> None:
    page, host = timed_over("browser", allowed_us), timed_over("host", allowed_us)
    line = f"latency_us: 250.0 us of {allowed_us:.1f} us (timed over browser), {outcome}"
    assert line in notes(page)
    assert line.replace(" (timed over browser)", "") in notes(host)
    assert [row.reason for row in page.budgets or () if row.budget == "size_bytes"] == [None]
    (limit,) = [
        one
        for one in limits_of(Checked(name="a", place="a", manifest=page, limits=()))
        if one.figure == "budget latency_us"
    ]
    assert "timed over browser" in limit_sentence(limit)
    if outcome == "over budget":
        assert budgets.explain(page.budgets or ()) == (
            "over budget: latency_us 250.0 us of 200.0 us (timed over browser)"
        )


def test_a_comparison_says_where_both_were_called() -> None:
    compared = Comparison(
        first="baseline",
        second="now",
        executed_on=(PAGE, PAGE),
        p50_us=(100.0, 130.0),
        ratio=1.3,
        low=1.2,
        high=1.4,
        reason=None,
    )
    assert f"called on {PAGE}" in comparison_lines(compared)
    (limit,) = limits.parse("latency", "no slower", 1)
    check = judge._latency(limit, Timed(compared, None))
    assert (check.outcome, PAGE in str(check.reason)) == ("broken", True)
