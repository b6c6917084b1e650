"""What the columns of an interaction file are called: the names that people use, or those that --columns gives."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from safeio.errors import BadInputError

NAMES: Mapping[str, tuple[str, ...]] = {
    "user": ("user", "userId", "user_id", "reviewerID"),
    "item": ("item", "movieId", "item_id", "parent_asin", "asin", "business_id"),
    "time": ("order", "timestamp", "unixReviewTime", "date", "time"),
    "rating": ("rating", "overall", "stars"),
}
"""Names in published data; where a file has several of one line, the first counts: Amazon's have `asin` twice."""

_THINGS = ("product", "article", "movie", "track", "song", "book", "video", "business", "content", "game", "recipe")
_PEOPLE = ("customer", "client", "visitor", "account", "member", "buyer", "shopper", "reviewer", "listener", "viewer")
_PAST = ("created", "clicked", "viewed", "ordered", "purchased", "bought", "rated", "played", "visited", "occurred")
_EVENTS = ("event", "click", "order", "purchase", "review", "rating", "transaction", "interaction", "view", "unix")
_OTHERS: Mapping[str, tuple[frozenset[str], ...]] = {
    "user": (
        frozenset({"user", "userid", "uid", *_PEOPLE, *(f"{word}id" for word in _PEOPLE)}),
        frozenset({"session", "sessionid", "visit", "visitid"}),
    ),
    "item": (
        frozenset({"item", "itemid", "iid", "sku", "asin", "isbn", *_THINGS, *(f"{word}id" for word in _THINGS)}),
    ),
    "time": (
        frozenset({"time", "timestamp", "ts", "date", "datetime", "when", "created", "invoicedate", "position"})
        | {f"{word}{end}" for word in _PAST for end in ("at", "on")}
        | {f"{word}{end}" for word in _EVENTS for end in ("time", "timestamp", "date", "datetime", "ts")},
    ),
    "rating": (frozenset({"rating", "ratings", "stars"}),),
}
"""Further names, in small letters without signs between; a later set counts where nothing of an earlier one is."""
_ATOMIC = re.compile(r":(?:token|float)(?:_seq)?$")
"""What RecBole's atomic files append to a name."""
_SHOWN = 80


@dataclass(frozen=True)
class Columns:
    """The names that --columns gave for roles; None where a column is to be found by its name."""

    user: str | None = None
    item: str | None = None
    time: str | None = None
    rating: str | None = None

    @property
    def given(self) -> dict[str, str]:
        """Return role -> name of what was given."""
        return {role: name for role, name in asdict(self).items() if name is not None}

    def __str__(self) -> str:
        return ",".join(f"{role}={name}" for role, name in self.given.items())


BY_NAME = Columns()
"""All are found by their names."""


def parse_columns(text: str) -> Columns:
    """Return what `user=NAME,item=NAME,...` says; raises BadInputError."""
    given: dict[str, str] = {}
    for part in text.split(","):
        role, separator, name = (word.strip() for word in part.partition("="))
        if role not in NAMES or not separator or not name or role in given or name in given.values():
            raise BadInputError(
                f"--columns must be user=NAME,item=NAME,time=NAME and perhaps rating=NAME, each once and each with a"
                f" column of its own, not {text[:_SHOWN]!r}"
            )
        given[role] = name
    return Columns(**given)


def find_columns(there: Sequence[str], columns: Columns, kind: str = "column") -> dict[str, str]:
    """Return role -> name of those of the names `there` that have a role; a role that has none is absent.

    A rating is not looked for where --columns gave all the others.
    Raises ValueError where a name that --columns gave is not there, or where two names could have a role.
    """
    for role, name in columns.given.items():
        if name not in there:
            raise ValueError(
                f"no {kind} {name[:_SHOWN]!r}, which --columns names for the {role}; found {listed(there)}"
            )
    free = [name for name in there if name not in columns.given.values()]
    sought = [role for role in NAMES if role not in columns.given]
    if sought == ["rating"]:  # who gives all that is needed does not want what is not
        sought = []
    by_name = {role: _by_name(role, free, kind) for role in sought}
    found = columns.given | {role: name for role, name in by_name.items() if name is not None}
    return {field.name: found[field.name] for field in fields(Columns) if field.name in found}


def has_published_name(there: Sequence[str]) -> bool:
    """Tell whether one of the names is known from published data."""
    return any(name in there for names in NAMES.values() for name in names)


def listed(there: Sequence[str]) -> str:
    """Return names for a message."""
    return repr(", ".join(there)[:_SHOWN])


def _by_name(role: str, there: Sequence[str], kind: str) -> str | None:
    published = next((name for name in NAMES[role] if name in there), None)
    if published is not None:
        return published
    plain = {name: re.sub(r"[\s_.-]", "", _ATOMIC.sub("", name)).lower() for name in there}
    for others in _OTHERS[role]:
        candidates = [name for name in plain if plain[name] in others]
        if len(candidates) > 1:
            raise ValueError(
                f"{' and '.join(map(repr, candidates))[:_SHOWN]} could each be the {kind} for the {role}; say which:"
                f" --columns {role}=NAME"
            )
        if candidates:
            return candidates[0]
    return None
