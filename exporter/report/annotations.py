"""Workflow commands of GitHub, which show at a line of the configuration what the gate says of it.

https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands
"""

from collections.abc import Iterator
from typing import Literal

from exporter.artifact.results import Checked, Report
from exporter.core.checks import LimitCheck
from exporter.report.standing import limit_sentence, limits_of
from safeio.errors import one_line, printable

_Kind = Literal["error", "warning", "notice"]
_MOST = 10  # of each kind, that GitHub keeps of one step
_TITLE_LENGTH = 255  # that GitHub shows


def annotations(report: Report) -> list[str]:
    """Return a command for each limit that is broken or unknown and each artifact that does not pass, errors first.

    Of a kind with more than ten, which GitHub would drop unseen, the tenth says how many more there are.
    """
    said: dict[_Kind, list[str]] = {"error": [], "warning": [], "notice": []}
    for checked in report.artifacts:
        for kind, line, title, message in _of(checked):
            said[kind].append(_command(kind, report.config, line, title, message))
    for name in report.gone:
        message = f"{name} is in the baseline and was not checked; put it back, or: cocorr-export check --update"
        said["error"].append(_command("error", report.lock, None, f"{name}: gone", message))
    for kind, commands in said.items():
        if len(commands) > _MOST:
            more = f"{len(commands) - _MOST + 1} more are in the report"
            commands[_MOST - 1 :] = [_command(kind, report.config, None, "cocorr-export check", more)]
    return [command for commands in said.values() for command in commands]


def _of(checked: Checked) -> Iterator[tuple[_Kind, int | None, str, str]]:
    """Yield kind, line, title and message of all that is to be said of one artifact."""
    if checked.manifest is None:
        yield "error", checked.line, f"{checked.name}: no artifact", checked.error or "it was not made"
    else:
        parity = checked.manifest.parity
        if parity.verdict == "fail":
            yield "error", checked.line, f"{checked.name}: fail", parity.reason or "it differs from torch"
        elif parity.verdict == "unverified":
            yield "warning", checked.line, f"{checked.name}: unverified", parity.reason or "nothing here could run it"
    for limit in limits_of(checked):
        if limit.outcome != "kept":
            line = checked.line if limit.line is None else limit.line
            yield _kind(limit, checked), line, f"{checked.name}: {limit.figure} {limit.outcome}", limit_sentence(limit)


def _kind(limit: LimitCheck, checked: Checked) -> _Kind:
    """Return how loud a limit is; a budget of the profile that nobody could measure verifies nothing."""
    if limit.outcome == "broken":
        return "error"
    return "notice" if limit in checked.limits else "warning"


def _command(kind: _Kind, file: str | None, line: int | None, title: str, message: str) -> str:
    """Return one command; a name in it cannot end it, nor begin another."""
    properties = {
        "file": None if file is None else printable(file),
        "line": None if line is None else str(line),
        "title": one_line(title)[:_TITLE_LENGTH],
    }
    shown = ",".join(f"{name}={_property(value)}" for name, value in properties.items() if value is not None)
    return f"::{kind} {shown}::{_data(one_line(message))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
