"""What the fleet says of users with a network each: rows, the index of packages, and the figures of all of them."""

from typing import TYPE_CHECKING, Literal, TypedDict, cast

import numpy as np

from exporter.core.types import Arrays
from exporter.fleet import store
from exporter.fleet.distributions import Labelled
from exporter.pipeline import fleet_parts
from exporter.pipeline.fleet_ofa_worker import NOT_DRAWN
from exporter.pipeline.fleet_totals import VERDICTS, ClickedNext, Total

if TYPE_CHECKING:
    import pyarrow

    from exporter.core.precision import Precision
    from exporter.core.types import Verdict
    from exporter.fleet.packages import Folder
    from exporter.pipeline.fleet import Shards
    from exporter.pipeline.fleet_plan import Entry
    from exporter.pipeline.fleet_summary import Pace

_SENT = {"structure": "string", "blocks": "int32", "bytes_up": "int64", "bytes_down": "int64", "flops": "int64"}
_OF_ALL = {"rank_torch": "int32", "rank_stored": "int32", "stored_error": "float64"}


def rows(shards: "Shards", shard: int, figures: Arrays, plan: store.Document) -> "pyarrow.Table":
    """Return the rows of a shard: one for each of its users, with figures of those who have some."""
    import pyarrow as pa

    structures, costs, verdict = _texts(figures["structure"]), _Flops(plan), figures["verdict"]
    judged = (verdict != NOT_DRAWN) & (figures["rank_artifact"] > 0)
    of = {structure: costs.of(structure) for structure in set(structures)}
    columns: dict[str, pyarrow.Array] = {
        "structure": pa.array(structures, pa.string()),
        "blocks": pa.array(figures["structure"].sum(axis=1), pa.int32()),
        "bytes_up": pa.array(np.full(len(verdict), _bytes_up(figures["structure"], plan)), pa.int64()),
        "bytes_down": pa.array(figures["bytes_down"], pa.int64()),
        "flops": pa.array([of[structure] for structure in structures], pa.int64()),
        **{name: pa.array(figures[name], getattr(pa, kind)()) for name, kind in _OF_ALL.items()},
        **fleet_parts.figures_of(figures, fleet_parts.OF_JUDGED, judged),
        "verdict": pa.array(
            [None if number == NOT_DRAWN else VERDICTS[number] for number in verdict.tolist()], pa.string()
        ),
    }
    return pa.table({**fleet_parts.of_everybody(shards, shard), **fleet_parts.spread(shards, shard, columns)})


def index(shards: "Shards", shard: int, figures: Arrays) -> "pyarrow.Table":
    """Return the index of a shard's packages: for each user where it is, or the status of one who has none."""
    import pyarrow as pa

    found = {name: figures.get(name, np.zeros(0, np.int64)) for name in ("offset", "bytes")}  # none, of no users
    digests = [row.tobytes().hex() for row in figures.get("xxh3_128", np.zeros((0, 16), np.uint8))]
    columns = {
        "structure": pa.array(_texts(figures["structure"]), pa.string()),
        **{name: pa.array(values, pa.int64()) for name, values in found.items()},
        "xxh3_128": pa.array(digests, pa.string()),
    }
    return pa.table({**fleet_parts.named(shards, shard), **fleet_parts.spread(shards, shard, columns)})


def _texts(structures: np.ndarray) -> list[str]:
    return ["".join(map(str, row)) for row in structures.tolist()]


