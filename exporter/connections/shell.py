"""The process that carries a device's shell here: its streams read to their ends, and its own end."""

import contextlib
import os
import signal
import subprocess
import threading
from typing import IO

_MAX_ANSWER_BYTES = 1 << 30
GRACE_S = 30.0


def communicate(process: "subprocess.Popen[bytes]", limit_s: float) -> tuple[bytes, bytes]:
    """Read both streams to their ends without closing the process's input first."""
    contents: dict[int, bytes] = {}

    def read(number: int, stream: IO[bytes]) -> None:
        contents[number] = stream.read(_MAX_ANSWER_BYTES)

    streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]
    readers = [threading.Thread(target=read, args=pair, daemon=True) for pair in enumerate(streams)]
    for reader in readers:
        reader.start()
    process.wait(limit_s)
    for reader in readers:
        reader.join(GRACE_S)
    return contents.get(0, b""), contents.get(1, b"")


def end(process: "subprocess.Popen[bytes]") -> None:
    """Close the input, give the other side a moment to tidy up, and end what is left."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    if process.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_words(errors: bytes) -> str:
    """Return the last two lines of what was said on standard error."""
    lines = [line for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
    return " ".join(lines[-2:])
