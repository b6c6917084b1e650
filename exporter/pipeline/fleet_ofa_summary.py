"""What the fleet says of users with a network each: rows, the index of packages, and the figures of all of them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from exporter.core.types import Arrays
from exporter.fleet import store
from exporter.pipeline.fleet_ofa import subnets_of
from exporter.pipeline.fleet_ofa_worker import NOT_DRAWN
from exporter.pipeline.fleet_summary import VERDICTS

if TYPE_CHECKING:
    import pyarrow

    from exporter.fleet.packages import Folder
    from exporter.pipeline.fleet import Shards
    from exporter.pipeline.fleet_summary import Pace

_OF_ALL = {"rank_torch": "int32", "rank_stored": "int32", "stored_error": "float64"}
_OF_JUDGED = {
    "rank_artifact": "int32",
    "max_abs_error": "float64",
    "allowed_error": "float64",
    "top10_overlap": "float64",
    "top10_overlap_torch": "float64",
    "could_flip": "bool_",
}
_EDGES = np.logspace(-9, 1, 21)
"""Of errors: two bins for each power of ten; what is smaller or larger counts with the first or the last."""
_MOST_LABELS = 20


def rows(shards: "Shards", shard: int, figures: Arrays, plan: store.Document) -> "pyarrow.Table":
    """Return the rows of a shard: one for each of its users, with figures of those who have some."""
    import pyarrow as pa

    users, own = shards.users, shards.of(shard)
    place, ranked = _places(shards, shard)
    structures = _texts(figures["structure"])
    costs = _Flops(plan)
    verdict = figures["verdict"]
    judged = (verdict != NOT_DRAWN) & (figures["rank_artifact"] > 0)
    of = {structure: costs.of(structure) for structure in set(structures)}
    columns = {
        "structure": pa.array(structures, pa.string()),
        "blocks": pa.array(figures["structure"].sum(axis=1), pa.int32()),
        "bytes_up": pa.array(np.full(len(verdict), _bytes_up(figures["structure"], plan)), pa.int64()),
        "bytes_down": pa.array(figures["bytes_down"], pa.int64()),
        "flops": pa.array([of[structure] for structure in structures], pa.int64()),
        **{name: pa.array(figures[name], getattr(pa, kind)()) for name, kind in _OF_ALL.items()},
        **{
            name: pa.array(figures[name], getattr(pa, kind)(), mask=~judged | _is_nan(figures[name]))
            for name, kind in _OF_JUDGED.items()
        },
        "verdict": pa.array(
            [None if number == NOT_DRAWN else VERDICTS[number] for number in verdict.tolist()], pa.string()
        ),
    }
    where = pa.array(place, pa.int64(), mask=~ranked)
    return pa.table(
        {
            **_names(shards, shard),
            "clicks": pa.array(users.clicks[own], pa.int32()),
            "unknown_clicks": pa.array(users.unknown[own], pa.int32()),
            **{name: column.take(where) for name, column in columns.items()},
        }
    )


def index(shards: "Shards", shard: int, figures: Arrays) -> "pyarrow.Table":
    """Return the index of a shard's packages: for each user where it is, or the status of one who has none."""
    import pyarrow as pa

    place, ranked = _places(shards, shard)
    where = pa.array(place, pa.int64(), mask=~ranked)
    found = {name: figures.get(name, np.zeros(0, np.int64)) for name in ("offset", "bytes")}  # none, of no users
    digests = [row.tobytes().hex() for row in figures.get("sha256", np.zeros((0, 32), np.uint8))]
    columns = {
        "structure": pa.array(_texts(figures["structure"]), pa.string()),
        **{name: pa.array(values, pa.int64()) for name, values in found.items()},
        "sha256": pa.array(digests, pa.string()),
    }
    return pa.table({**_names(shards, shard), **{name: column.take(where) for name, column in columns.items()}})


