"""Run an artifact where its runtime is, and judge what comes back."""

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from exporter import mil
from exporter.connections.host import HostConnection
from exporter.core.errors import ProgramError, RuntimeFailureError, RuntimeMissingError, UnsupportedOperationError
from exporter.core.protocols import Connection, Target
from exporter.core.types import Arrays, DataFile, PairedTimes, Precision, RunRequest, RunResult, TensorSpec, Verdict
from exporter.parity.compare import compare, ranking_figures
from exporter.parity.verdict import judge

Section = dict[str, Any]

_FIGURES = (
    *("executed_on", "cases", "max_abs_error", "max_rel_error", "output_errors", "top10_overlap", "kendall_tau"),
    *("flip_margin", "twice_max_error", "could_flip", "ranking_reason", "tolerance"),
)


@dataclass(frozen=True)
class Subject:
    """An artifact to run: what its manifest says that running and judging need."""

    target: Target
    model_file: Path
    options: Mapping[str, Any]
    precision: Precision
    outputs: tuple[TensorSpec, ...]
    ranking: str | None
    threads: int
    data: DataFile | None = None
    connection: Connection = field(default_factory=HostConnection)

    @classmethod
    def of(
        cls, folder: Path, manifest: Mapping[str, Any], target: Target, connection: Connection | None = None
    ) -> "Subject":
        """Return what the artifact in `folder` says of itself, to run over `connection` or on this host."""
        entry = (manifest.get("external") or {}).get("data_file")
        return cls(
            target=target,
            model_file=folder / manifest["model_file"],
            options=manifest["options"],
            precision=manifest["precision"],
            outputs=specs(manifest["outputs"]),
            ranking=manifest["ranking"],
            threads=manifest["threads"],
            data=None if entry is None else DataFile(entry["name"], {k: tuple(v) for k, v in entry["tensors"].items()}),
            connection=connection or HostConnection(),
        )


def specs(rows: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    """Return the inputs or outputs that a manifest lists."""
    return tuple(TensorSpec(row["name"], tuple(row["shape"]), row["dtype"]) for row in rows)


@dataclass(frozen=True)
class Ran:
    """What a run gave: a result, or the verdict that follows from having none, with the reason."""

    result: RunResult | None
    verdict: Verdict
    reason: str | None = None

    def split(self, cases: int) -> "tuple[Ran, Arrays]":
        """Return the run with the outputs of its first cases only, and the outputs of the others."""
        if self.result is None:
            return self, {}
        outputs = self.result.outputs
        first = replace(self.result, outputs={name: array[:cases] for name, array in outputs.items()})
        return replace(self, result=first), {name: array[cases:] for name, array in outputs.items()}


def run(subject: Subject, inputs: Arrays, warmup: int, iterations: int) -> Ran:
    """Compute all cases and time case 0 over the subject's connection.

    Core ML is interpreted where no Mac can be in reach: off macOS, and not over ssh.
    """
    reason = subject.target.unverifiable(subject.options)
    if reason is not None:
        return Ran(None, "unverified", reason)
    try:
        if subject.target.name == "coreml" and sys.platform != "darwin" and subject.connection.name != "ssh":
            return Ran(_interpret(subject, inputs), "pass")
        return Ran(subject.connection.run(_request(subject, inputs, warmup, iterations)), "pass")
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
    return first[0].connection.compare(*requests)


def _request(subject: Subject, inputs: Arrays, warmup: int, iterations: int) -> RunRequest:
    return RunRequest(
        target=subject.target.name,
        model_file=subject.model_file,
        inputs=inputs,
        outputs=subject.outputs,
        warmup=warmup,
        iterations=iterations,
        threads=subject.threads,
        data=subject.data,
        compute_units=subject.options.get("compute_units", "ALL"),
    )


def parity(subject: Subject, ran: Ran, expected: Arrays) -> Section:
    """Compare with the torch outputs and give the verdict."""
    if ran.result is None:
        return unjudged(ran.verdict, ran.reason or "")
    report = compare(expected, ran.result.outputs, subject.ranking)
    judged = judge(report, subject.precision, ran.result.unsettled)
    ranking = report.ranking
    return {
        "verdict": judged.verdict,
        "reason": judged.reason,
        "executed_on": ran.result.executed_on,
        "cases": report.cases,
        "max_abs_error": report.max_abs_error,
        "max_rel_error": report.max_rel_error,
        "output_errors": {output.name: output.max_abs_error for output in report.outputs} or None,
        "top10_overlap": ranking.top10_overlap if ranking else None,
        "kendall_tau": ranking.kendall_tau if ranking else None,
        "flip_margin": ranking.flip_margin if ranking else None,
        "twice_max_error": ranking.twice_max_error if ranking else None,
        "could_flip": ranking.could_flip if ranking else None,
        "unsettled": list(ran.result.unsettled),
        "ranking_reason": report.ranking_reason or (ranking.reason if ranking else None),
        "tolerance": None if judged.tolerance is None else asdict(judged.tolerance),
    }


def agreement(name: str, expected: np.ndarray, actual: np.ndarray) -> Section:
    """Say how far two scores [cases, ..., candidates] of the same candidates rank them alike."""
    figures = ranking_figures(name, expected, actual)
    return {
        "cases": len(expected),
        "top10_overlap": figures.top10_overlap if figures else None,
        "kendall_tau": figures.kendall_tau if figures else None,
        "reason": figures.reason if figures else "one candidate leaves nothing to rank",
    }


def unjudged(verdict: Verdict, reason: str) -> Section:
    """Return the parity section of an artifact that was not compared."""
    return {"verdict": verdict, "reason": reason, **dict.fromkeys(_FIGURES), "unsettled": []}


def _interpret(subject: Subject, inputs: Arrays) -> RunResult:
    """Compute all cases of a Core ML program with the reference interpreter."""
    program = mil.load(subject.model_file)
    names = [spec.name for spec in subject.outputs]
    rows: dict[str, list[np.ndarray]] = {name: [] for name in names}
    unsettled: dict[str, None] = {}
    for case in zip(*inputs.values(), strict=True):
        done = program.execute(dict(zip(inputs, case, strict=True)))  # parity names what is not finite
        unsettled.update(dict.fromkeys(done.unsettled))
        for name in names:
            rows[name].append(done.outputs[name])
    return RunResult(
        outputs={name: np.stack(values) for name, values in rows.items()},
        executed_on=f"reference interpreter (numpy {np.__version__}) on {platform.machine()} {platform.system()}",
        load_ms=None,
        first_us=None,
        samples_us=(),
        peak_rss_bytes=None,
        baseline_rss_bytes=None,
        threads=None,
        unsettled=tuple(unsettled),
        reason="times and memory of the reference interpreter say nothing about Core ML; run on macOS to measure them",
    )
