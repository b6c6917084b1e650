"""What the fleet says of users: the rows of a shard, and the figures of all of them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from exporter.core.types import Arrays
from exporter.fleet import store

if TYPE_CHECKING:
    import pyarrow

    from exporter.core.sections import Positives
    from exporter.pipeline.fleet import Shards

VERDICTS = ("pass", "fail", "unverified")
_NAMED = 10
"""Users who are named in the summary of those who cannot be ranked for, of each kind; all are in the parts."""
_FIGURES: Mapping[str, str] = {
    "rank_artifact": "int32",
    "rank_torch": "int32",
    "max_abs_error": "float64",
    "allowed_error": "float64",
    "top10_overlap": "float64",
    "top10_overlap_torch": "float64",
    "could_flip": "bool_",
}


@dataclass(frozen=True)
class Pace:
    """How many users a command judged, in how many seconds, with how many workers; those of an earlier one not."""

    users: int
    seconds: float
    workers: int


def rows(shards: "Shards", shard: int, figures: Arrays) -> "pyarrow.Table":
    """Return the rows of a shard: one for each of its users, with `figures` [ranked users] of those who have some."""
    import pyarrow as pa

    from models.training.users import RANKED, STATUSES

    users, own = shards.users, shards.of(shard)
    status = users.status[own]
    ranked = status == STATUSES.index(RANKED)
    place = np.cumsum(ranked) - 1  # where in the figures a ranked user stands

    def spread(values: np.ndarray, kind: Any) -> "pyarrow.Array":
        whole = values[np.where(ranked, place, 0)] if len(values) else np.zeros(len(own), values.dtype)
        empty = ~ranked | (np.isnan(whole) if whole.dtype.kind == "f" else False)
        return pa.array(whole, kind, mask=empty)

    columns = {
        "user": pa.array([users.names[user] for user in own.tolist()], pa.string()),
        "status": _words(STATUSES, status, None),
        "clicks": pa.array(users.clicks[own], pa.int32()),
        "unknown_clicks": pa.array(users.unknown[own], pa.int32()),
        **{name: spread(figures[name], getattr(pa, kind)()) for name, kind in _FIGURES.items()},
        "verdict": _words(
            VERDICTS, figures["verdict"][np.where(ranked, place, 0)] if ranked.any() else status, ~ranked
        ),
    }
    return pa.table(columns)


def _words(words: tuple[str, ...], numbers: np.ndarray, mask: np.ndarray | None) -> "pyarrow.Array":
    import pyarrow as pa

    known = numbers if mask is None else np.where(mask, 0, numbers)
    return pa.DictionaryArray.from_arrays(pa.array(known, pa.int8(), mask=mask), pa.array(words)).cast(pa.string())


def summary(run: store.Run, shards: int, pace: Pace) -> dict[str, object]:
    """Return the summary of all parts of a run, read one by one; raises BadInputError where one is not of it."""
    from exporter.artifact import store as artifacts
    from exporter.core.precision import has_own_tables
    from exporter.parity.verdict import judge_users

    folder = run.folder / store.ARTIFACT / str(run.plan["artifact"])
    manifest = artifacts.read_manifest(folder)
    total = _Total()
    for shard in range(shards):
        total.add(run.read(shard))
    precision = manifest.precision
    judgement = judge_users(
        total.ranked, total.verdicts["fail"], total.verdicts["unverified"], total.overlap("top10_overlap"), precision
    )
    order = ("fail", "unverified", "pass")
    of_artifact = manifest.parity.verdict
    return {
        "schema_version": 1,
        "model": manifest.model,
        "program": manifest.program,
        "target": manifest.target,
        "precision": precision,
        "verdict": min((judgement.verdict, of_artifact), key=order.index),
        "reason": judgement.reason,
        "golden_cases": {"verdict": of_artifact, "reason": manifest.parity.reason},
        "users": {"all": total.users, **total.status},
        "users_named": total.named,
        "clicks": {"unknown": total.unknown, "users_with_unknown": total.with_unknown, "most": total.most},
        "verdicts": total.verdicts,
        "max_abs_error": total.worst,
        "top10": {
            "overlap": total.overlap("top10_overlap"),
            "flipped": total.flipped["top10_overlap"],
            "could_flip": total.could_flip,
            "overlap_with_torch": total.overlap("top10_overlap_torch"),
            "flipped_from_torch": total.flipped["top10_overlap_torch"],
            "torch": "fp32 tables; above, tables as they are stored" if has_own_tables(precision) else "the same",
        },
        "clicked_next": None if not total.ranked else _positives(total.positives()),
        "run": {
            "users": pace.users,
            "seconds": round(pace.seconds, 3),
            "workers": pace.workers,
            "users_per_second": round(pace.users / pace.seconds, 1) if pace.users else None,
            "parts": shards,
            "bytes": sum(run.part(shard).stat().st_size for shard in range(shards)),
            "artifact": str(Path(store.ARTIFACT) / str(run.plan["artifact"])),
        },
    }


def _positives(positives: "Positives") -> dict[str, object]:
    """Return the figures of what was clicked next, of torch in fp32 and of the artifact."""
    figures = asdict(positives)
    names = {"ndcg10_fp32": "ndcg10_torch", "hit10_fp32": "hit10_torch", "cases": "users"}
    figures["method"] = str(figures["method"]).replace("in fp32", "of torch in fp32")
    return {names.get(name, name): value for name, value in figures.items()}


class _Total:
    """Sums over users, part by part; of each ranked user only two ranks are kept."""

    def __init__(self) -> None:
        from models.training.users import RANKED, STATUSES

        self.users = self.unknown = self.with_unknown = self.could_flip = self.ranked = 0
        self.status = dict.fromkeys(STATUSES, 0)
        self.named: dict[str, list[str]] = {status: [] for status in STATUSES if status != RANKED}
        self.verdicts = dict.fromkeys(VERDICTS, 0)
        self.flipped = {"top10_overlap": 0, "top10_overlap_torch": 0}
        self.most: dict[str, object] | None = None
        self.worst: dict[str, object] | None = None
        self._overlap = {name: [0.0, 0] for name in self.flipped}
        self._ranks: list[tuple[np.ndarray, np.ndarray]] = []
        self._worst = -1.0

    def add(self, table: "pyarrow.Table") -> None:
        """Add the rows of a part."""
        import pyarrow.compute as pc

        self.users += table.num_rows
        for column, counts in (("status", self.status), ("verdict", self.verdicts)):
            for pair in pc.value_counts(table[column].drop_null()).to_pylist():
                counts[pair["values"]] += pair["counts"]
        for status, named in self.named.items():
            if len(named) < _NAMED:
                own = table.filter(pc.equal(table["status"], status))["user"]
                named += own.slice(0, _NAMED - len(named)).to_pylist()
        unknown, clicks = (table[name].to_numpy() for name in ("unknown_clicks", "clicks"))
        self.unknown += int(unknown.sum())
        self.with_unknown += int((unknown > 0).sum())
        at = int(clicks.argmax())
        if self.most is None or int(clicks[at]) > cast("int", self.most["clicks"]):
            self.most = {"clicks": int(clicks[at]), "user": table["user"][at].as_py()}
        self._add_ranked(table.filter(pc.is_valid(table["verdict"])))

    def _add_ranked(self, table: "pyarrow.Table") -> None:
        if not table.num_rows:
            return
        self.ranked += table.num_rows
        self._ranks.append((table["rank_torch"].to_numpy() - 1, table["rank_artifact"].to_numpy() - 1))
        self.could_flip += int(table["could_flip"].to_numpy().sum())
        for name in self.flipped:
            overlap = table[name].drop_null().to_numpy()
            self._overlap[name][0] += float(overlap.sum())
            self._overlap[name][1] += len(overlap)
            self.flipped[name] += int((overlap < 1).sum())
        error = table["max_abs_error"].to_numpy()
        at = int(error.argmax())
        if error[at] > self._worst:
            self._worst = float(error[at])
            value = self._worst if np.isfinite(self._worst) else None
            self.worst = {"value": value, "user": table["user"][at].as_py()}

    def overlap(self, name: str) -> float | None:
        """Return the mean overlap of the top 10, None where ten candidates or fewer leave none."""
        total, users = self._overlap[name]
        return total / users if users else None

    def positives(self) -> "Positives":
        """Return NDCG@10 and Hit@10 of torch in fp32 and of the artifact over all ranked users."""
        from exporter.parity.positives import positives_of_ranks

        torch, artifact = (np.concatenate(ranks) for ranks in zip(*self._ranks, strict=True))
        return positives_of_ranks(torch, artifact)
