"""How figures of users are distributed: counts that are added to part by part, so that memory does not grow with them.

A document of one has `name`, `title`, `unit`, `counts` [n], and either `labels` [n] or `edges` [n + 1], where a count
is of figures from one edge up to, but without, the next. `marks` are places on the axis with a `label` and a `value`;
`note` says what is not counted. Both may be left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

_STEPS = (1, 2, 5)
_LEAST, _MOST = -12, 9
"""Powers of ten between which figures have bins: what is below is in the first, and what is above in the last."""
_EDGES = np.array([float(f"{step}e{power}") for power in range(_LEAST, _MOST) for step in _STEPS])


@dataclass(frozen=True)
class Labelled:
    """Users by classes that have names."""

    name: str
    title: str
    unit: str
    labels: Sequence[str]
    counts: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", np.zeros(len(self.labels), np.int64))

    def add(self, classes: np.ndarray) -> None:
        """Add users by their positions [n] in `labels`."""
        self.counts[:] += np.bincount(classes, minlength=len(self.labels))

    def document(self) -> dict[str, object]:
        """Return it without the empty classes before the first and behind the last that somebody is in."""
        used = np.flatnonzero(self.counts)
        some = slice(used[0], used[-1] + 1) if len(used) else slice(0, 0)
        return _document(self, "labels", list(self.labels[some]), self.counts[some])


@dataclass(frozen=True)
class Decades:
    """Users by a figure that spans powers of ten, three bins to each; 0 is in a bin of its own, in front."""

    name: str
    title: str
    unit: str
    counts: np.ndarray = field(init=False)
    _others: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", np.zeros(len(_EDGES), np.int64))
        object.__setattr__(self, "_others", np.zeros(1, np.int64))

    def add(self, figures: np.ndarray) -> None:
        """Add users by figures [n] of 0 or more; those that are no number are counted by themselves."""
        finite = figures[np.isfinite(figures)]
        self._others[0] += len(figures) - len(finite)
        self.counts[0] += int((finite <= 0).sum())
        places = np.searchsorted(_EDGES, finite[finite > 0], side="right")
        self.counts[:] += np.bincount(np.clip(places, 1, len(self.counts) - 1), minlength=len(self.counts))

    def document(self, marks: Sequence[tuple[str, float]] = ()) -> dict[str, object]:
        """Return it from the first bin that somebody is in to the last; `marks` are labels and figures."""
        used = np.flatnonzero(self.counts[1:])
        first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
        edges, counts = _EDGES[first : last + 1], self.counts[1 + first : 1 + last]
        if self.counts[0]:
            edges, counts = np.concatenate([[0.0], edges]), np.concatenate([self.counts[:1], counts])
        others = int(self._others[0])
        return _document(
            self,
            "edges",
            edges.tolist() if len(counts) else [],
            counts,
            [{"label": label, "value": value} for label, value in marks if math.isfinite(value)],
            f"not counted, since the figure is no number: {others:,}" if others else None,
        )


def _document(
    shown: Labelled | Decades,
    axis: str,
    places: Sequence[object],
    counts: np.ndarray,
    marks: Sequence[object] = (),
    note: str | None = None,
) -> dict[str, object]:
    return {
        "name": shown.name,
        "title": shown.title,
        "unit": shown.unit,
        axis: places,
        "counts": counts.tolist(),
        "marks": list(marks),
        "note": note,
    }