def _bytes_up(structures: np.ndarray, plan: store.Document) -> int:
    """Return the bytes of what a device uploads: a byte, a bit for each block, and the latent in fp32."""
    blocks: int = structures.shape[1]
    return 1 + -(-blocks // 8) + 4 * cast("int", plan["latent"])


class _Flops:
    """FLOPs of sub-networks: of the artifact of a structure, else of so many blocks."""

    def __init__(self, plan: store.Document) -> None:
        self._artifacts = cast("dict[str, Entry]", plan["artifacts"])
        self._parts = cast("dict[str, int | None]", plan["flops"])

    def of(self, structure: str) -> int | None:
        """Return them, None where nobody counted."""
        if structure in self._artifacts:
            return self._artifacts[structure]["flops"]
        base, block = self._parts["base"], self._parts["block"]
        blocks = structure.count("1")
        return None if base is None or block is None or not blocks else base + blocks * block


def summary(
    run: store.Run, shards: "Shards", pace: "Pace", folder: "Folder | None", drawn: np.ndarray
) -> dict[str, object]:
    """Return the summary of all parts of a run, read one by one; raises BadInputError where one is not of it."""
    from exporter.artifact import store as artifacts
    from exporter.core.precision import has_own_tables
    from exporter.parity.verdict import worst
    from exporter.pipeline.fleet_summary import clicked_next, of_run, of_users

    total = _Total()
    for shard in range(shards.count):
        total.add(fleet_parts.read(run, shards, shard, {**_SENT, **_OF_ALL, **fleet_parts.OF_JUDGED}, drawn))
    plan = run.plan
    entries = cast("dict[str, Entry]", plan["artifacts"])
    manifests = {
        structure: artifacts.read_manifest(run.folder / store.ARTIFACT / entry["artifact"])
        for structure, entry in entries.items()
    }
    verdict, reason = _verdict(plan, total)
    golden = {structure: one.parity.verdict for structure, one in manifests.items()}
    other_torch = plan["stored"] != "fp32" or has_own_tables(cast("Precision", plan["precision"]))
    return {
        "schema_version": 1,
        "model": plan["model"],
        "program": next((one.program for one in manifests.values()), None),
        "target": plan["target"],
        "precision": plan["precision"],
        "verdict": worst([verdict, worst(golden.values())]),
        "reason": reason,
        "verdict_of_users": verdict,
        "golden_cases": _golden(golden),
        **of_users(total, run, "fp32; above, weights and tables as they are stored" if other_torch else "the same"),
        "verdicts": {**total.verdicts, "not_drawn": total.stored.users - sum(total.verdicts.values())},
        "no_artifact": total.no_artifact,
        "stored": {
            "as": plan["stored"],
            "max_abs_error": total.stored_error if total.stored.users else None,
            "clicked_next": clicked_next(total.stored, plan),
        },
        "structures": total.table(),
        "distributions": [*total.of_structures(), *total.distributions(other_torch)],
        "run": {
            **of_run(run, shards.count, pace),
            "packages": None if folder is None else {"place": str(folder.place), "bytes": folder.archive_bytes()},
        },
    }


def _verdict(plan: store.Document, total: "_Total") -> "tuple[Verdict, str]":
    """Return what is said of the users for whom artifacts were run, and why."""
    from exporter.parity.verdict import judge_users

    unsettled = total.verdicts["unverified"] - total.no_artifact
    precision = cast("Precision", plan["precision"])
    judged = judge_users(total.judged, total.verdicts["fail"], unsettled, total.overlap("top10_overlap"), precision)
    if not total.no_artifact:
        return judged.verdict, judged.reason
    reason = f"{judged.reason}; {total.no_artifact:,} users have a structure of which no artifact was made"
    return "fail" if judged.verdict == "fail" else "unverified", reason


def _golden(verdicts: "dict[str, Verdict]") -> dict[str, object]:
    """Return what golden cases say of the artifacts, by their structures."""
    from exporter.parity.verdict import WORST_FIRST, worst

    counted = {word: sum(verdict == word for verdict in verdicts.values()) for word in WORST_FIRST}
    told = ", ".join(f"{count} {word}" for word, count in counted.items() if count)
    return {
        "verdict": worst(verdicts.values()),
        "reason": f"artifacts of {len(verdicts)} structures, each by golden cases of its own: {told or 'none'}",
        "by_structure": verdicts,
    }


_Shown = Literal["structure", "bytes_down", "flops"]


class Line(TypedDict):
    """What a summary says of a structure; `flops` is None where nobody counted."""

    structure: str
    users: int
    blocks: int
    bytes_down: int
    flops: int | None


class _Total(Total):
    """Sums over users with a network each; what is kept grows with structures only."""

    def __init__(self) -> None:
        super().__init__()
        self.no_artifact = 0
        self.stored = ClickedNext("stored")
        self.stored_error = 0.0
        self._structures: dict[str, Line] = {}

    def add(self, table: "pyarrow.Table") -> None:
        """Add the rows of a part."""
        import pyarrow.compute as pc

        super().add(table)
        unjudged = pc.and_(pc.is_valid(table["verdict"]), pc.is_null(table["rank_artifact"]))
        self.no_artifact += pc.sum(unjudged).as_py() or 0
        ranked = table.filter(pc.is_valid(table["structure"]))
        if not ranked.num_rows:
            return
        self.stored.add(ranked)
        self.stored_error = max(self.stored_error, float(ranked["stored_error"].to_numpy().max()))
        names = ["structure", "blocks", "bytes_down", "flops"]
        for row in ranked.group_by(names).aggregate([([], "count_all")]).to_pylist():
            known = self._structures.get(row["structure"])
            users = row["count_all"] + (known["users"] if known else 0)
            self._structures[row["structure"]] = Line(
                structure=row["structure"],
                users=users,
                blocks=row["blocks"],
                bytes_down=row["bytes_down"],
                flops=row["flops"],
            )

    def table(self) -> list[Line]:
        """Return a line for each structure, the commonest first."""
        return sorted(self._structures.values(), key=lambda line: (-line["users"], line["structure"]))

    def of_structures(self) -> list[dict[str, object]]:
        """Return how many users have which structure, bytes and FLOPs."""
        table = self.table()
        found = []
        titles: tuple[tuple[_Shown, str, str], ...] = (
            ("structure", "Users by structure", "structure, 1 for a block that runs"),
            ("bytes_down", "Users by the size of the weights package", "bytes"),
            ("flops", "Users by the cost of the sub-network", "FLOPs"),
        )
        for name, title, unit in titles:
            counted: dict[str | int | None, int] = {}
            for line in table:
                counted[line[name]] = counted.get(line[name], 0) + line["users"]
            values = list(counted) if name == "structure" else sorted(counted, key=_place)
            shown = Labelled(name, title, unit, [_label(value) for value in values])
            shown.counts[:] = [counted[value] for value in values]
            found.append(shown.document())
        return found


def _place(value: str | int | None) -> float:
    """Return what orders numbers, those that are not known behind all."""
    return float("inf") if value is None else float(value)


def _label(value: str | int | None) -> str:
    return "not known" if value is None else value if isinstance(value, str) else f"{value:,}"
