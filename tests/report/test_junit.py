"""JUnit's XML: what a CI server makes of it, whatever names hold."""

from pathlib import Path
from xml.etree import ElementTree

import drawn
import pytest
import xmlschema
from hypothesis import given, settings

from exporter.artifact.results import Report
from exporter.report.junit import junit
from exporter.report.standing import limits_of
from safeio.errors import printable

SCHEMA = xmlschema.XMLSchema(Path(__file__).with_name("junit.xsd"))


@settings(deadline=None, max_examples=60)
@given(drawn.outcomes())
def test_what_keeps_a_report_from_passing_is_a_failure_or_an_error(report: Report) -> None:
    text = junit(report)
    SCHEMA.validate(text)
    root = ElementTree.fromstring(text)
    failures, errors = int(root.get("failures", "")), int(root.get("errors", ""))
    assert (failures > 0) == (report.exit_code == 1)
    assert (errors > 0) == any(checked.exit_code == 3 for checked in report.artifacts) or failures > 0
    assert (failures + errors > 0) == (report.exit_code != 0)
    for tag, total in (("failure", failures), ("error", errors), ("testcase", int(root.get("tests", "")))):
        assert len(root.findall(f".//{tag}")) == total
        attribute = {"failure": "failures", "error": "errors", "testcase": "tests"}[tag]
        assert [len(suite.findall(f".//{tag}")) for suite in root] == [int(suite.get(attribute, "")) for suite in root]
    assert [len(suite.findall(".//skipped")) for suite in root] == [int(suite.get("skipped", "")) for suite in root]
    cases = sum(1 + len(limits_of(checked)) for checked in report.artifacts)
    assert len(root.findall(".//testcase")) == cases + len(report.gone)


@settings(deadline=None, max_examples=60)
@given(drawn.texts())
def test_a_name_is_a_name(name: str) -> None:
    report = drawn.report(drawn.words((name,)))
    text = junit(report)
    text.encode()
    SCHEMA.validate(text)
    shown = printable(name)
    suites = ElementTree.fromstring(text).findall("testsuite")
    assert [suite.get("name") for suite in suites] == [shown] * 3 + ["baseline"]
    assert suites[2].find("testcase/failure").get("message") == f"{shown}:31: {shown}"
    assert suites[0].findall("testcase")[1].get("name") == f"{shown}: {shown}"


@pytest.mark.parametrize(
    ("at", "name", "tag", "says"),
    [
        (1, "parity", "error", "unverified: why"),
        (2, "parity", "failure", "why:31: why"),
        (0, "why: why", "failure", "why:12: why is 3,354,464 B, in the baseline 3,256,761 B (+3 %); limit why, broken"),
        (1, "budget size_bytes: at most 3,000,000 B", "failure", "budget size_bytes is 3,256,761 B"),
        (1, "budget latency_us: at most 5.0 us", "error", "budget latency_us is -; limit at most 5.0 us, unknown: why"),
    ],
)
def test_a_case_says_what_is_wrong(at: int, name: str, tag: str, says: str) -> None:
    suite = ElementTree.fromstring(junit(drawn.report(drawn.words(("why",)))))[at]
    said = [case.find(tag) for case in suite.findall("testcase") if case.get("name") == name]
    assert any(element is not None and element.get("message", "").startswith(says) for element in said)


def test_the_schema_refuses_what_readers_do_not_take() -> None:
    good = junit(drawn.report(drawn.words(("x",))))
    for change in (('classname="x" ', ""), ("failure", "broken"), (' type="no artifact"', ""), ('tests="', 'tests="x')):
        assert change[0] in good
        assert not SCHEMA.is_valid(good.replace(*change)), change
