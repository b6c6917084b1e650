"""The `host` connection: the artifact runs on this machine, in a process of its own."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from exporter.connections.agent.contract import OUT_OF_MEMORY
from exporter.connections.agent_archive import write_agent
from exporter.connections.run_folder import log_tail, read_comparison, read_response, require_models, write_request
from exporter.core.errors import CocorrError, OutputError, RuntimeCrashError, RuntimeMemoryError, RuntimeTimeoutError
from exporter.core.types import PairedTimes, RunRequest, RunResult, Verdict
from safeio.staging import ROOM, scratch

Answer = TypeVar("Answer")

_FROM_OUTSIDE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_LEAST_FREE_BYTES = 4096
SIGNALS = {number.value: number.name for number in signal.Signals}


class HostConnection:
    """Starts the agent with this Python.

    `memory_limit_bytes` bounds the private memory of the runtime's process; the default is what the machine has.
    """

    name = "host"
    system: str | None = sys.platform

    def __init__(self, memory_limit_bytes: int | None = None) -> None:
        self._memory_limit_bytes = machine_memory() if memory_limit_bytes is None else memory_limit_bytes

    def check(self) -> None:
        """Do nothing: this machine is there."""

    def run(self, request: RunRequest) -> RunResult:
        """Run the request and return outputs, times and memory; nothing of it stays behind, whatever happens.

        Raises RuntimeTimeoutError, RuntimeMemoryError, RuntimeCrashError, RuntimeMissingError, MissingExtraError,
        ArtifactError (the model is not there or has another signature) and BadInputError.
        """
        return self._serve(request, None, read_response)

    def compare(self, first: RunRequest, second: RunRequest) -> PairedTimes:
        """Call two artifacts in turn in one process, with the counts, threads and limits of `first`."""
        return self._serve(first, second, read_comparison)

    def show(self, verdict: Verdict, words: str, facts: Mapping[str, str]) -> None:
        """Do nothing: whoever is there has the terminal."""

    def _serve(
        self, request: RunRequest, rival: RunRequest | None, read: Callable[[Path, RunRequest], Answer]
    ) -> Answer:
        requests = [one for one in (request, rival) if one is not None]
        require_models(*requests)
        with scratch("run") as folder:
            files = [str(one.model_file.resolve()) for one in requests]
            other = None if rival is None else (rival, files[1])
            write_request(folder, request, files[0], self._memory_limit_bytes, watch_stdin=True, rival=other)
            agent = write_agent(folder, (one.target for one in requests))
            # -P: the folder of the agent must not shadow packages.
            command = [sys.executable, "-P", str(agent), str(folder)]
            status = run_agent(command, environment(request.threads), folder, request.time_limit_s)
            if (folder / "response.json").exists() and status in (0, 1):
                return read(folder, request)
            raise death(status, request, folder)


def machine_memory() -> int:
    """Return the bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def run_agent(command: Sequence[str], variables: Mapping[str, str], folder: Path, time_limit_s: float | None) -> int:
    """Start the agent by `command`, wait for its end and return its exit status, negative for a signal.

    It leads a process group of its own, so that a Ctrl-C in the terminal reaches this process only, and this one ends
    the whole group. Its standard input is a pipe from here: when this process is killed, the agent sees it close.
    """
    # Standard streams of the runtime go to a file in the folder.
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=variables,
            start_new_session=True,
        )
        try:
            return process.wait(time_limit_s)
        except subprocess.TimeoutExpired:
            return -signal.SIGALRM  # as if its own alarm had been first
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if process.stdin is not None:
                process.stdin.close()


def environment(threads: int) -> dict[str, str]:
    """This process's environment with `settings`."""
    return {**os.environ, **settings(threads)}


def settings(threads: int) -> dict[str, str]:
    """The variables that fix the runtimes' thread pools and turn their logs down to errors."""
    pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "GLOG_minloglevel": "2", "PYTHONWARNINGS": "ignore"}
    return {**dict.fromkeys(pools, str(threads)), **quiet}


def death(status: int, request: RunRequest, folder: Path) -> CocorrError:
    """The error for an agent that ended with `status` and without an answer in `folder`."""
    name, tail = request.target.name, log_tail(folder)
    if shutil.disk_usage(folder).free < _LEAST_FREE_BYTES:  # runtimes say nothing of it, and crash
        return OutputError(f"the {name} runtime ended early, and {folder.parent} is full; {ROOM}")
    if status == -signal.SIGALRM:
        return RuntimeTimeoutError(
            f"the {name} runtime did not finish within {request.time_limit_s:g} s and was ended; "
            "allow it more time or ask for fewer iterations"
        )
    if status < 0:
        dead = SIGNALS.get(-status, f"signal {-status}")
        if OUT_OF_MEMORY.search(tail):
            return RuntimeMemoryError(f"the {name} runtime ran out of memory and died ({dead}){tail}")
        if status == -signal.SIGKILL:
            return RuntimeMemoryError(f"the {name} runtime was killed (SIGKILL), most likely for want of memory{tail}")
        if -status in _FROM_OUTSIDE:
            return RuntimeCrashError(f"the {name} runtime's process was ended from outside ({dead}); start this again")
        return RuntimeCrashError(f"the {name} runtime crashed with {dead}; the model file may be damaged{tail}")
    return RuntimeCrashError(f"the {name} runtime ended with status {status} and without an answer{tail}")
