"""The golden outputs of a program that came in a file, computed in a process of its own.

Some of torch's operators read and write where a tensor says, inside of their memory or not. A program that crashes one
ends that process, and is one line here. Whatever this process does with a program comes after that.
"""

import json
import os
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.connections.agent.contract import OUT_OF_MEMORY
from exporter.connections.agent.guards import guard
from exporter.connections.host import SIGNALS, environment, machine_memory, run_agent
from exporter.connections.run_folder import log_tail
from exporter.core.errors import BadInputError, CocorrError, RuntimeFailureError
from exporter.core.types import Arrays
from exporter.pipeline.arrays import MAX_BYTES
from safeio import files, npz
from safeio.staging import scratch

if TYPE_CHECKING:
    from exporter.pipeline.program import GivenProgram
    from exporter.pipeline.request import SavedProgram

_REQUEST, _INPUTS, _OUTPUTS, _RESPONSE = "request.json", "inputs.npz", "outputs.npz", "response.json"
_MAX_RESPONSE_BYTES = 1 << 16
_MAX_OUTPUTS_BYTES = 1 << 30  # as much as is read of an artifact's golden cases
_FROM_OUTSIDE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# As `targets.reading` starts its own.
_START = f"import sys; sys.path.append(sys.argv.pop()); from {__name__} import main; main(*sys.argv[1:])"


@dataclass(frozen=True)
class _Request:
    """The program's file as its user called it from `folder`, the names of its outputs, and the file's SHA-256.

    `memory_bytes` bounds the private memory of the process that computes them.
    """

    folder: str
    file: str
    outputs: tuple[str, ...] | None
    sha256: str
    memory_bytes: int


def outputs_of(choice: "SavedProgram", program: "GivenProgram") -> Arrays:
    """Return what torch computes for the golden inputs, [cases, *shape] by name; raises BadInputError."""
    with scratch("program") as folder:
        request = _Request(str(Path.cwd()), str(choice.file), choice.outputs, program.sha256, machine_memory())
        (folder / _REQUEST).write_text(json.dumps(asdict(request)), encoding="utf-8")
        with (folder / _INPUTS).open("wb") as file:
            npz.write(file, program.cases, compress=False)
        top = Path(__file__).resolve().parents[__name__.count(".")]
        command = [sys.executable, "-P", "-c", _START, str(folder), str(top)]
        status = run_agent(command, environment(1), folder, None)
        refusal = _read(folder / _RESPONSE, _MAX_RESPONSE_BYTES)
        if status == 1 and refusal:
            raise BadInputError(refusal.decode(errors="replace"))
        if status:
            raise _death(request, status, folder)
        outputs = npz.read(_read(folder / _OUTPUTS, _MAX_OUTPUTS_BYTES), _MAX_OUTPUTS_BYTES)
    return {name: outputs[name] for name in program.program.outputs}


def _read(path: Path, limit: int) -> bytes:
    try:
        return files.read_file(path, limit)
    except files.UnreadableError:
        return b""


def _death(request: _Request, status: int, folder: Path) -> CocorrError:
    """Return the error for a process that ended without an answer."""
    file, tail = request.file, log_tail(folder)
    if -status in _FROM_OUTSIDE:
        ended = SIGNALS[-status]
        return RuntimeFailureError(f"what computes {file} was ended from outside ({ended}); start this again")
    if OUT_OF_MEMORY.search(tail):
        return _too_much(request)
    if -status == signal.SIGKILL:
        how = "torch was killed, most likely for want of memory"
    elif status < 0:
        how = f"torch crashed with {SIGNALS.get(-status, f'signal {-status}')}"
    else:
        how = f"torch ended with status {status}"
    return BadInputError(f"{file} cannot compute its golden cases: {how}{tail}; mend the inputs or the program")


def _too_much(request: _Request) -> BadInputError:
    return BadInputError(
        f"{request.file} cannot compute its golden cases: torch took more than {request.memory_bytes / 1e9:.3g} GB,"
        " what this machine has; mend the inputs or the program"
    )


def main(place: str) -> None:
    """Compute the golden outputs for the request in a folder and write them there, or why that cannot be."""
    folder = Path(place)
    request = _Request(**json.loads((folder / _REQUEST).read_text(encoding="utf-8")))
    guard(folder, {"time_limit_s": 0, "memory_limit_bytes": request.memory_bytes, "watch_stdin": True})
    try:
        _serve(folder, request)
    except (CocorrError, MemoryError) as error:
        if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)):
            error = _too_much(request)
        (folder / _RESPONSE).write_text(str(error), encoding="utf-8")
        sys.exit(1)


def _serve(folder: Path, request: _Request) -> None:
    import torch

    from exporter.pipeline import program as programs
    from exporter.pipeline.request import SavedProgram

    os.chdir(request.folder)
    torch.set_num_threads(1)
    names = None if request.outputs is None else tuple(request.outputs)
    inputs = npz.read((folder / _INPUTS).read_bytes(), 2 * MAX_BYTES)
    choice = SavedProgram(Path(request.file), folder / _INPUTS, outputs=names)
    program = programs.rebuilt(choice, inputs)
    if program.sha256 != request.sha256:
        raise BadInputError(f"{choice.file} was changed by another command in the meantime; start this one again")
    outputs = programs.checked_outputs(str(choice.file), program)
    size = sum(array.nbytes for array in outputs.values())
    if size > _MAX_OUTPUTS_BYTES // 2:
        raise BadInputError(f"{choice.file} gives {size} bytes for its golden cases; give fewer cases")
    with (folder / _OUTPUTS).open("wb") as file:
        npz.write(file, outputs, compress=False)
