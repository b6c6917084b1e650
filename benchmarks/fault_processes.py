"""One command in a forked process of its own, under limits: how it ended, what it said, what it took, what is wrong.

The process that forks has run the same command before (`rehearse`), so that nothing is imported a second time. It has
one thread only, but for Arrow's: what other threads hold would be held for ever in a fork.
"""

import gc
import os
import re
import resource
import selectors
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ADDRESS_SPACE = 12 << 30  # keeps the machine whole; what is judged is the peak of resident memory
PROCESSOR_S = 60
WALL_S = 180
MOST_OF_A_LINE = 2500
PROGRESS = re.compile(r"^(\.\.\. |epoch |going on |warning: |\d+ (users|items|interactions|blank|lines|ratings) )")
FRAME = re.compile(r'File "([^"]+)", line (\d+), in (\S+)')


@dataclass(frozen=True)
class Ended:
    """A command that has ended; `code` is negative for a signal, None where it was ended for want of time.

    `peak_bytes` is the resident memory of its largest process, what it shares with its parent included.
    """

    words: tuple[str, ...]
    code: int | None
    out: str
    err: str
    seconds: float
    peak_bytes: int

    def line(self) -> str:
        """Return the code and the last line that was said."""
        return f"exit code {self.code}: {(self.err.strip() or self.out.strip() or 'not a word').splitlines()[-1][:300]}"


def faults(ended: Ended, most_bytes: int) -> list[str]:
    """Return what no input may lead to: a traceback, a signal, another code, no word or more than one, much memory."""
    text = ended.out + ended.err
    if "Traceback (most recent call last)" in text or "Exception ignored" in text:
        return [f"traceback: {_signature(text)}"]
    if ended.code is None:
        return [f"did not end within {WALL_S} s"]
    if ended.code == -signal.SIGXCPU:
        return [f"took more than {PROCESSOR_S} s of processor time"]
    if ended.code < 0:
        return [f"ended by {signal.Signals(-ended.code).name}"]
    found = [f"{ended.peak_bytes >> 20} MiB of memory"] if ended.peak_bytes > most_bytes else []
    lines = [line for line in ended.err.splitlines() if line.strip() and not PROGRESS.match(line)]
    if ended.code not in range(4):
        found.append(f"exit code {ended.code}")
    elif ended.code == 2:
        if len(lines) != 1 or not lines[0].startswith("error: "):
            found.append(f"exit code 2 with {len(lines)} lines in place of one error: {' / '.join(lines)[:160]!r}")
        elif not lines[0].isprintable() or len(lines[0]) > MOST_OF_A_LINE:
            found.append(f"an error of {len(lines[0])} characters, or with some that nobody can print")
    elif ended.code and not lines and not ended.out.strip():
        found.append(f"exit code {ended.code} without a word")
    return found


def _signature(text: str) -> str:
    """Return the error of the last traceback and the last frames of this project in it, to group equal ones."""
    trace = text[text.rfind("Traceback") :]
    own = [f"{Path(file).name}:{line}" for file, line, _ in FRAME.findall(trace) if "/lib/python" not in file]
    error = next(
        (line for line in reversed(trace.splitlines()) if re.match(r"[\w.]+(Error|Exception|\w+): ?", line)), ""
    )
    return f"{error[:120]} at {' < '.join(reversed(own[-2:]))}"


