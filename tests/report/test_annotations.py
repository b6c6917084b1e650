"""Annotations, read back as GitHub's runner reads its workflow commands."""

import re
from dataclasses import replace
from typing import Any

import drawn
import pytest
from hypothesis import given, settings

from exporter.artifact.results import Checked, Report
from exporter.core.checks import LimitCheck
from exporter.core.sections import Budget
from exporter.report.annotations import annotations
from safeio.errors import printable

SIZE = LimitCheck(
    figure="size",
    unit="B",
    limit="+2%",
    line=7,
    baseline=3_250_000,
    value=3_347_500,
    change=0.03,
    outcome="broken",
)
HOSTILE = "a,line=1::\r\n::add-mask::x%0A\u2028##[add-path]/tmp\x1b[2J<script>"


def checked(*limits: LimitCheck, verdict: Any = "pass", name: str = "scn/rerank onnx", **more: Any) -> Checked:
    manifest = drawn.manifest(drawn.words((more.pop("reason", "plain"),)), verdict)
    return Checked(name=name, place="here", manifest=manifest, limits=limits, line=3, **more)


def read(command: str) -> tuple[str, dict[str, str], str]:
    """Return name, properties and data of a command by the runner's own rules: ActionCommand.TryParseV2."""
    found = re.fullmatch(r"::([^ :]+)(?: ([^:]*))?::([^\r\n]*)", command)
    assert found, command
    pairs = [pair.split("=", 1) for pair in (found[2] or "").split(",") if pair]
    properties = {name: _plain(value, {"%0D": "\r", "%0A": "\n", "%3A": ":", "%2C": ","}) for name, value in pairs}
    return found[1], properties, _plain(found[3], {"%0D": "\r", "%0A": "\n"})


def _plain(text: str, escapes: dict[str, str]) -> str:
    for escape, sign in escapes.items():
        text = text.replace(escape, sign)
    return text.replace("%25", "%")


def test_a_broken_limit_is_an_error_at_its_line() -> None:
    report = Report(artifacts=(checked(SIZE, replace(SIZE, outcome="kept", line=8)),), config="cocorr.yaml")
    (line,) = annotations(report)
    assert read(line) == (
        "error",
        {"file": "cocorr.yaml", "line": "7", "title": "scn/rerank onnx: size broken"},
        "size is 3,347,500 B, in the baseline 3,250,000 B (+3 %); limit +2%, broken",
    )


def test_each_outcome_has_its_kind() -> None:
    unknown = replace(SIZE, figure="latency", outcome="unknown", value=None, change=None, line=None, reason="no qemu")
    report = Report(
        artifacts=(
            checked(unknown),
            checked(verdict="unverified", reason="no runtime"),
            checked(verdict="fail", reason="scores differ"),
            Checked(name="scn onnx", place=None, manifest=None, error="refused", line=9),
            checked(replace(SIZE, outcome="kept")),
        ),
        config="cocorr.yaml",
    )
    rows = [(kind, properties["line"], data) for kind, properties, data in map(read, annotations(report))]
    assert rows == [
        ("error", "3", "scores differ"),
        ("error", "9", "refused"),
        ("warning", "3", "no runtime"),
        ("notice", "3", "latency is -, in the baseline 3,250,000 B; limit +2%, unknown: no qemu"),
    ]


def test_budgets_of_the_profile_are_limits() -> None:
    budgets = (Budget("size_bytes", 3e6, 4e6, False, None), Budget("latency_us", 90.0, None, None, "too noisy"))
    row = checked()
    assert row.manifest is not None
    said = annotations(Report(artifacts=(replace(row, manifest=replace(row.manifest, budgets=budgets)),), config="c"))
    assert [(kind, properties["title"]) for kind, properties, _ in map(read, said)] == [
        ("error", "scn/rerank onnx: budget size_bytes broken"),
        ("warning", "scn/rerank onnx: budget latency_us unknown"),
    ]


def test_what_the_baseline_alone_has_is_an_error() -> None:
    (line,) = annotations(Report(artifacts=(), config="cocorr.yaml", lock="cocorr.lock.json", gone=("scn onnx",)))
    kind, properties, data = read(line)
    assert (kind, properties) == ("error", {"file": "cocorr.lock.json", "title": "scn onnx: gone"})
    assert data.startswith("scn onnx is in the baseline and was not checked")


@settings(deadline=None, max_examples=60)
@given(drawn.outcomes())
def test_what_keeps_a_report_from_passing_is_annotated(report: Report) -> None:
    kinds = {kind for kind, _, _ in map(read, annotations(report))}
    assert ("error" in kinds) == (report.exit_code == 1)
    assert report.exit_code != 3 or "warning" in kinds


@settings(deadline=None, max_examples=60)
@given(drawn.texts())
def test_any_name_stays_inside_its_command(name: str) -> None:
    for line in annotations(drawn.report(drawn.words((name,)))):
        assert line.isprintable() and read(line)[1].keys() <= {"file", "line", "title"}


def test_names_of_strangers_stay_inside_their_command() -> None:
    limit = replace(SIZE, figure=HOSTILE, limit=HOSTILE, unit=HOSTILE, baseline=HOSTILE, value=HOSTILE, reason=HOSTILE)
    artifacts = (checked(limit, name=HOSTILE), Checked(name=HOSTILE, place=None, manifest=None, error=HOSTILE))
    said = annotations(Report(artifacts=artifacts, config=HOSTILE))
    assert len(said) == 2
    for line in said:
        kind, properties, data = read(line)
        assert (
            kind == "error"
            and properties["file"] == printable(HOSTILE)
            and properties.keys() <= {"file", "line", "title"}
        )
        assert properties.get("line") in ("7", None)
        assert (line.isprintable(), data.count("\n"), properties["title"].count("\n")) == (True, 0, 0)


@pytest.mark.parametrize("count", [10, 11, 25])
def test_what_github_would_drop_is_counted(count: int) -> None:
    said = annotations(Report(artifacts=(checked(*[SIZE] * count, verdict="unverified"),), config="cocorr.yaml"))
    errors = [data for kind, _, data in map(read, said) if kind == "error"]
    assert (len(errors), len(said)) == (10, 11)
    assert errors[-1].startswith("size is" if count == 10 else f"{count - 9} more are in the report")
