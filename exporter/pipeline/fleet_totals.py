"""Sums over all users of a run, added to part by part; what is kept does not grow with them."""

from dataclasses import asdict
from typing import TYPE_CHECKING, cast

import numpy as np

from exporter.fleet.distributions import Decades, Labelled
from exporter.parity.compare import TOP

if TYPE_CHECKING:
    import pyarrow

    from exporter.parity.paired import Paired

VERDICTS = ("pass", "fail", "unverified")
_NAMED = 10
_LONGEST_NAME = 100
_LENGTHS = (1, 2, 3, 5, 10, 20, 50, 100, 1_000)
"""From so many clicks on, users are counted together."""
_MOVES = (-10, -5, -2, -1, 0, 1, 2, 5, 10)
_SEED = 7
"""What follows the seed of the training where users are drawn again: another stream than those before it."""


def shown_id(user: str) -> str:
    """Return an id from a file of strangers as documents name it: at most 100 characters of it."""
    return user if len(user) <= _LONGEST_NAME else f"{user[:_LONGEST_NAME]}…"


class ClickedNext:
    """How torch in fp32 and another rank what users clicked next, in small tables of counts."""

    def __init__(self, other: str) -> None:
        self.users = 0
        self._other = other
        self._pairs = np.zeros((len(_LENGTHS), TOP + 1, TOP + 1), np.int64)
        self._moved = {"same": 0, "better": 0, "worse": 0}

    def add(self, table: "pyarrow.Table") -> np.ndarray:
        """Add rows, which all have both ranks; return how far each moved [n], + is down."""
        from exporter.parity.paired import count_pairs

        self.users += table.num_rows
        torch, other = (table[name].to_numpy() - 1 for name in ("rank_torch", f"rank_{self._other}"))
        known = table["clicks"].to_numpy() - table["unknown_clicks"].to_numpy()
        length = np.searchsorted(_LENGTHS, known, side="right") - 1
        for at in np.unique(length):
            self._pairs[at] += count_pairs(torch[length == at], other[length == at])
        moved: np.ndarray = other.astype(np.int64) - torch
        for how, users in (("same", moved == 0), ("better", moved < 0), ("worse", moved > 0)):
            self._moved[how] += int(users.sum())
        return moved

    def document(self, seed: int, candidates: int) -> dict[str, object] | None:
        """Return NDCG@10 and Hit@10 of both, of all these users and by their clicks; None where there is nobody.

        Ranks are among so many `candidates`.
        """
        from exporter.parity.paired import METHOD, compare_pairs

        if not self.users:
            return None
        groups = []
        for at, (label, counts) in enumerate(zip(_ranges(_LENGTHS), self._pairs, strict=True)):
            if counts.any():
                ndcg, _ = compare_pairs(counts, (seed, _SEED, 1 + at))
                groups.append({"clicks": label, "users": int(counts.sum()), "ndcg10": self._figures(ndcg)})
        ndcg, hit = compare_pairs(self._pairs.sum(axis=0), (seed, _SEED))
        return {
            "users": self.users,
            "candidates": candidates,
            "ndcg10": self._figures(ndcg),
            "hit10": self._figures(hit),
            "rank": self._moved,
            "method": f"{METHOD}, seed {seed}",
            "by_known_clicks": groups,
        }

    def _figures(self, paired: "Paired") -> dict[str, object]:
        return {self._other if name == "artifact" else name: value for name, value in asdict(paired).items()}