def _names(shards: "Shards", shard: int) -> dict[str, "pyarrow.Array"]:
    """Return who the users of a shard are, and what becomes of them."""
    import pyarrow as pa

    from models.training.users import STATUSES

    users, own = shards.users, shards.of(shard)
    return {
        "user": pa.array([users.names[user] for user in own.tolist()], pa.string()),
        "status": pa.array([STATUSES[number] for number in users.status[own].tolist()], pa.string()),
    }


def _places(shards: "Shards", shard: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where in the figures each user of a shard stands, and who does."""
    from models.training.users import RANKED, STATUSES

    ranked = shards.users.status[shards.of(shard)] == STATUSES.index(RANKED)
    return np.maximum(np.cumsum(ranked) - 1, 0), ranked


def _texts(structures: np.ndarray) -> list[str]:
    return ["".join(map(str, row)) for row in structures.tolist()]


def _is_nan(values: np.ndarray) -> np.ndarray:
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), bool)


def _bytes_up(structures: np.ndarray, plan: store.Document) -> int:
    """Return the bytes of what a device uploads: a byte, a bit for each block, and the latent in fp32."""
    blocks: int = structures.shape[1]
    return 1 + -(-blocks // 8) + 4 * cast("int", plan["latent"])


class _Flops:
    """FLOPs of sub-networks: of the artifact of a structure, else of so many blocks."""

    def __init__(self, plan: store.Document) -> None:
        self._artifacts = subnets_of(plan)
        self._parts = cast("dict[str, int | None]", plan["flops"])

    def of(self, structure: str) -> int | None:
        """Return them, None where nobody counted."""
        if structure in self._artifacts:
            return self._artifacts[structure].flops
        base, block = self._parts["base"], self._parts["block"]
        blocks = structure.count("1")
        return None if base is None or block is None or not blocks else base + blocks * block


def summary(run: store.Run, shards: int, pace: "Pace", folder: "Folder | None") -> dict[str, object]:
    """Return the summary of all parts of a run, read one by one; raises BadInputError where one is not of it."""
    from exporter.artifact import store as artifacts
    from exporter.pipeline.fleet_summary import _positives

    total = _Total()
    for shard in range(shards):
        total.add(run.read(shard))
    manifests = {
        structure: artifacts.read_manifest(run.folder / store.ARTIFACT / subnet.artifact)
        for structure, subnet in subnets_of(run.plan).items()
    }
    verdict, reason = _verdict(run.plan, total, [one.parity.verdict for one in manifests.values()])
    positives = _positives(total.positives("judged")) if total.judged else None
    stored = _positives(total.positives("stored")) if total.ranked else None
    return {
        "schema_version": 1,
        "model": run.plan["model"],
        "program": next((one.program for one in manifests.values()), None),
        "target": run.plan["target"],
        "precision": run.plan["precision"],
        "verdict": verdict,
        "reason": reason,
        "golden_cases": {structure: one.parity.verdict for structure, one in manifests.items()},
        "users": {"all": total.users, **total.status},
        "clicks": {"unknown": total.unknown, "users_with_unknown": total.with_unknown, "most": total.most},
        "verdicts": {**total.verdicts, "not_drawn": total.ranked - sum(total.verdicts.values())},
        "no_artifact": total.no_artifact,
        "max_abs_error": total.worst,
        "top10": {
            "overlap": total.overlap("top10_overlap"),
            "flipped": total.flipped["top10_overlap"],
            "could_flip": total.could_flip,
            "overlap_with_torch": total.overlap("top10_overlap_torch"),
            "flipped_from_torch": total.flipped["top10_overlap_torch"],
        },
        "clicked_next": positives,
        "stored": {
            "as": run.plan["stored"],
            "max_abs_error": total.stored_error if total.ranked else None,
            "clicked_next": stored,
        },
        "structures": total.table(),
        "distributions": total.distributions(),
        "run": {
            "users": pace.users,
            "seconds": round(pace.seconds, 3),
            "workers": pace.workers,
            "users_per_second": round(pace.users / pace.seconds, 1) if pace.users else None,
            "parts": shards,
            "bytes": sum(run.part(shard).stat().st_size for shard in range(shards)),
            "packages": None if folder is None else {"place": str(folder.place), "bytes": folder.archive_bytes()},
        },
    }


def _verdict(plan: store.Document, total: "_Total", golden: list[str]) -> tuple[str, str]:
    """Return what is said of all: of the users for whom artifacts were run, and of the artifacts' golden cases."""
    from exporter.parity.verdict import judge_users

    users = sum(total.verdicts.values()) - total.no_artifact
    unsettled = total.verdicts["unverified"] - total.no_artifact
    judged = judge_users(
        users, total.verdicts["fail"], unsettled, total.overlap("top10_overlap"), cast("Any", plan["precision"])
    )
    verdict, reason = str(judged.verdict), judged.reason
    if total.no_artifact:
        verdict = "fail" if verdict == "fail" else "unverified"
        reason += f"; {total.no_artifact:,} users have a structure of which no artifact was made"
    order = ("fail", "unverified", "pass")
    worst = min((verdict, *golden), key=order.index)
    if worst != verdict:
        reason += "; golden cases of a structure do not pass"
    return worst, reason


class _Total:
    """Sums over users, part by part; of each ranked user only ranks are kept."""

    def __init__(self) -> None:
        from models.training.users import STATUSES

        self.users = self.unknown = self.with_unknown = self.could_flip = self.ranked = self.judged = 0
        self.no_artifact = 0
        self.status = dict.fromkeys(STATUSES, 0)
        self.verdicts = dict.fromkeys(VERDICTS, 0)
        self.flipped = {"top10_overlap": 0, "top10_overlap_torch": 0}
        self.most: dict[str, object] | None = None
        self.worst: dict[str, object] | None = None
        self.stored_error = 0.0
        self._overlap = {name: [0.0, 0] for name in self.flipped}
        self._ranks: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"judged": [], "stored": []}
        self._errors = np.zeros(len(_EDGES) - 1, np.int64)
        self._structures: dict[str, list[int | None]] = {}

    def add(self, table: "pyarrow.Table") -> None:
        """Add the rows of a part."""
        import pyarrow.compute as pc

        self.users += table.num_rows
        for column, counts in (("status", self.status), ("verdict", self.verdicts)):
            for pair in pc.value_counts(table[column].drop_null()).to_pylist():
                counts[pair["values"]] += pair["counts"]
        unknown, clicks = (table[name].to_numpy() for name in ("unknown_clicks", "clicks"))
        self.unknown += int(unknown.sum())
        self.with_unknown += int((unknown > 0).sum())
        at = int(clicks.argmax())
        if self.most is None or int(clicks[at]) > cast("int", self.most["clicks"]):
            self.most = {"clicks": int(clicks[at]), "user": table["user"][at].as_py()}
        self._add_ranked(table.filter(pc.is_valid(table["structure"])))
        self._add_judged(table.filter(pc.is_valid(table["rank_artifact"])))
        unjudged = pc.and_(pc.is_valid(table["verdict"]), pc.is_null(table["rank_artifact"]))
        self.no_artifact += table.filter(unjudged).num_rows

    def _add_ranked(self, table: "pyarrow.Table") -> None:
        if not table.num_rows:
            return
        self.ranked += table.num_rows
        self._ranks["stored"].append(tuple(table[name].to_numpy() - 1 for name in ("rank_torch", "rank_stored")))
        self.stored_error = max(self.stored_error, float(table["stored_error"].to_numpy().max()))
        names = ["structure", "blocks", "bytes_down", "flops"]
        for row in table.group_by(names).aggregate([([], "count_all")]).to_pylist():
            entry = self._structures.setdefault(row["structure"], [0, *(row[name] for name in names[1:])])
            entry[0] = cast("int", entry[0]) + row["count_all"]

    def _add_judged(self, table: "pyarrow.Table") -> None:
        if not table.num_rows:
            return
        self.judged += table.num_rows
        self._ranks["judged"].append(tuple(table[name].to_numpy() - 1 for name in ("rank_torch", "rank_artifact")))
        self.could_flip += int(table["could_flip"].to_numpy().sum())
        for name in self.flipped:
            overlap = table[name].drop_null().to_numpy()
            self._overlap[name][0] += float(overlap.sum())
            self._overlap[name][1] += len(overlap)
            self.flipped[name] += int((overlap < 1).sum())
        error = table["max_abs_error"].to_numpy()
        self._errors += np.histogram(np.clip(error, _EDGES[0], _EDGES[-1]), _EDGES)[0]
        at = int(error.argmax())
        if self.worst is None or (self.worst["value"] is not None and error[at] > cast("float", self.worst["value"])):
            value = float(error[at]) if np.isfinite(error[at]) else None
            self.worst = {"value": value, "user": table["user"][at].as_py()}

    def overlap(self, name: str) -> float | None:
        """Return the mean overlap of the top 10, None where ten candidates or fewer leave none."""
        total, users = self._overlap[name]
        return total / users if users else None

    def positives(self, whose: str) -> Any:
        """Return NDCG@10 and Hit@10 of torch in fp32, and of the artifact or of the packages as they are stored."""
        from exporter.parity.positives import positives_of_ranks

        before, after = (np.concatenate(ranks) for ranks in zip(*self._ranks[whose], strict=True))
        return positives_of_ranks(before, after)

    def table(self) -> list[dict[str, object]]:
        """Return a line for each structure, the commonest first."""
        ordered = sorted(self._structures.items(), key=lambda pair: (-cast("int", pair[1][0]), pair[0]))
        return [
            {"structure": structure, "users": users, "blocks": blocks, "bytes_down": size, "flops": flops}
            for structure, (users, blocks, size, flops) in ordered
        ]

    def distributions(self) -> list[dict[str, object]]:
        """Return how many users have which structure, bytes, FLOPs, and error."""
        table = self.table()
        told = [(str(line["structure"]), cast("int", line["users"])) for line in table[:_MOST_LABELS]]
        others = sum(cast("int", line["users"]) for line in table[_MOST_LABELS:])
        if others:
            told.append((f"{len(table) - _MOST_LABELS} others", others))
        found: list[dict[str, object]] = [
            {
                "name": "structures",
                "title": "Users by structure",
                "unit": "structure",
                "labels": [label for label, _ in told],
                "counts": [count for _, count in told],
            }
        ]
        for name, title, unit in (
            ("bytes_down", "Users by bytes of the weights package", "bytes"),
            ("flops", "Users by FLOPs of the sub-network", "FLOPs"),
        ):
            counted: dict[int, int] = {}
            for line in table:
                if line[name] is not None:
                    value = cast("int", line[name])
                    counted[value] = counted.get(value, 0) + cast("int", line["users"])
            found.append({"name": name, "title": title, "unit": unit, **_binned(counted)})
        edges = {"edges": _EDGES.tolist(), "counts": self._errors.tolist()}
        title = "Users by the largest error of their scores"
        return [*found, {"name": "max_abs_error", "title": title, "unit": "score", **edges}]


def _binned(counted: Mapping[int, int]) -> dict[str, object]:
    """Return few values with a label each, many in bins of one width."""
    values = sorted(counted)
    if len(values) <= _MOST_LABELS:
        return {"labels": [f"{value:,}" for value in values], "counts": [counted[value] for value in values]}
    counts, edges = np.histogram(values, _MOST_LABELS, weights=[counted[value] for value in values])
    return {"edges": edges.tolist(), "counts": counts.astype(int).tolist()}
