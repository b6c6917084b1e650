"""Instructions of one call on this machine's processor, counted by valgrind's callgrind.

The agent runs as on the host, in callgrind, which counts from the agent's request on and writes what it counted at
each of the three markers, the C function `getpgid`: nothing lies between the first two, a call between the last two.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

from exporter.connections.agent_archive import write_agent
from exporter.connections.host import run_agent, settings
from exporter.connections.run_folder import require_models, write_request
from exporter.core.types import RunRequest
from safeio.staging import scratch

_SETTLED = 3  # calls after which runtimes have the memory that they will use
_SLOWER = 60  # as long as the same run by itself, at most
# All else of a user's environment would move the stack, and addresses decide a little of what a runtime does.
_FIXED = {"PATH": "/usr/bin:/bin", "HOME": ".", "ORT_DISABLE_TELEMETRY": "1", "PYTHONHASHSEED": "0"}
_TOTAL = re.compile(rb"^totals: (\d{1,18})$", re.MULTILINE)
_MOST_BYTES = 64 << 20


def why_not() -> str | None:
    """Return why instructions cannot be counted on this machine, and what to do, or None where they can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "instructions are counted on x86-64 Linux, and on the emulator"
    if shutil.which("valgrind") is None:
        return "counting instructions needs valgrind; install it (apt-get install valgrind), or use the emulator"
    return None


@cache
def counter() -> str:
    """Return what counts here: the processor, whose caches and instruction sets choose kernels, and valgrind."""
    done = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=False)  # noqa: S607
    version = re.search(r"\d+(\.\d+)*", done.stdout)
    return f"{_processor()}, valgrind {version[0] if version else 'of unknown version'}"


def count(request: RunRequest) -> int | None:
    """Return the instructions of one call of case 0, None where the run does not come to its markers.

    Needs `why_not() is None`; raises ArtifactError and BadInputError as HostConnection.run does.
    """
    require_models(request)
    one = {name: array[:1] for name, array in request.inputs.items()}
    limit_s = _SLOWER * request.time_limit_s
    request = replace(request, inputs=one, warmup=_SETTLED, iterations=0, time_limit_s=limit_s)
    with scratch("run") as folder:
        # All paths are relative to the folder, where the agent starts: others would move and hash what holds them.
        (folder / "artifact").symlink_to(request.model_file.parent.resolve())
        model_file = f"artifact/{request.model_file.name}"
        write_request(folder, request, model_file, None, watch_stdin=True, mark=True, instrument=True)
        agent = write_agent(folder, (request.target,))
        count_it = ["--callgrind-out-file=counted", "--instr-atstart=no", "--dump-before=getpgid"]
        fixed = [found, "-R"] if (found := shutil.which("setarch")) else []
        counted = [str(shutil.which("valgrind")), "--quiet", "--tool=callgrind", *count_it]
        command = [*fixed, *counted, sys.executable, "-P", agent.name]
        libraries = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        variables = {**_FIXED, **libraries, **settings(request.threads)}
        run_agent([*command, "."], variables, folder, limit_s)
        # The first is what was counted up to the first marker.
        empty, whole = (_total(folder / f"counted.{number}") for number in (2, 3))
    return None if empty is None or whole is None else whole - empty


def _total(path: Path) -> int | None:
    """Return the instructions of one stretch, as callgrind wrote them."""
    try:
        with path.open("rb") as file:
            found = _TOTAL.search(file.read(_MOST_BYTES))
    except OSError:
        return None
    return int(found[1]) if found else None


def _processor() -> str:
    """Return the model of this machine's processor, its family, model and stepping, and a digest of what else it tells.

    Hypervisors give many processors one name; instruction sets and the size of a cache choose kernels too.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return os.uname().machine
    rows = dict(re.findall(r"^([^:\n]+?)\s*: *(.*)$", text, re.MULTILINE))
    numbers = "-".join(rows.get(name, "?") for name in ("cpu family", "model", "stepping"))
    flags = " ".join([*sorted(rows.get("flags", "").split()), rows.get("cache size", "")])
    digest = hashlib.sha256(flags.encode()).hexdigest()[:8]
    return f"{' '.join(rows.get('model name', 'unknown processor').split())} ({numbers}, {digest})"
