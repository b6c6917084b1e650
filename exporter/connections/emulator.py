"""The `emulator` connection: ARM64 code on an emulated processor of this machine, out of the installed bundle."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from exporter.connections import bundle
from exporter.connections.agent_archive import write_agent
from exporter.connections.counting import CountingError, count
from exporter.connections.host import death, run_agent
from exporter.connections.run_folder import read_response, require_models, write_request
from exporter.core.errors import RuntimeMissingError
from exporter.core.types import PairedTimes, RunRequest, RunResult, Verdict
from safeio.staging import scratch

_SETTLED = 3  # calls after which runtimes have the memory that they will use
_REASON = "an emulated processor's time and memory say nothing about a real one"


class EmulatorConnection:
    """Starts the agent in the bundle's Python, on a processor model `cpu` of qemu's."""

    name = "emulator"
    system: str | None = "linux"

    def __init__(self, cpu: str) -> None:
        self._cpu = cpu

    def check(self) -> None:
        """Do nothing: without the bundle an artifact is still made, and stays unverified."""

    def run(self, request: RunRequest) -> RunResult:
        """Run the request and return its outputs; times and memory are None. Nothing stays behind, whatever happens.

        Raises what HostConnection.run raises, and RuntimeMissingError where the bundle is not installed.
        """
        installed = bundle.find()
        require_models(request)
        request = replace(request, warmup=0, iterations=0)
        with scratch("run") as folder:
            write_request(folder, request, str(request.model_file.resolve()), None, watch_stdin=True)
            command = self._command(installed, folder, request)
            variables = bundle.environment(str(installed.root), request.threads)
            status = run_agent(command, variables, folder, request.time_limit_s)
            if not (folder / "response.json").exists() or status not in (0, 1):
                raise death(status, request, folder)
            result = read_response(folder, request)
        instructions, why = self._instructions(installed, request)
        version = installed.versions["qemu-user"].split(":")[-1].split("+")[0]
        processor = f"{self._cpu} emulated by qemu {version}"
        return replace(
            result,
            executed_on=f"{result.executed_on}, {processor}",
            load_ms=None,
            first_us=None,
            peak_rss_bytes=None,
            baseline_rss_bytes=None,
            reason="; ".join(filter(None, (_REASON, why))),
            instructions=instructions,
            counted_on=None if instructions is None else processor,
            connection=self.name,
            conditions={},
        )

    def compare(self, first: RunRequest, second: RunRequest) -> PairedTimes:
        """Raise RuntimeMissingError: there is no time here to compare."""
        raise RuntimeMissingError(f"{_REASON}; compare on a device, or by instructions")

    def show(self, verdict: Verdict, words: str, facts: Mapping[str, str]) -> None:
        """Do nothing: whoever is there has the terminal."""

    def _instructions(self, installed: bundle.Bundle, request: RunRequest) -> tuple[int | None, str | None]:
        """Count the instructions of one call of case 0, in a run of its own; None and the reason where that fails."""
        one = {name: array[:1] for name, array in request.inputs.items()}
        with scratch("run") as folder:
            request = replace(request, inputs=one, warmup=_SETTLED)
            write_request(folder, request, str(request.model_file.resolve()), None, watch_stdin=False, mark=True)
            variables = bundle.environment(str(installed.root), request.threads)
            try:
                return count(self._command(installed, folder, request), variables, folder), None
            except CountingError as error:
                return None, f"instructions were not counted: {error}"

    def _command(self, installed: bundle.Bundle, folder: Path, request: RunRequest) -> list[str]:
        """Put the agent into `folder`; return the words that start it there."""
        agent = write_agent(folder, (request.target,))
        # The seed fixes the random bytes that a process is given at its start, and so the addresses that hang on them.
        emulate = [str(installed.qemu), "-cpu", self._cpu, "-seed", "1"]
        return [*emulate, *bundle.launch(str(installed.root), [str(agent), str(folder)])]