def rehearse(words: Sequence[str], folder: Path, ends: tuple[int, ...] = (0,)) -> None:
    """Run a command in this process, so that all that it needs is imported.

    Raises RuntimeError unless its exit code is one of `ends`.
    """
    before, named, keeps = Path.cwd(), sys.argv, [os.dup(number) for number in (1, 2)]
    main = _main(words[0])
    harmless = _threads_of_arrow() if words[0] == "cocorr-train" else {str(os.getpid())}
    (folder / "tmp").mkdir(exist_ok=True)
    with tempfile.TemporaryFile(dir=folder.parent) as log:
        try:
            sys.stdout.flush()
            for number in (1, 2):
                os.dup2(log.fileno(), number)
            os.chdir(folder)
            _use_temporary(folder)
            sys.argv = list(words)
            main()
            code: object = 0
        except SystemExit as error:
            code = error.code or 0
        finally:
            os.chdir(before)
            sys.argv = named
            for number, keep in enumerate(keeps, start=1):
                os.dup2(keep, number)
                os.close(keep)
        log.seek(0)
        text = log.read().decode(errors="replace")
    if code not in ends:
        raise RuntimeError(f"{' '.join(words)} in {folder} ends with {code}: {text[-500:]}")
    gc.collect()
    gc.freeze()  # pages of objects that live on stay shared with the forks
    left = _threads() - harmless
    if left:
        raise RuntimeError(f"{' '.join(words)} left {len(left)} threads; a fork would wait for what they hold")


def _threads() -> set[str]:
    return set(os.listdir("/proc/self/task"))  # noqa: PTH208


def _threads_of_arrow() -> set[str]:
    """Let Arrow begin its threads, which it makes anew in a fork, and return all that there are then."""
    import pyarrow
    import pyarrow.csv

    pyarrow.csv.read_csv(pyarrow.py_buffer(b"a,b\n1,2\n"))
    return _threads()


def run(words: Sequence[str], folder: Path, prepare: Callable[[], None] | None = None) -> Ended:
    """Run a command in `folder`, with `folder`/tmp as its temporary place; `prepare` is called in its process."""
    (folder / "tmp").mkdir(exist_ok=True)
    ways = [os.pipe(), os.pipe()]
    sys.stdout.flush()
    sys.stderr.flush()
    started = time.monotonic()
    process = os.fork()
    if not process:
        _child(words, folder, prepare, [write for _, write in ways])
    for _, write in ways:
        os.close(write)
    texts, timed_out = _collect([read for read, _ in ways], process, started + WALL_S)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)  # what it may have left running in its group
    _, status, used = os.wait4(process, 0)
    unit = 1 if sys.platform == "darwin" else 1024
    return Ended(
        tuple(words),
        None if timed_out else os.waitstatus_to_exitcode(status),
        *texts,
        time.monotonic() - started,
        used.ru_maxrss * unit,
    )


def _collect(ways: list[int], process: int, deadline: float) -> tuple[list[str], bool]:
    """Return what came from the pipes until the process ended, and whether it had to be killed for want of time."""
    content: dict[int, bytearray] = {way: bytearray() for way in ways}
    end = os.pidfd_open(process)
    timed_out = False
    with selectors.DefaultSelector() as selector:
        for way in (*ways, end):
            os.set_blocking(way, False)
            selector.register(way, selectors.EVENT_READ)
        running = True
        while running:
            ready = {key.fd for key, _ in selector.select(max(deadline - time.monotonic(), 0))}
            if not ready:
                timed_out = True
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
                deadline = time.monotonic() + WALL_S
            running = end not in ready
            for way in ways:  # a child of the command may hold the pipe open, so its end is not waited for
                with suppress(BlockingIOError):
                    while data := os.read(way, 1 << 16):
                        content[way] += data
                    if way in ready and running and not data:
                        selector.unregister(way)
    for way in (*ways, end):
        os.close(way)
    return [content[way].decode(errors="replace") for way in ways], timed_out


def _child(words: Sequence[str], folder: Path, prepare: Callable[[], None] | None, ways: list[int]) -> None:
    """Be the command; never returns."""
    code = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, way in enumerate(ways, start=1):
            os.dup2(way, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        os.chdir(folder)
        _use_temporary(folder)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_S, PROCESSOR_S + 5))
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, resource.RLIM_INFINITY))
        main = _main(words[0])
        sys.argv = list(words)
        if prepare is not None:
            prepare()
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def _use_temporary(folder: Path) -> None:
    os.environ["TMPDIR"] = str(folder / "tmp")
    tempfile.tempdir = None


def _main(command: str) -> Callable[[], object]:
    if command == "cocorr-train":
        from models.training.cli import main
    else:
        from exporter.cli import main
    return main
