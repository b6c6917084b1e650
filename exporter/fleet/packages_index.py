"""The index of a shard's packages: what it must have, and the row of one user. An index may come from anybody."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    import pyarrow

COLUMNS = {
    "user": "string",
    "status": "string",
    "structure": "string",
    "offset": "int64",
    "bytes": "int64",
    "xxh3_128": "string",
}
"""The columns of an index, with their types as pyarrow calls them."""
RANKED = "ranked"
"""The status of a user who has a package."""
_STRUCTURE = "^[01]{1,1000}$"


@dataclass(frozen=True)
class Row:
    """A user's row; without a package only `status` says something."""

    status: str
    structure: str = ""
    offset: int = 0
    bytes: int = 0
    xxh3_128: str = ""


def check(table: "pyarrow.Table") -> None:
    """Raise ValueError, which completes "is damaged:", for a table that is no index."""
    import pyarrow.compute as pc

    table.validate(full=True)  # also that texts are UTF-8
    held = {field.name: str(field.type) for field in table.schema}
    for name, kind in COLUMNS.items():
        if held.get(name) != kind:
            raise ValueError(f"column {name} is {held.get(name, 'missing')}, and {kind} is wanted")
    if table.num_columns != len(COLUMNS):
        raise ValueError("it has other columns besides")
    if table["user"].null_count or table["status"].null_count:
        raise ValueError("a user or a status is null")
    if pc.count_distinct(table["user"]).as_py() != table.num_rows:
        raise ValueError("a user stands twice")
    ranked = table.filter(pc.equal(table["status"], RANKED))
    if any(ranked[name].null_count for name in COLUMNS):
        raise ValueError("a user who is ranked has no package")
    if not ranked.num_rows:
        return
    if pc.min(ranked["bytes"]).as_py() < 1 or pc.min(ranked["offset"]).as_py() < 0:
        raise ValueError("it names bytes that cannot be")
    offsets, sizes = ranked["offset"].to_numpy(), ranked["bytes"].to_numpy()
    order = np.argsort(offsets)
    if (offsets[order][:-1] > offsets[order][1:] - sizes[order][:-1]).any():
        raise ValueError("two packages lie in each other")
    if not pc.all(pc.match_substring_regex(ranked["structure"], _STRUCTURE)).as_py():
        raise ValueError("a structure is no row of digits")


def sizes(table: "pyarrow.Table") -> np.ndarray:
    """Return the lengths of all packages of an index that is one, int64 [n]."""
    import pyarrow.compute as pc

    return cast("np.ndarray", table.filter(pc.equal(table["status"], RANKED))["bytes"].to_numpy())


def find(table: "pyarrow.Table", user: str) -> Row | None:
    """Return the row of a user in an index that is one, None where there is none."""
    import pyarrow.compute as pc

    try:
        at = pc.index(table["user"], user).as_py()
    except UnicodeEncodeError:  # bytes on the command line that are not UTF-8
        return None
    if at < 0:
        return None
    row = table.slice(at, 1).to_pylist()[0]
    if row["status"] != RANKED:
        return Row(row["status"])
    return Row(**{name: row[name] for name in COLUMNS if name != "user"})
