"""A report as Markdown that fits into a comment on a pull request: what moved, and all figures folded below it.

Names and words may be a stranger's. Names stand in code spans, where GitHub makes nothing of them; words have escapes
for what Markdown and HTML would make of them, and a space of no width where GitHub would make a link or call somebody.
"""

import html
import re
from collections.abc import Iterable, Sequence

from exporter.artifact.results import Checked, Report
from exporter.report.notes import comparison_lines, notes
from exporter.report.rows import growth_rows, methods, shown_rows, whole_label
from exporter.report.standing import (
    LIMIT_COLUMNS,
    has_moved,
    headline,
    limit_cells,
    limits_of,
    standing,
    what_else_moved,
)
from safeio.errors import printable

MOST_BYTES = 65_536
"""GitHub takes a comment of so many characters; none of them is less than a byte."""

_SIGNS = {"pass": "✅", "fail": "❌", "unverified": "⚠️", "nothing checked": "⚠️"}
_TONES = {"good": "✅", "bad": "❌", "unsure": "⚠️"}
_OUTCOMES = {"kept": "✅", "broken": "❌", "unknown": "⚠️"}
_MOVED_SHARE = 0.6  # of the room, so that figures have some too
_LONGEST = 300
_ROOM_FOR_NOTES = 600
_CALLS = re.compile(r"@|#|://|www\.|GH-", re.IGNORECASE)
_BEGINS = re.compile(r"^(\d*)([-+=.)])")
_NO_WIDTH = "\u200b"


def markdown(report: Report) -> str:
    """Return the Markdown of a report, at most 65,536 bytes; what is left out is counted."""
    word, counts = headline(report)
    judged = f" of {_name(report.config)}" if report.config else ""
    parts = [f"### {_SIGNS[word]} cocorr-export{judged}: {word}", f"{_words(counts)}."]
    room = MOST_BYTES - _ROOM_FOR_NOTES - _size(parts)
    parts += _reasons(report, room // 4)
    parts += _moved(report, int(_MOVED_SHARE * room) - _size(parts))
    return "\n\n".join([*parts, *_figures(report, room - _size(parts))]) + "\n"


def _reasons(report: Report, room: int) -> list[str]:
    """Return why artifacts do not pass, one line each."""
    lines = []
    for checked in report.artifacts:
        stands = standing(checked)
        if stands.tone != "good":
            why = "; ".join(stands.reasons) or "no reason is known"
            place = f" (line {checked.line})" if checked.line is not None else ""
            lines.append(f"- {_TONES[stands.tone]} {_name(checked.name)}{place} **{stands.word}**: {_words(why)}")
    return _fitting(lines, room, "more artifacts do not pass")


def _moved(report: Report, room: int) -> list[str]:
    """Return the table of limits that are not kept or whose figure moved, those that are broken first."""
    limits = [(checked, limit) for checked in report.artifacts for limit in limits_of(checked)]
    if not limits:
        return []
    order = {"broken": 0, "unknown": 1, "kept": 2}
    moved = sorted((pair for pair in limits if has_moved(pair[1])), key=lambda pair: order[pair[1].outcome])
    rows = []
    for checked, limit in moved:
        figure, before, now, by, allowed, outcome = limit_cells(limit)
        place = f" (line {limit.line})" if limit.line is not None else ""
        cells = (figure, before, now, by, allowed + place)
        shown = f"{_OUTCOMES[limit.outcome]} {_words(outcome)}"
        rows.append(_row((_name(checked.name), *map(_words, cells), shown)))
    still = len(limits) - len(moved)
    parts = ["#### What moved"]
    if rows:
        header = [_row(("artifact", *LIMIT_COLUMNS)), _row(["---", "---", "--:", "--:", "--:", "---", "---"])]
        parts.append("\n".join([*header, *_cut(rows, room - _size(header))]))
        left = len(rows) - (parts[-1].count("\n") + 1 - len(header))
        parts += [f"{left} more rows are left out here: they are in the HTML report."] if left else []
    else:
        parts.append("Nothing that has a limit.")
    parts += [f"Kept and where they were: {still} other limits."] if still and rows else []
    return parts + _fitting([f"- {_line(line)}" for line in what_else_moved(report)], room // 4, "more moved")


def _figures(report: Report, room: int) -> list[str]:
    """Return all figures of each artifact, folded, as many as there is room for."""
    parts: list[str] = []
    for at, checked in enumerate(report.artifacts):
        part = _folded(checked)
        if _size([*parts, part]) > room:
            left = len(report.artifacts) - at
            return [*parts, f"The figures of {left} more artifacts are left out here: they are in the HTML report."]
        parts.append(part)
    return parts


def _folded(checked: Checked) -> str:
    stands = standing(checked)
    # Until the next empty line Markdown is text here, and HTML is not.
    name = html.escape(_short(printable(checked.name)))
    head = f"<details><summary>{_TONES[stands.tone]} {stands.word}: <code>{name}</code></summary>"
    if checked.manifest is None:
        return f"{head}\n\n{_line(checked.error or 'nothing says why')}\n\n</details>"
    manifest = checked.manifest
    place = [f"In {_name(checked.place)}."] if checked.place else []
    place += ["Made before this run, and judged in it."] if checked.is_cached else []
    rows = [(whole_label(label), _words(cell)) for label, (cell,) in shown_rows([manifest])]
    parts = [head, *([" ".join(place)] if place else []), _table(("figure", "value"), rows)]
    if manifest.growth is not None and (grown := growth_rows(manifest.growth)):
        parts.append(_table(grown[0], [tuple(map(_words, row)) for row in grown[1:]]))
    lines = [*notes(manifest), *(comparison_lines(checked.comparison) if checked.comparison else ())]
    lines += [f"{what}: {method}" for what, method in methods(manifest)]
    parts.append("\n".join(f"- {_line(line)}" for line in lines))
    return "\n\n".join([*parts, "</details>"])


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join([_row(header), _row(["---", *["--:"] * (len(header) - 1)]), *map(_row, rows)])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _fitting(lines: Sequence[str], room: int, more: str) -> list[str]:
    """Return lines as one part, and how many more there would be."""
    kept = _cut(lines, room)
    left = len(lines) - len(kept)
    counted = [f"- and {left} {more}: they are in the HTML report"] if left else []
    return ["\n".join([*kept, *counted])] if lines else []


def _cut(lines: Sequence[str], room: int) -> list[str]:
    kept: list[str] = []
    for line in lines:
        room -= _size([line])
        if room < 0:
            break
        kept.append(line)
    return kept


def _size(parts: Iterable[str]) -> int:
    return sum(len(part.encode()) + 2 for part in parts)


def _name(name: str) -> str:
    """Return a name in a code span; what would end it, or the cell of a table, is escaped as Python writes it."""
    plain = _short(printable(name)).replace("`", r"\x60").replace("|", r"\x7c").strip()
    return f"`{plain or 'no name'}`"


def _words(text: str) -> str:
    """Return words as they are to be read."""
    plain = _CALLS.sub(_apart, _short(printable(" ".join(text.split()))))
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#&~$" else sign for sign in plain)


def _line(text: str) -> str:
    """Return words with which a line begins: no list, rule or heading begins with them."""
    return _BEGINS.sub(r"\1\\\2", _words(text))


def _apart(found: re.Match[str]) -> str:
    """Put a space of no width behind the first sign of what would make a link, or before its last."""
    signs = found[0]
    return f"{signs[:-1]}{_NO_WIDTH}{signs[-1]}" if signs[-1] in ".-" else f"{signs[0]}{_NO_WIDTH}{signs[1:]}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
