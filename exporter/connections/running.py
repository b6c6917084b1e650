"""Run an artifact where its runtime is; what cannot run there says why."""

from dataclasses import dataclass, replace
from pathlib import Path

from exporter.connections import valgrind
from exporter.connections.interpreter import InterpreterConnection
from exporter.core.checks import Counted
from exporter.core.errors import ProgramError, RuntimeFailureError, RuntimeMissingError, UnsupportedOperationError
from exporter.core.protocols import Connection, Target
from exporter.core.types import Arrays, DataFile, Options, PairedTimes, RunRequest, RunResult, TensorSpec, Verdict


@dataclass(frozen=True)
class Subject:
    """An artifact to run over a connection: what running needs of its manifest.

    `options` are those of its target; `data` is the file from which it reads external weights; `label` is what a
    person calls it.
    """

    target: Target
    model_file: Path
    options: Options
    outputs: tuple[TensorSpec, ...]
    threads: int
    connection: Connection
    data: DataFile | None = None
    label: str = ""

    @property
    def place(self) -> Connection:
        """Return what computes the artifact: its connection, or the interpreter where that cannot have the runtime."""
        needed, there = self.target.system, self.connection.system
        return self.connection if needed is None or there in (None, needed) else InterpreterConnection()


@dataclass(frozen=True)
class Ran:
    """What a run gave: a result, or the verdict that follows from having none, with the reason."""

    result: RunResult | None
    verdict: Verdict
    reason: str | None = None

    def required(self, artifact: Path) -> RunResult:
        """Return the result; raises RuntimeMissingError where nothing could run it, else RuntimeFailureError."""
        if self.result is None:
            kind = RuntimeMissingError if self.verdict == "unverified" else RuntimeFailureError
            raise kind(f"{artifact}: {self.reason}")
        return self.result

    def split(self, cases: int) -> "tuple[Ran, Arrays]":
        """Return the run with the outputs of its first cases only, and the outputs of the others."""
        if self.result is None:
            return self, {}
        outputs = self.result.outputs
        first = replace(self.result, outputs={name: array[:cases] for name, array in outputs.items()})
        return replace(self, result=first), {name: array[cases:] for name, array in outputs.items()}


def run(subject: Subject, inputs: Arrays, warmup: int, iterations: int) -> Ran:
    """Compute all cases and time case 0 in the subject's place."""
    reason = subject.target.unverifiable(subject.options)
    if reason is not None:
        return Ran(None, "unverified", reason)
    try:
        return Ran(subject.place.run(_request(subject, inputs, warmup, iterations)), "pass")
    except (RuntimeMissingError, UnsupportedOperationError) as error:
        return Ran(None, "unverified", str(error))
    except (RuntimeFailureError, ProgramError) as error:
        return Ran(None, "fail", str(error))


def compare_times(
    first: tuple[Subject, Arrays], second: tuple[Subject, Arrays], warmup: int, iterations: int
) -> PairedTimes:
    """Call two artifacts in turn on the first of their cases; raises RuntimeMissingError and RuntimeFailureError."""
    for subject, _ in (first, second):
        reason = subject.target.unverifiable(subject.options)
        if reason is not None:
            raise RuntimeMissingError(reason)
    requests = [_request(subject, inputs, warmup, iterations) for subject, inputs in (first, second)]
    interpreted = [subject for subject, _ in (first, second) if subject.place is not subject.connection]
    place = interpreted[0].place if interpreted else first[0].connection
    return place.compare(*requests)


def _request(subject: Subject, inputs: Arrays, warmup: int, iterations: int) -> RunRequest:
    return RunRequest(
        target=subject.target,
        model_file=subject.model_file,
        inputs=inputs,
        outputs=subject.outputs,
        warmup=warmup,
        iterations=iterations,
        threads=subject.threads,
        data=subject.data,
        options=subject.options,
        label=subject.label,
    )


def count_instructions(subject: Subject, inputs: Arrays) -> Counted:
    """Count the instructions of one call of case 0 on this machine's processor, or say why that cannot be.

    Without a number and a reason, the artifact has none here: it is not run by its own runtime, or not on this machine.
    """
    if subject.place is not subject.connection or subject.connection.name != "host":
        return Counted(None, None)  # an interpreter's own instructions say nothing
    reason = valgrind.why_not() or subject.target.unverifiable(subject.options)
    if reason is not None:
        return Counted(None, None, reason)
    number = valgrind.count(_request(subject, inputs, 0, 0))
    if number is None:
        return Counted(None, None, "valgrind did not come to the end of a call")
    return Counted(number, valgrind.counter())
