"""A report as JUnit's XML, which CI servers draw their own pages from.

A suite for each artifact, in it a case for parity and one for each limit. `failure` is what is wrong, `error` what
could not be verified, which is no pass either, and `skipped` a limit that nothing here could judge. The format has no
word for a time that was not measured: it is 0.
"""

from collections.abc import Iterable
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from exporter.artifact.results import Checked, Report
from exporter.report.rows import shown_rows, whole_label
from exporter.report.standing import limit_sentence, limits_of
from safeio.errors import printable

_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>'  # ElementTree would name the locale's encoding
_COUNTED = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def junit(report: Report) -> str:
    """Return the XML of a report; what XML cannot have of a name is escaped so that it can be read."""
    root = Element("testsuites", name="cocorr-export")
    for checked in report.artifacts:
        suite = SubElement(root, "testsuite", name=printable(checked.name))
        _close(suite, _cases(checked, report.config))
        if checked.manifest is not None:
            figures = [f"{whole_label(label)}: {cell}" for label, (cell,) in shown_rows([checked.manifest])]
            SubElement(suite, "system-out").text = "\n".join(map(printable, figures))
    if report.gone:
        _close(SubElement(root, "testsuite", name="baseline"), map(_gone, report.gone))
    for name in ("tests", "failures", "errors"):
        root.set(name, str(sum(int(suite.get(name, "0")) for suite in root)))
    indent(root)
    return f"{_DECLARATION}\n{tostring(root, encoding='unicode')}\n"


def _close(suite: Element, cases: Iterable[Element]) -> None:
    """Put cases into their suite, and count them."""
    suite.extend(cases)
    suite.set("tests", str(len(suite)))
    for name, tag in _COUNTED.items():
        suite.set(name, str(sum(case.find(tag) is not None for case in suite)))
    suite.set("time", "0")


def _cases(checked: Checked, config: str | None) -> list[Element]:
    """Return the case of an artifact's parity and those of its limits; budgets of its profile are limits too."""
    cases = [_parity(checked, _where(config, checked.line))]
    for limit in limits_of(checked):
        case = _case(checked.name, f"{limit.figure}: {limit.limit}")
        where = _where(config, limit.line)
        is_budget = limit not in checked.limits
        if limit.outcome == "broken":
            _say(case, "failure", "limit broken", where + limit_sentence(limit))
        elif limit.outcome == "unknown":  # a budget of the profile that nobody could measure verifies nothing
            _say(case, "error" if is_budget else "skipped", "unknown", where + limit_sentence(limit))
        cases.append(case)
    return cases


def _where(config: str | None, line: int | None) -> str:
    return "" if config is None or line is None else f"{config}:{line}: "


def _parity(checked: Checked, where: str) -> Element:
    case = _case(checked.name, "parity")
    if checked.manifest is None:
        _say(case, "failure", "no artifact", where + (checked.error or "nothing says why"))
        return case
    parity = checked.manifest.parity
    if parity.verdict != "pass":
        tag = "failure" if parity.verdict == "fail" else "error"
        _say(case, tag, parity.verdict, f"{where}{parity.verdict}: {parity.reason or 'no reason is known'}")
    return case


def _gone(name: str) -> Element:
    case = _case("baseline", name)
    _say(case, "failure", "gone", f"{name} is in the baseline and was not checked")
    return case


def _case(suite: str, name: str) -> Element:
    return Element("testcase", name=printable(name), classname=printable(suite), time="0")


def _say(case: Element, tag: str, kind: str, message: str) -> None:
    """Put what is to be said of a case into it: as an attribute, and as a text, since CI servers show one or other."""
    element = SubElement(case, tag, message=printable(message))
    element.text = printable(message)
    if tag != "skipped":
        element.set("type", kind)
