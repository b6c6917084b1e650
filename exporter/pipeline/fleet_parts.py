"""The rows of a shard: how those of all users are put together, and whether a part that is there has them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from exporter.core.errors import BadInputError
from exporter.core.types import Arrays
from exporter.fleet import store
from exporter.pipeline.fleet_totals import VERDICTS

if TYPE_CHECKING:
    import pyarrow

    from exporter.pipeline.fleet import Shards

OF_JUDGED: Mapping[str, str] = {
    "rank_artifact": "int32",
    "max_abs_error": "float64",
    "allowed_error": "float64",
    "top10_overlap": "float64",
    "top10_overlap_torch": "float64",
    "could_flip": "bool_",
}
"""The columns of whom an artifact was run for, with their types as pyarrow makes them."""


def named(shards: "Shards", shard: int) -> "dict[str, pyarrow.Array]":
    """Return who the users of a shard are, and what becomes of them."""
    import pyarrow as pa

    from models.training.users import STATUSES

    users, own = shards.users, shards.of(shard)
    return {
        "user": pa.array([users.names[user] for user in own.tolist()], pa.string()),
        "status": pa.array([STATUSES[number] for number in users.status[own].tolist()], pa.string()),
    }


def of_everybody(shards: "Shards", shard: int) -> "dict[str, pyarrow.Array]":
    """Return the columns that all users of a shard have."""
    import pyarrow as pa

    users, own = shards.users, shards.of(shard)
    return {
        **named(shards, shard),
        "clicks": pa.array(users.clicks[own], pa.int32()),
        "unknown_clicks": pa.array(users.unknown[own], pa.int32()),
    }


def spread(shards: "Shards", shard: int, columns: "Mapping[str, pyarrow.Array]") -> "dict[str, pyarrow.Array]":
    """Return columns of those who are ranked for as columns of all users of a shard, null for the others."""
    import pyarrow as pa

    ranked = shards.are_able(shards.of(shard))
    where = pa.array(np.maximum(np.cumsum(ranked) - 1, 0), pa.int64(), mask=~ranked)
    return {name: column.take(where) for name, column in columns.items()}


def figures_of(figures: Arrays, kinds: Mapping[str, str], judged: np.ndarray) -> "dict[str, pyarrow.Array]":
    """Return columns of figures [n], null where a user is not `judged` [n] and where a figure is no number."""
    import pyarrow as pa

    columns = {}
    for name, kind in kinds.items():
        values = figures[name]
        empty = ~judged | np.isnan(values) if values.dtype.kind == "f" else ~judged
        columns[name] = pa.array(values, getattr(pa, kind)(), mask=empty)
    return columns


def read(
    run: store.Run, shards: "Shards", shard: int, kinds: Mapping[str, str], drawn: "np.ndarray | None" = None
) -> "pyarrow.Table":
    """Return the rows of a shard; raises BadInputError where they are not those of its users.

    `kinds` are the types of the columns beside those of everybody. A verdict is due for who is `drawn`, rising, or for
    all who are ranked where that is None; who has none has no rank of the artifact.
    """
    table = run.read(shard)
    if not _is_whole(table, shards, shard, kinds, drawn):
        path = run.part(shard)
        raise BadInputError(f"{path} has not the rows of its users; remove it, and they are judged again")
    return table


def _is_whole(
    table: "pyarrow.Table", shards: "Shards", shard: int, kinds: Mapping[str, str], drawn: "np.ndarray | None"
) -> bool:
    import pyarrow as pa

    known, own = of_everybody(shards, shard), shards.of(shard)
    types = {name: column.type for name, column in known.items()}
    types |= {name: getattr(pa, kind)() for name, kind in {**kinds, "verdict": "string"}.items()}
    if {field.name: field.type for field in table.schema} != types or table.num_columns != len(types):
        return False
    if any(not table[name].combine_chunks().equals(column) for name, column in known.items()):
        return False
    ranked = shards.are_able(own)
    due = ranked if drawn is None else np.isin(own, drawn)
    verdict = np.array(table["verdict"].to_pylist(), object)
    judged = table["rank_artifact"].is_valid().to_numpy()
    if ((verdict != None) != due).any() or not set(verdict[due]) <= set(VERDICTS):  # noqa: E711 - of each
        return False
    unmade = due & (verdict == "unverified") if drawn is not None else np.zeros(len(due), bool)
    if (judged & ~due).any() or (due & ~judged & ~unmade).any():
        return False
    there = {"rank_artifact": judged, "max_abs_error": judged, "allowed_error": judged, "could_flip": judged}
    there |= {name: ranked for name in ("rank_torch", "rank_stored", "stored_error", "structure") if name in kinds}
    for name, whose in there.items():
        if (table[name].is_valid().to_numpy() != whose).any():
            return False
        if name.startswith("rank_") and (table[name].drop_null().to_numpy() < 1).any():
            return False
    return True
