"""A process of its own for a vendor's code that meets a stranger's file: it has limits and ends with its parent."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

# The process finds this package where this process has it, and behind all others. -P: not where the command began.
_START = "import sys; sys.path.append(sys.argv.pop()); from {module} import main; main(*sys.argv[1:])"
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def start(module: str) -> str:
    """Return the code with which a process begins that calls `main` of a module with its arguments."""
    return _START.format(module=module)


def ask(code: str, arguments: Sequence[str], folder: Path, wall_s: float, most_bytes: int) -> tuple[bytes, int]:
    """Start a process, with `folder` for its files; return what it writes to its standard output, and its exit status.

    It leads a process group of its own, which ends with this function, and it ends when this process does. Without an
    answer in time the status is that of SIGALRM, for one that is too long that of SIGXFSZ.
    """
    top = Path(__file__).resolve().parents[__name__.count(".")]
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code, *arguments, str(top)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=folder,
        env={**os.environ, **_ONE_THREAD, "TMPDIR": str(folder)},
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None  # noqa: S101 - pipes were asked for
    end = time.monotonic() + wall_s
    data = bytearray()
    try:
        while len(data) <= most_bytes and select.select([process.stdout], [], [], end - time.monotonic())[0]:
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
    return b"", -signal.SIGALRM if len(data) <= most_bytes else -signal.SIGXFSZ


def answer(give: Callable[[], bytes], memory_bytes: int, written_bytes: int, cpu_s: int) -> None:
    """Write what `give` returns to standard output, within limits, from this process that has no other task."""
    stream = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # vendors print
    _limit(memory_bytes, written_bytes, cpu_s)
    data = give()
    with os.fdopen(stream, "wb") as file:
        file.write(data)


def _limit(memory_bytes: int, written_bytes: int, cpu_s: int) -> None:
    """Bound what this process may use; it also ends when its standard input closes.

    RLIMIT_DATA counts private writable memory, so libraries and mapped files are not in it. A pipe whose other end
    closes sends SIGIO, and that ends the process even while native code runs.
    """
    import fcntl
    import resource

    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETFL, os.O_ASYNC)
    for kind, most in (
        (resource.RLIMIT_DATA, memory_bytes),
        (resource.RLIMIT_FSIZE, written_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, hard))


def size_of(model_file: Path) -> int:
    """Return the bytes of a model file, or of the files in its folder."""
    files = [model_file] if model_file.is_file() else model_file.rglob("*")
    return sum(file.lstat().st_size for file in files)
