"""The embedded engine: workers are processes on this machine, each with one shard at a time."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from exporter.core.errors import (
    CocorrError,
    RuntimeCrashError,
    RuntimeFailureError,
    RuntimeMemoryError,
    RuntimeTimeoutError,
)
from exporter.core.types import Arrays
from exporter.fleet import frames
from safeio.errors import printable

START_LIMIT_S = 600.0
_SHARD_LIMIT_S = 120.0
_USER_LIMIT_S = 5.0
"""What a shard may take, and each of its users: an interpreter may need seconds, and what hangs ends all the same."""
_LAST_WORDS = 2000
# The process finds this package where this one has it, and behind all others. -P: not where the command began.
_START = "import sys; sys.path.append(sys.argv.pop()); from {module} import main; main(int(sys.argv[1]))"
_TOP = Path(__file__).resolve().parents[__name__.count(".")]


class Task(NamedTuple):
    """A shard to compute: its number, and arrays [users, ...] by name."""

    number: int
    arrays: Arrays


class Work(NamedTuple):
    """What workers do: `make_judge` of a module makes their judge, and its `main` calls `worker.serve` with that.

    `settings` are JSON, `variables` of the environment. `folder` is where workers have their temporary files and what
    they print. `paths` are the settings that name a file or folder, FILE.py:SPEC too, or None: workers elsewhere get
    copies, which stay as long as the judge.
    """

    module: str
    settings: Mapping[str, object]
    variables: Mapping[str, str]
    folder: Path
    paths: tuple[str, ...] = ()


def run(work: Work, tasks: Iterator[Task], workers: int) -> Generator[Task]:
    """Yield each task with what a worker computed of it, in the order in which they end.

    `tasks` are taken one by one, and no more than there are workers at once. All processes are ended with the
    generator. Raises RuntimeFailureError for a worker that dies, hangs or fails, in one line, and what `tasks` raises.
    """
    pool: list[_Worker] = []
    threads: list[threading.Thread] = []
    results: queue.Queue[Task | BaseException | None] = queue.Queue()
    lock = threading.Lock()
    try:
        for number in range(workers):
            pool.append(_Worker(work, number))
            threads.append(threading.Thread(target=_drive, args=(pool[-1], tasks, lock, results, work), daemon=True))
            threads[-1].start()
        busy = len(pool)
        while busy:
            result = results.get()
            if result is None:
                busy -= 1
            elif isinstance(result, BaseException):
                raise result
            else:
                yield result
    finally:
        for worker in pool:
            worker.end()
        for thread in threads:
            thread.join()
        for worker in pool:
            worker.close()


def limit_of(arrays: Arrays) -> float:
    """Return how many seconds a shard may take."""
    return _SHARD_LIMIT_S + len(next(iter(arrays.values()))) * _USER_LIMIT_S


def _drive(
    worker: "_Worker",
    tasks: Iterator[Task],
    lock: threading.Lock,
    results: "queue.Queue[Task | BaseException | None]",
    work: Work,
) -> None:
    """Give a worker task after task and put what comes back, then None, or the error that ended it."""
    try:
        worker.start(work.settings)
        while True:
            with lock:
                task = next(tasks, None)
            if task is None:
                break
            results.put(Task(task.number, worker.ask(task.arrays)))
    except BaseException as error:  # told where the results are read
        results.put(error)
    results.put(None)


class _Worker:
    """One process, its pipes and its log."""

    def __init__(self, work: Work, number: int) -> None:
        self._log = work.folder / f"worker-{number}.txt"
        self._is_late = False
        read, self._lifeline = os.pipe()
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _START.format(module=work.module), str(read), str(_TOP)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    cwd=work.folder,
                    env={**os.environ, **work.variables, "TMPDIR": str(work.folder)},
                    pass_fds=(read,),
                    start_new_session=True,  # a Ctrl-C in the terminal reaches the engine, which ends all
                )
        finally:
            os.close(read)

    def start(self, settings: Mapping[str, object]) -> None:
        """Hand over the settings and wait until the worker can take shards."""
        self._exchange("settings", frames.of_words(settings), START_LIMIT_S)

    def ask(self, arrays: Arrays) -> Arrays:
        """Return what the worker computes of a shard."""
        payload = self._exchange("arrays", frames.of_arrays(arrays), limit_of(arrays))
        return frames.to_arrays(payload)

    def _exchange(self, kind: frames.Kind, payload: bytes, limit_s: float) -> bytes:
        """Send one frame and return the answer; raises the error that the worker tells of, or that of its death."""
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101 - pipes were asked for
        alarm = threading.Timer(limit_s, self._end_late)
        alarm.daemon = True
        alarm.start()
        try:
            frames.write(self._process.stdin, kind, payload)
            frame = frames.read(self._process.stdout)
        except (OSError, ValueError, frames.BrokenFrameError):
            frame = None
        finally:
            alarm.cancel()
        if frame is None:
            raise self._death(limit_s)
        if frame[0] == "error":
            raise error_of(frame[1])
        return frame[1]

    def _end_late(self) -> None:
        self._is_late = True
        self.end()

    def _death(self, limit_s: float) -> CocorrError:
        """Return the error for a worker that ended without an answer."""
        self.end()
        status = self._process.wait()
        if self._is_late:
            return RuntimeTimeoutError(f"a worker did not finish within {limit_s:g} s and was ended; {AGAIN}")
        tail = self._last_words()
        if status == -signal.SIGKILL:
            return RuntimeMemoryError(
                f"a worker was killed (SIGKILL), most likely for want of memory; take fewer --workers: {AGAIN}{tail}"
            )
        how = f"by {signal.Signals(-status).name}" if status < 0 else f"with status {status}"
        return RuntimeCrashError(f"a worker ended {how} in the middle of its work; {AGAIN}{tail}")

    def _last_words(self) -> str:
        with self._log.open("rb") as file:
            file.seek(max(self._log.stat().st_size - _LAST_WORDS, 0))
            lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return f" [its last words: {printable(lines[-1])}]" if lines else ""

    def end(self) -> None:
        """End the process and all that it started; does nothing to one that has ended."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Wait for the end of the process and close what belongs to it."""
        self._process.wait()
        os.close(self._lifeline)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # what was not sent yet
                    pipe.close()


AGAIN = "the same command goes on with the shards that are not done"


class _WorkerError(RuntimeFailureError):
    """What a worker said of its own failure, with the exit code that it had there."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    @property
    def kind(self) -> str:
        return "runtime_failure"


def error_of(payload: bytes) -> CocorrError:
    """Return the error for what a worker said of its own."""
    told = json.loads(payload)
    if told["exit_code"] is not None:
        return _WorkerError(told["message"], told["exit_code"])
    return RuntimeCrashError(f"a worker failed: {told['message']}; {AGAIN}")
