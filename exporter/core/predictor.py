"""What is known of how long sub-networks take on one device: a latency predictor, as frozen values.

A predictor belongs to one program of one architecture, lowered one way for one target and timed over the connection of
one profile; of anything else it says nothing. Structures are digits, 1 for a block that runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from exporter.core.precision import Fold, Precision
from exporter.core.sections import Count, Extent
from exporter.core.types import Options

MOST_BLOCKS = 64

Name = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Structure = Annotated[str, Field(min_length=1, max_length=MOST_BLOCKS, pattern=r"^[01]+$")]
Time = Annotated[float, Field(gt=0, le=1e12)]
Part = Annotated[float, Field(ge=-1e12, le=1e12)]
Share = Annotated[float, Field(ge=0, le=1e12)]


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What times are of: they say nothing of an artifact that differs in any of these."""

    model: Name
    program: Name
    architecture: Mapping[Name, int | Name]
    history_length: Extent
    candidates: Extent
    target: Name
    options: Options
    precision: Precision
    fold: Fold
    without_passes: tuple[Name, ...]
    profile: Name
    connection: Name
    threads: Extent


@dataclass(frozen=True)
class Costs:
    """Microseconds of a call: what it takes whichever blocks run, and what each block takes besides."""

    call_us: Part
    block_us: Annotated[tuple[Part, ...], Field(min_length=1, max_length=MOST_BLOCKS)]

    def predicted_us(self, structure: Sequence[int]) -> float:
        """Return what a call takes with the blocks that a structure [L] runs, at least one of them."""
        return self.call_us + sum(cost for cost, runs in zip(self.block_us, structure, strict=True) if runs)


@dataclass(frozen=True)
class PredictionError:
    """Relative errors of times that a fit had not seen: |predicted - measured| / measured, found by `method`."""

    median: Share
    p90: Share
    method: Name


@dataclass(frozen=True)
class Sample:
    """A structure that was lowered and timed: the median of its calls."""

    structure: Structure
    p50_us: Time


@dataclass(frozen=True)
class Origin:
    """The predictor that another was transferred from: where it was fitted, and to how many structures."""

    profile: Name
    target: Name
    connection: Name
    samples: Count


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A latency predictor, the times that it was fitted to, what ran them, and how far off it is."""

    conditions: Conditions
    executed_on: Name
    versions: Mapping[Name, Name]
    costs: Costs
    error: PredictionError
    samples: Annotated[tuple[Sample, ...], Field(min_length=1, max_length=4096)]
    method: Name
    transferred_from: Origin | None = None
    schema_version: Literal[1] = 1
