"""What the HTML report shows, as values that its template lays out: texts, tables, and figures or why there is none."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from markupsafe import Markup

from exporter.artifact.results import Checked, Report
from exporter.report.notes import comparison_lines, notes
from exporter.report.rows import VERDICT, methods, shown_rows, whole_label
from exporter.report.standing import (
    LIMIT_COLUMNS,
    TONES,
    Standing,
    Tone,
    has_moved,
    limit_cells,
    limits_of,
    standing,
)

_TONE_OF: dict[str, Tone] = {"kept": "good", "broken": "bad", "unknown": "unsure"}
_WORST = {"broken": 0, "unknown": 1, "kept": 2}
Shown = TypeVar("Shown")

_FIGURES = {1, 2, 3}  # columns of LIMIT_COLUMNS


@dataclass(frozen=True)
class Cell:
    """A text in a table, and what is to be said below it.

    `key` is by what its column is sorted, where that is not the text; `tone` is that of an outcome.
    """

    text: str
    key: float | str | None = None
    tone: Tone | None = None
    is_figure: bool = False
    note: str | None = None


@dataclass(frozen=True)
class Table:
    """A table whose rows begin with what they are of; `name` is its own in the page."""

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    is_sortable: bool = False


@dataclass(frozen=True)
class Figure:
    """Plots with a caption and a table of their numbers; `reasons` say why anything of it, or all, is not there."""

    title: str
    caption: str = ""
    drawings: tuple[Markup, ...] = ()
    table: Table | None = None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArtifactView:
    """One artifact: how it stands, and what is known of it beside its figures."""

    name: str
    title: str
    place: str | None
    is_cached: bool
    standing: Standing
    notes: tuple[str, ...] = ()
    methods: tuple[tuple[str, str], ...] = ()
    figures: tuple[Figure, ...] = ()

    @property
    def drawn(self) -> list[Figure]:
        """Return the figures that there is something to see of."""
        return [figure for figure in self.figures if figure.drawings]

    @property
    def not_drawn(self) -> list[Figure]:
        """Return the others, which have reasons only."""
        return [figure for figure in self.figures if not figure.drawings]


def artifact_view(name: str, checked: Checked, figures: tuple[Figure, ...]) -> ArtifactView:
    """Return what is shown of an artifact, which the page calls `name`."""
    view = ArtifactView(name, checked.name, checked.place, checked.is_cached, standing(checked), figures=figures)
    if checked.manifest is None:
        return view
    compared: list[str] = []
    if checked.comparison is not None:
        reason = checked.comparison.reason
        compared = [*comparison_lines(checked.comparison), *([reason] if reason else [])]
    return replace(view, notes=(*notes(checked.manifest), *compared), methods=tuple(methods(checked.manifest)))


def limits_table(report: Report) -> Table | None:
    """Return all limits, the broken ones first and those last that are kept and whose figure is where it was."""
    pairs = [(checked, limit) for checked in report.artifacts for limit in limits_of(checked)]
    pairs.sort(key=lambda pair: (_WORST[pair[1].outcome], not has_moved(pair[1])))
    rows = []
    for checked, limit in pairs:
        keys = (None, limit.baseline, limit.value, limit.change, limit.limit, _WORST[limit.outcome])
        texts = limit_cells(limit)
        cells = [
            Cell(text, key, is_figure=at in _FIGURES) for at, (text, key) in enumerate(zip(texts, keys, strict=True))
        ]
        if limit.line is not None:
            cells[4] = replace(cells[4], text=f"{limit.limit} (line {limit.line})")
        cells[5] = replace(cells[5], text=limit.outcome, tone=_TONE_OF[limit.outcome], note=limit.reason)
        rows.append((Cell(checked.name), *_outcome_early(cells)))
    if not rows:
        return None
    caption = "Limits, and what became of the figures since the baseline"
    columns = ("artifact", *_outcome_early(LIMIT_COLUMNS))
    return Table("limits", caption, columns, tuple(rows), is_sortable=True)


def _outcome_early(cells: Sequence[Shown]) -> tuple[Shown, ...]:
    """Return the cells of a limit with the outcome behind the figure, where a phone shows it without scrolling."""
    figure, *others, outcome = cells
    return figure, outcome, *others


def figures_table(report: Report) -> Table | None:
    """Return the figures of all artifacts side by side, a column each."""
    there = [(checked, checked.manifest) for checked in report.artifacts if checked.manifest is not None]
    if not there:
        return None
    rows = []
    for label, cells in shown_rows([manifest for _, manifest in there]):
        tones = [TONES[checked.exit_code] if label == VERDICT else None for checked, _ in there]
        texts = [standing(checked).word for checked, _ in there] if label == VERDICT else cells
        shown = (Cell(text, tone=tone, is_figure=True) for text, tone in zip(texts, tones, strict=True))
        rows.append((Cell(whole_label(label)), *shown))
    names = (checked.name for checked, _ in there)
    return Table("figures", "Figures of all artifacts", ("figure", *names), tuple(rows))
