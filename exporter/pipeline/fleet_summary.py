"""What the fleet says of users: the rows of a shard, and the figures of all of them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from exporter.core.types import Arrays
from exporter.fleet import store
from exporter.pipeline import fleet_parts
from exporter.pipeline.fleet_totals import VERDICTS, ClickedNext, Total
from safeio.files import UnreadableError

if TYPE_CHECKING:
    import pyarrow

    from exporter.pipeline.fleet import Shards

_FIGURES: Mapping[str, str] = {"rank_artifact": "int32", "rank_torch": "int32", **fleet_parts.OF_JUDGED}


@dataclass(frozen=True)
class Pace:
    """How many users a command judged, in how many seconds, with how many workers.

    `earlier` for those of a command before this one, to which nothing was left.
    """

    users: int
    seconds: float
    workers: int
    earlier: bool = False


def earlier_pace(run: store.Run) -> Pace:
    """Return the pace that the summary of a finished run has, or none where a command ended before it wrote one."""
    try:
        told = cast("Any", run.summary())["run"]
        users, seconds, workers = told["users"], told["seconds"], told["workers"]
    except (UnreadableError, ValueError, KeyError, TypeError):
        return Pace(0, 0.0, 0)
    known = type(users) is type(workers) is int and type(seconds) in (int, float)
    if not known or min(users, seconds, workers) <= 0 or not math.isfinite(seconds):
        return Pace(0, 0.0, 0)
    return Pace(users, float(seconds), workers, earlier=True)


def rows(shards: "Shards", shard: int, figures: Arrays) -> "pyarrow.Table":
    """Return the rows of a shard: one for each of its users, with `figures` [ranked users] of those who have some."""
    import pyarrow as pa

    verdict = figures["verdict"]
    columns = fleet_parts.figures_of(figures, _FIGURES, np.ones(len(verdict), bool))
    columns["verdict"] = pa.array([VERDICTS[number] for number in verdict.tolist()], pa.string())
    return pa.table({**fleet_parts.of_everybody(shards, shard), **fleet_parts.spread(shards, shard, columns)})


def summary(run: store.Run, shards: "Shards", pace: Pace) -> dict[str, object]:
    """Return the summary of all parts of a run, read one by one; raises BadInputError where one is not of it."""
    from exporter.artifact import store as artifacts
    from exporter.core.precision import has_own_tables
    from exporter.parity.verdict import judge_users, worst

    folder = run.folder / store.ARTIFACT / str(run.plan["artifact"])
    manifest = artifacts.read_manifest(folder)
    total = Total()
    for shard in range(shards.count):
        total.add(fleet_parts.read(run, shards, shard, _FIGURES))
    precision = manifest.precision
    own_tables = has_own_tables(precision)
    judgement = judge_users(
        total.judged, total.verdicts["fail"], total.verdicts["unverified"], total.overlap("top10_overlap"), precision
    )
    of_artifact = manifest.parity.verdict
    return {
        "schema_version": 1,
        "model": manifest.model,
        "program": manifest.program,
        "target": manifest.target,
        "precision": precision,
        "verdict": worst([judgement.verdict, of_artifact]),
        "reason": judgement.reason,
        "verdict_of_users": judgement.verdict,
        "golden_cases": {"verdict": of_artifact, "reason": manifest.parity.reason},
        **of_users(total, run, "fp32 tables; above, tables as they are stored" if own_tables else "the same"),
        "distributions": total.distributions(own_tables),
        "run": {
            **of_run(run, shards.count, pace),
            "artifact": str(Path(store.ARTIFACT) / str(run.plan["artifact"])),
        },
    }


def of_users(total: Total, run: store.Run, torch: str) -> dict[str, object]:
    """Return what a summary says of users; `torch` says what a second torch is, beside that they are held to."""
    asked_of = cast("int", run.plan["users"])
    return {
        "ids": run.plan["ids"],
        "drawn_of": asked_of if total.users < asked_of else None,
        "users": {"all": total.users, **total.status},
        "users_named": {name: users for name, users in total.named.items() if users},
        "clicks": {"unknown": total.unknown, "users_with_unknown": total.with_unknown, "most": total.most},
        "verdicts": total.verdicts,
        "max_abs_error": total.worst,
        "top10": {
            "overlap": total.overlap("top10_overlap"),
            "flipped": total.flipped["top10_overlap"],
            "could_flip": total.could_flip,
            "overlap_with_torch": total.overlap("top10_overlap_torch"),
            "flipped_from_torch": total.flipped["top10_overlap_torch"],
            "torch": torch,
        },
        "clicked_next": clicked_next(total.clicked_next, run.plan),
    }


def clicked_next(clicked: ClickedNext, plan: store.Document) -> dict[str, object] | None:
    """Return how what was clicked next is ranked, among the candidates and by the seed of a plan."""
    return clicked.document(cast("int", plan["seed"]), cast("int", plan["candidates"]))


def of_run(run: store.Run, shards: int, pace: Pace) -> dict[str, object]:
    """Return what a summary says of the run: the last pace at which users were judged, and the size of all parts."""
    seconds = round(pace.seconds, 3)
    return {
        "users": pace.users,
        "seconds": seconds,
        "workers": pace.workers,
        # Of the seconds told, which are all that a later command knows: it says the same.
        "users_per_second": round(pace.users / seconds, 1) if pace.users else None,
        "pace_of": "an earlier command" if pace.earlier else "this command",
        "parts": shards,
        "bytes": sum(run.part(shard).stat().st_size for shard in range(shards)),
    }