class Total:
    """Sums over users; of each who was judged only where his ranks are in small tables of counts."""

    def __init__(self) -> None:
        from models.training.users import STATUSES

        self.users = self.unknown = self.with_unknown = self.could_flip = self.judged = 0
        self.status = dict.fromkeys(STATUSES, 0)
        self.verdicts = dict.fromkeys(VERDICTS, 0)
        self.named: dict[str, list[str]] = {name: [] for name in (*STATUSES[1:], *VERDICTS[1:])}
        self.flipped = {"top10_overlap": 0, "top10_overlap_torch": 0}
        self.most: dict[str, object] | None = None
        self.worst: dict[str, object] | None = None
        self._overlap = {name: [0.0, 0] for name in self.flipped}
        self.clicked_next = ClickedNext("artifact")
        self._worst = -1.0
        self._allowed = [np.inf, 0.0]
        self._errors = Decades("max_abs_error", "Largest error of a user's scores", "absolute error")
        self._clicks = Labelled("clicks", "Clicks per user", "clicks, repetitions left out", _ranges(_LENGTHS))
        self._moves = Labelled("rank_change", "How far the item clicked next moved", "ranks, + is down", _moves())
        self._top10 = Labelled("top10", "The artifact's top 10 beside torch's", "items in both", _shared())
        self._top10_torch = Labelled(
            "top10_torch", "The artifact's top 10 beside torch's in fp32", "items in both", _shared()
        )
        self._flips = Labelled(
            "could_flip",
            "Whether errors so large can change the top 10",
            "set of the top 10",
            ("safe", "could change", "has changed"),
        )

    def add(self, table: "pyarrow.Table") -> None:
        """Add the rows of a part."""
        import pyarrow.compute as pc

        self.users += table.num_rows
        for column, counts in (("status", self.status), ("verdict", self.verdicts)):
            for pair in pc.value_counts(table[column].drop_null()).to_pylist():
                counts[pair["values"]] += pair["counts"]
            for name in counts.keys() & self.named.keys():
                left = _NAMED - len(self.named[name])
                some = table["user"].filter(pc.fill_null(pc.equal(table[column], name), False))[:left]
                self.named[name] += [shown_id(user) for user in some.to_pylist()]
        unknown, clicks = (table[name].to_numpy() for name in ("unknown_clicks", "clicks"))
        self.unknown += int(unknown.sum())
        self.with_unknown += int((unknown > 0).sum())
        self._clicks.add(np.searchsorted(_LENGTHS, clicks, side="right") - 1)
        at = int(clicks.argmax())
        if self.most is None or int(clicks[at]) > cast("int", self.most["clicks"]):
            self.most = {"clicks": int(clicks[at]), "user": shown_id(table["user"][at].as_py())}
        self._add_judged(table.filter(pc.is_valid(table["rank_artifact"])))

    def _add_judged(self, table: "pyarrow.Table") -> None:
        if not table.num_rows:
            return
        self.judged += table.num_rows
        moved = self.clicked_next.add(table)
        downwards = np.searchsorted(_MOVES, moved, side="right") - 1
        upwards = np.searchsorted(_MOVES, moved, side="left")
        self._moves.add(np.clip(np.where(moved > 0, downwards, upwards), 0, len(_MOVES) - 1))
        could_flip = table["could_flip"].to_numpy()
        self.could_flip += int(could_flip.sum())
        for name, shared in (("top10_overlap", self._top10), ("top10_overlap_torch", self._top10_torch)):
            overlap = table[name].drop_null().to_numpy()
            self._overlap[name][0] += float(overlap.sum())
            self._overlap[name][1] += len(overlap)
            self.flipped[name] += int((overlap < 1).sum())
            shared.add(TOP - np.rint(overlap * TOP).astype(np.int64))
        if self._overlap["top10_overlap"][1]:  # else there are no more than ten candidates, for nobody
            self._flips.add(np.where(table["top10_overlap"].to_numpy() < 1, 2, could_flip.astype(np.int64)))
        error, allowed = (table[name].to_numpy() for name in ("max_abs_error", "allowed_error"))
        self._errors.add(error)
        self._allowed = [min(self._allowed[0], float(allowed.min())), max(self._allowed[1], float(allowed.max()))]
        at = int(error.argmax())
        if error[at] > self._worst:
            self._worst = float(error[at])
            value = self._worst if np.isfinite(self._worst) else None
            self.worst = {"value": value, "user": shown_id(table["user"][at].as_py())}

    def overlap(self, name: str) -> float | None:
        """Return the mean overlap of the top 10, None where ten candidates or fewer leave none."""
        total, users = self._overlap[name]
        return total / users if users else None

    def distributions(self, schemes: bool) -> list[dict[str, object]]:
        """Return how users are distributed; with `schemes`, errors are beside another torch than that in fp32."""
        least, most = self._allowed
        marks = [("allowed", least)] if least == most else [("least allowed", least), ("most allowed", most)]
        found = [self._clicks.document()]
        if self.judged:
            found += [self._errors.document(marks), self._moves.document()]
        if self._overlap["top10_overlap"][1]:
            found += [self._flips.document(), self._top10.document()]
            found += [self._top10_torch.document()] if schemes else []
        return found


def _ranges(starts: tuple[int, ...]) -> list[str]:
    """Return labels for numbers from one start up to the next."""
    ends = [after - 1 for after in starts[1:]]
    labels = [f"{low:,}" if low == high else f"{low:,} to {high:,}" for low, high in zip(starts, ends, strict=False)]
    return [*labels, f"{starts[-1]:,} and more"]


def _moves() -> list[str]:
    """Return labels for moves: at and beyond the outermost of _MOVES, and between the others away from 0."""
    positive = [number for number in _MOVES if number > 0]
    ranges = _ranges(tuple(positive))
    up = [f"-{label.replace(' to ', ' to -')}" for label in reversed(ranges)]
    return [*up, "0", *(f"+{label.replace(' to ', ' to +')}" for label in ranges)]


def _shared() -> list[str]:
    return [f"{shared} of {TOP}" for shared in range(TOP, -1, -1)]
