"""What the gate says of artifacts, and what a run for a report shows of one: values that reports are drawn from.

Numbers are in the unit that their `unit` names; None stands for what is not known, and `reason` says why.
"""

from dataclasses import dataclass
from typing import Literal

from exporter.core.explanation import Located

Outcome = Literal["kept", "broken", "unknown"]
"""A limit holds, does not hold, or nothing here could tell: what is unknown breaks no limit, and is told of."""


@dataclass(frozen=True)
class Counted:
    """Instructions of one call, and what counted them; without a number `reason` says why."""

    number: int | None
    by: str | None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class LimitCheck:
    """One limit of one artifact: what its figure was in the baseline, is now, and may be.

    `figure` is its name in the configuration (`size`, `flops`), `limit` the limit as a person wrote it or its
    default (`+2%`, `at most 3 MB`, `no slower`), and `line` where it stands in the configuration, None for a
    default. `change` is (value - baseline) / |baseline|, None for what is itself a share. `reason` says why a limit
    is unknown, or more of why it is broken.
    """

    figure: str
    unit: str
    limit: str
    line: int | None
    baseline: float | str | None
    value: float | str | None
    change: float | None
    outcome: Outcome
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What one run of the golden cases showed: scores of torch and of the artifact, pairwise, and times of calls.

    `sampling` says which of all scores these are. `located` is where the error comes from, if that was asked for.
    """

    torch: tuple[float, ...] = ()
    artifact: tuple[float, ...] = ()
    sampling: str | None = None
    samples_us: tuple[float, ...] = ()
    executed_on: str | None = None
    located: Located | None = None
    reason: str | None = None
