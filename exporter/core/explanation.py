"""Where the error of an artifact comes from: values that are compared, and what is said of them.

Numbers are [cases, *shape]. None stands for what cannot be said; a `reason` beside it says why.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from exporter.core.types import Shape

if TYPE_CHECKING:
    import numpy as np

Matching = Literal["name", "numbers", "order"]
"""How a value of an artifact was found to be one of torch's: by the name that the converter kept; by its shape and
numbers, which are nearer to that one than to any other; or by its place between others, with its kind and shape."""


@dataclass(frozen=True)
class GraphValue:
    """A value of the captured graph as torch computes it in fp32.

    `module` is the path of the user's module that has the operation, `reads` names the values that it reads, and `kind`
    is that of core.kinds.
    """

    name: str
    module: str
    operation: str
    kind: str | None
    reads: tuple[str, ...]
    numbers: "np.ndarray"


@dataclass(frozen=True)
class TracedValue:
    """A value of an artifact as its runtime computes it.

    `operation` is native; `origin` is what the converter kept of a name: that of a node of the captured graph, or that
    of an output.
    """

    name: str
    operation: str
    kind: str | None
    origin: str | None
    numbers: "np.ndarray"


@dataclass(frozen=True)
class ConstantLoss:
    """What the stored form of one constant costs; `name` is the captured graph's, `module` the user's.

    `read_by` is the operation that reads it, which is of that module. `max_change` is by how much any of its numbers
    changes, `overflows` how many are not finite in the stored form, and `share` the constant's part of what all of them
    change.
    """

    name: str
    module: str
    read_by: str
    shape: Shape
    max_change: float | None
    overflows: int
    share: float | None


@dataclass(frozen=True, kw_only=True)
class Losses:
    """What stored forms of constants change of `outputs`, one at a time: sum(e_i e_all) / sum(e_all^2) is a share.

    `modules` sums the shares of each module's constants, `left` is what all shares leave of 1, and `of_artifact` the
    part of the artifact's own error that all constants together explain: sum(e_all e) / sum(e^2). Constants that
    overflow have no share, and are not in that error.
    """

    method: str
    outputs: tuple[str, ...] = ()
    constants: tuple[ConstantLoss, ...] = ()
    modules: Mapping[str, float] = field(default_factory=dict)
    left: float | None = None
    of_artifact: float | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class OffValue:
    """One value of the artifact beside torch's: `bound` is what its precision allows it to be off by.

    `relative_rms` is the RMS of the error by that of the value, `growth` that figure by the largest one of the values
    that it is computed from, and `not_finite` counts numbers that are infinite or NaN here and finite in torch.
    """

    module: str
    operation: str
    node: str
    own_name: str
    own_operation: str
    matched_by: Matching
    shape: Shape
    max_abs_error: float | None
    relative_rms: float | None
    bound: float
    not_finite: int
    is_beyond: bool
    growth: float | None


@dataclass(frozen=True)
class Unmatched:
    """A value that only one of the two has, or that cannot be told from others."""

    name: str
    operation: str
    shape: Shape


@dataclass(frozen=True)
class ForeignConstant:
    """A constant of the artifact that lowering the same program again does not give; `likely` is what it stands for."""

    name: str
    shape: Shape
    likely: str | None


@dataclass(frozen=True, kw_only=True)
class Located:
    """All values of the artifact that are torch's too, in the order of torch's graph, and how they were had.

    `first_beyond` is the place in `values` of the first that is beyond its bound. `form_error` is the largest
    difference between the outputs of the form in which all values are seen and those of the artifact as it is.
    """

    method: str
    executed_on: str | None = None
    values: tuple[OffValue, ...] = ()
    first_beyond: int | None = None
    form_error: float | None = None
    unmatched: tuple[Unmatched, ...] = ()
    not_seen: tuple[Unmatched, ...] = ()
    foreign_constants: tuple[ForeignConstant, ...] = ()
    reason: str | None = None
