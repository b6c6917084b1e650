"""The device that is at work: what it is called, what it says of itself, and how its job stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from exporter.connections.response import printable
from safeio import strict_json

_IDLE_S = 5.0


@dataclass(frozen=True)
class Beat:
    """How far a page is: what it does, how much of how much is done, and whether a person sees the page."""

    phase: str = "waiting"
    done: float = 0.0
    total: float = 0.0
    is_visible: bool = True


@dataclass
class Device:
    """The device that is at work: the secret that it shows with each word, its name, and what it is told."""

    ticket: str
    name: str
    seen: float
    beat: Beat = field(default_factory=Beat)
    events: list[dict[str, Any]] = field(default_factory=list)
    left: bool = False
    started: float | None = None
    is_known: bool = False

    def is_idle(self, now: float) -> bool:
        """Say whether it never began with anything and is silent or out of sight: another may take its place."""
        return not self.is_known and (now - self.seen > _IDLE_S or not self.beat.is_visible)


@dataclass(frozen=True)
class Situation:
    """How a job stands: since when there is one, who does it, and when a word of that device last came.

    `started` is when it began with it; `is_known` says whether it ever began with one, `has_left` whether it said that
    it goes after that.
    """

    began: float
    device: str | None = None
    beat: Beat = field(default_factory=Beat)
    seen: float = 0.0
    started: float | None = None
    is_known: bool = False
    has_left: bool = False


def words_of(body: bytes) -> dict[str, Any]:
    """Return what a page says, a JSON object; raises ValueError for anything else."""
    document = strict_json.loads(body)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return document


def beat_of(document: Mapping[str, Any], last: Beat) -> Beat:
    """Return how far a page says that it is; what it does not say stays as it was."""

    def number(name: str) -> float:
        value = document.get(name, 0)
        return float(value) if isinstance(value, int | float) and 0 <= value < 2**53 else 0.0

    phase = document.get("phase", last.phase)
    return Beat(
        printable(phase)[:60] if isinstance(phase, str) else last.phase,
        number("done"),
        number("total"),
        document.get("visible") is not False,
    )
