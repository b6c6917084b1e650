"""What a target and a connection must offer."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from exporter.core.calling import Calling, Snippet
from exporter.core.precision import Precision
from exporter.core.types import (
    Arrays,
    Captured,
    DeviceRuntime,
    GraphForm,
    Lowered,
    Options,
    PairedTimes,
    RunRequest,
    RunResult,
    Verdict,
)

if TYPE_CHECKING:  # the command line imports this module when it starts
    from pydantic import BaseModel

    from exporter.core.explanation import TracedValue


class Tracing(Protocol):
    """How the values inside a target's files are seen; `method` says it to people in a phrase."""

    method: str

    def lower(self, captured: Captured, precision: Precision, options: Options, folder: Path) -> Path | None:
        """Write a form of the program into `folder` that gives every value, and return its path; raises LoweringError.

        None where the artifact's own file can be looked into.
        """

    def load(self, model_file: Path) -> "Callable[[Arrays], Sequence[TracedValue]]":
        """Load what `lower` wrote, or an artifact's file; return what computes all values of floats for one case.

        Values that depend on no input are left out. Called by `targets.tracing` alone, in a process of its own.
        """


class Target(Protocol):
    """A file format and its runtime; vendor packages are imported inside the methods only.

    `options` are the target's part of a validated profile; `extra` is what running needs; `packages` are what lowering
    imports besides torch, each with the name of its distribution; `external_weights` is the form in which `lower` wants
    weights that stay outside the program; `system` is the only one that has the runtime, as sys.platform names it, or
    None; `model_file` is the name of what `lower` writes; `read_beside` names the files that its reader or its runtime
    looks for beside it; `passes` names the optional passes of `graph` that pay here, as was measured. With `any_batch`
    it lowers a captured program whose first axis is of any number of users, as programs of the cloud have it.
    """

    name: str
    extra: str
    packages: Mapping[str, str]
    precisions: tuple[Precision, ...]
    external_weights: Literal["inputs", "parameters"]
    system: str | None
    runtime: DeviceRuntime
    model_file: str
    read_beside: tuple[str, ...]
    passes: tuple[str, ...]
    any_batch: bool

    def options_model(self) -> "type[BaseModel]":
        """Return the schema of its options in a profile; its module imports pydantic, so it is imported here."""

    def fp16_form(self, options: Options) -> GraphForm:
        """Say which form a body of fp16 is lowered from; all but "half" leave it to the target's own converter."""

    def refusal(self, precision: Precision, options: Options) -> str | None:
        """Return why these options cannot have one of the precisions, and what to do, or None where they can."""

    def unverifiable(self, options: Options) -> str | None:
        """Return why no runtime here can execute what these options lower to, or None where one can."""

    def lower(self, captured: Captured, precision: Precision, options: Options, folder: Path) -> Path:
        """Write the model file into `folder` and return its path; raises LoweringError."""

    def snippets(self, call: Calling) -> tuple[Snippet, ...]:
        """Return code that calls one program, in each language that its runtime has; the names in it are plain."""

    def read(self, model_file: Path) -> Lowered:
        """Read what the artifact's own file says, with the vendor's reader, which raises what it likes or never ends.

        Called by `targets.reading` alone, in a process of its own.
        """

    def tracing(self) -> Tracing | None:
        """Return how the values inside its files are seen, or None where nothing sees them."""


class Connection(Protocol):
    """A place where an artifact can run; `system` is what it is, as sys.platform names it, None where only it knows."""

    name: str
    system: str | None

    def check(self) -> None:
        """Raise DeviceError where the place cannot be reached; asked before any work is done for it."""

    def run(self, request: RunRequest) -> RunResult:
        """Run the artifact in a process of its own; raises RuntimeFailureError or RuntimeMissingError."""

    def compare(self, first: RunRequest, second: RunRequest) -> PairedTimes:
        """Call two artifacts in turn in one process, so that what slows the machine slows both; raises as `run`."""

    def show(self, verdict: Verdict, words: str, facts: Mapping[str, str]) -> None:
        """Tell the person at the device what came of the last run; does nothing where nobody is there."""
