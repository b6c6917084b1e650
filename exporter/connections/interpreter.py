"""The `interpreter` connection: Core ML programs, computed by the reference interpreter on any machine."""

import platform
from collections.abc import Mapping

import numpy as np

from exporter import mil
from exporter.core.errors import RuntimeMissingError
from exporter.core.types import PairedTimes, RunRequest, RunResult, Verdict

_REASON = "times and memory of the reference interpreter say nothing about Core ML; run on macOS to measure them"


class InterpreterConnection:
    """Computes in this process; a program's parts are bounded by `mil`, its time is not."""

    name = "interpreter"
    system: str | None = None

    def check(self) -> None:
        """Do nothing: it is part of this tool."""

    def run(self, request: RunRequest) -> RunResult:
        """Compute all cases; times and memory are None. Raises ProgramError and UnsupportedOperationError."""
        program = mil.load(request.model_file)
        rows: dict[str, list[np.ndarray]] = {spec.name: [] for spec in request.outputs}
        unsettled: dict[str, None] = {}
        for case in zip(*request.inputs.values(), strict=True):
            done = program.execute(dict(zip(request.inputs, case, strict=True)))  # parity names what is not finite
            unsettled.update(dict.fromkeys(done.unsettled))
            for name, values in rows.items():
                values.append(done.outputs[name])
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
            reason=_REASON,
            connection=self.name,
        )

    def compare(self, first: RunRequest, second: RunRequest) -> PairedTimes:
        """Raise RuntimeMissingError: there is no time here to compare."""
        raise RuntimeMissingError(_REASON)

    def show(self, verdict: Verdict, words: str, facts: Mapping[str, str]) -> None:
        """Do nothing: whoever is there has the terminal."""
