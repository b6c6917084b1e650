"""The one way to read a model file: with the vendor's reader, in a process of its own that has limits.

Model files come from strangers, and vendors' readers do what a file says: they fill the memory, never end, crash, or
raise what they like. All of that ends here as one line that names the file.
"""

import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from exporter.core.errors import ArtifactError, BadInputError, MissingExtraError, OutputError, RuntimeFailureError
from exporter.core.protocols import Target
from exporter.core.types import Lowered
from exporter.targets.answer import MOST_ANSWER_BYTES, Answer, from_json, to_json
from safeio.staging import scratch

# What the reader's process may have, and what it may have more for each byte of the file.
_MEMORY_BYTES, _MEMORY_PER_BYTE = 1 << 30, 6
_WRITTEN_BYTES, _WRITTEN_PER_BYTE = 64 << 20, 16  # any one temporary file
_CPU_S, _CPU_S_PER_BYTE = 10, 1 / (16 << 20)
_WALL_S = 120.0

# It finds this package where this process has it, and behind all others. -P: not where the command was started.
_START = f"import sys; sys.path.append(sys.argv.pop()); from {__name__} import main; main(*sys.argv[1:])"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def read(target: Target, model_file: Path) -> Lowered:
    """Return what a model file says of itself: operations, constants, inputs, memory plan.

    Raises ArtifactError, whatever is wrong with the file, and BadInputError where this machine lacks what reading
    takes: a package, room for temporary files.
    """
    with scratch("read") as folder:
        data, status = _ask(target.name, model_file, folder)
    if -status in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        ended = signal.Signals(-status).name
        raise RuntimeFailureError(f"what reads {model_file} was ended from outside ({ended}); start this again")
    refused = f"{model_file}: cannot be read as a model for {target.name}"
    if status or not data:
        raise ArtifactError(f"{refused}: {_end(status)}; export the artifact again")
    try:
        answer = from_json(data)
    except ValueError as error:
        raise ArtifactError(f"{refused}: {error}; export the artifact again") from error
    if answer.refusal is not None:
        raise BadInputError(answer.refusal)
    if answer.lowered is None:
        raise ArtifactError(f"{refused}: {answer.damage}; export the artifact again")
    return answer.lowered


def _ask(target: str, model_file: Path, folder: Path) -> tuple[bytes, int]:
    """Start the process that reads, with `folder` for its temporary files; return its answer and its exit status.

    It leads a process group of its own, which ends with this function, and it ends when this process does.
    """
    top = Path(__file__).resolve().parents[__name__.count(".")]
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _START, target, str(model_file.resolve()), str(top)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={**os.environ, **_ONE_THREAD, "TMPDIR": str(folder)},
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None  # noqa: S101 - pipes were asked for
    end = time.monotonic() + _WALL_S
    data = bytearray()
    try:
        while len(data) <= MOST_ANSWER_BYTES and select.select([process.stdout], [], [], end - time.monotonic())[0]:
            piece = os.read(process.stdout.fileno(), 1 << 20)
            if not piece:
                return bytes(data), process.wait(max(end - time.monotonic(), 0))
            data += piece
    except (subprocess.TimeoutExpired, ValueError):  # select takes no time below 0
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()
    return b"", -signal.SIGALRM if len(data) <= MOST_ANSWER_BYTES else -signal.SIGXFSZ


def _end(status: int) -> str:
    """Say how a reader ended that gave no answer."""
    match -status:
        case signal.SIGXCPU:
            return f"reading it takes more than {_CPU_S} s of processor time, too long for a file of its size"
        case signal.SIGALRM:
            return f"reading it takes more than {_WALL_S:g} s"
        case signal.SIGXFSZ:
            return "it has more parts than a program for a device"
        case signal.SIGKILL:
            return "its reader was killed, most likely for want of memory"
        case number if number > 0:
            return f"its reader crashed with {signal.Signals(number).name}"
    return f"its reader ended with status {status} and without an answer"


def main(target: str, model_file: str) -> None:
    """Read a model file in this process, which has no other task, and write the answer to standard output."""
    stream = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # vendors print
    _limit(_size(Path(model_file)))
    data = answer_to(target, Path(model_file))
    with os.fdopen(stream, "wb") as file:
        file.write(data)


def answer_to(target: str, model_file: Path) -> bytes:
    """Read a model file here and now; return the answer, which says what went wrong, whatever it was."""
    from exporter.targets import TARGETS

    try:
        return to_json(Answer(lowered=TARGETS[target].read(model_file)))
    except (MissingExtraError, OutputError) as error:
        return to_json(Answer(refusal=str(error)))
    except MemoryError:
        return to_json(Answer(damage="reading it takes more memory than a file of its size is given"))
    except Exception as error:  # whatever a vendor's reader raises for what it cannot make sense of
        return to_json(Answer(damage=_words(error)))


def _words(error: Exception) -> str:
    text = " ".join(str(error)[:300].split())
    if isinstance(error, BadInputError):  # ours
        return text.rstrip(".")
    return f"its parts do not fit ({type(error).__name__}{': ' if text else ''}{text})"


def _size(model_file: Path) -> int:
    files = [model_file] if model_file.is_file() else model_file.rglob("*")
    return sum(file.lstat().st_size for file in files)


def _limit(size: int) -> None:
    """Bound what this process may use for a file of `size` bytes; it also ends when its standard input closes.

    RLIMIT_DATA counts private writable memory, so libraries and mapped files are not in it. A pipe whose other end
    closes sends SIGIO, and that ends the process even while native code runs.
    """
    import fcntl
    import resource

    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, os.O_ASYNC)
    for limit, most in (
        (resource.RLIMIT_DATA, _MEMORY_BYTES + _MEMORY_PER_BYTE * size),
        (resource.RLIMIT_FSIZE, _WRITTEN_BYTES + _WRITTEN_PER_BYTE * size),
        (resource.RLIMIT_CPU, int(_CPU_S + _CPU_S_PER_BYTE * size)),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(limit)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (least, hard))
