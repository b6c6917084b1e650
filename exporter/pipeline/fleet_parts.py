"""Whether a part that a run goes on with has the rows that its shard would have."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from exporter.core.errors import BadInputError
from exporter.fleet import store
from exporter.pipeline.fleet_totals import VERDICTS

if TYPE_CHECKING:
    import pyarrow

    from exporter.pipeline.fleet import Shards

_OF_EVERYBODY = {"user": "string", "status": "string", "clicks": "int32", "unknown_clicks": "int32"}


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

    from models.training.users import RANKED, STATUSES

    types = {name: getattr(pa, kind)() for name, kind in {**_OF_EVERYBODY, **kinds, "verdict": "string"}.items()}
    users, own = shards.users, shards.of(shard)
    if {field.name: field.type for field in table.schema} != types or table.num_columns != len(types):
        return False
    known = {
        "user": [users.names[user] for user in own.tolist()],
        "status": [STATUSES[number] for number in users.status[own].tolist()],
        "clicks": users.clicks[own].tolist(),
        "unknown_clicks": users.unknown[own].tolist(),
    }
    if any(table[name].to_pylist() != values for name, values in known.items()):
        return False
    ranked = users.status[own] == STATUSES.index(RANKED)
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
