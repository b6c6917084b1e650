"""What a target and a connection must offer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from exporter.core.types import Captured, MemoryPlan, Operation, Precision, RunRequest, RunResult


class Target(Protocol):
    """A file format and its runtime; vendor packages are imported inside the methods only.

    `options` are the target's part of a validated profile. `rewrites_half` says that fp16 is lowered from a program that
    passes.half has rewritten; otherwise the target's own converter changes the precision.
    """

    name: str
    extra: str
    precisions: tuple[Precision, ...]
    rewrites_half: bool

    def unverifiable(self, options: Mapping[str, Any]) -> str | None:
        """Return why no runtime here can execute what these options lower to, or None where one can."""

    def lower(self, captured: Captured, precision: Precision, options: Mapping[str, Any], folder: Path) -> Path:
        """Write the model file into `folder` and return its path; raises LoweringError."""

    def operations(self, model_file: Path) -> Sequence[Operation]:
        """Read the operations of the lowered graph from the artifact's own file."""

    def memory_plan(self, model_file: Path) -> MemoryPlan:
        """Read or compute constants and planned activations, in bytes."""


class Connection(Protocol):
    """A place where an artifact can run."""

    name: str

    def run(self, request: RunRequest) -> RunResult:
        """Run the artifact in a process of its own; raises RuntimeFailureError or RuntimeMissingError."""
