"""What both commands share from start to end: signals, streams that are full or closed, one line per error, exit codes.

0 pass, 1 fail, 2 bad input or an output that cannot be written, 3 unverified, 130 interrupted. Imports little, so that
a signal finds its handler soon after the start.
"""

import errno
import io
import os
import select
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

INTERRUPTED = 130
"""What a shell reports for Ctrl-C."""
_SOON_S = 0.02
_AGAIN_S = 5.0
"""How long after an interrupt that was swallowed the next one comes; what is removed at the end takes less."""
LIBRARIES = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime reports home as soon as it is imported
    # torch makes this folder as soon as it traces or has an optimiser, for kernels that it compiles. Nothing here has
    # any compiled, so it is told one that is there already and leaves none in the temporary place.
    "TORCHINDUCTOR_CACHE_DIR": os.path.dirname(os.path.abspath(__file__)),  # noqa: PTH100, PTH120 - as early as this
}
"""What libraries read of the environment when they are imported."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Raw(io.FileIO):
    """A descriptor whose first failure is kept, and which drops what it cannot write.

    Work does not end because nobody reads what it says; whoever ends the command looks at `failure`.
    """

    failure: OSError | None = None
    wrote = False
    waits = True
    """Whether to wait for a reader that is slow; without it, what cannot be written at once is dropped."""

    def write(self, data: Any) -> int:
        self.wrote = True
        try:
            if not self.waits:
                ready = select.select((), (self,), (), 0)[1]
                return super().write(data[: select.PIPE_BUF]) or len(data) if ready else len(data)
            while (written := super().write(data)) is None:  # somebody made it one that does not wait
                select.select((), (self,), ())
        except OSError as error:
            self.failure = self.failure or error
            return len(data)
        return written


class _Signals:
    """Turns signals into KeyboardInterrupt until the command has ended, whatever libraries make of it.

    It is not raised inside an import: extension modules abort or swallow it there, and classes that are written as text
    leave the interpreter with a mark for which it ends itself by a signal. A second signal is raised at once.
    """

    def __init__(self) -> None:
        self.came = self.over = False
        self._alarm: Any = None

    def __enter__(self) -> "_Signals":
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, and commands in the background of a script
                signal.signal(number, self._interrupt)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the signals ignored: all is done and said but the interpreter's own end, of which nobody wants half."""
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        sys.unraisablehook = self._hook
        if self.came:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._alarm)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """Raise, now or as soon as no import is under way, and again later, since some libraries go on regardless."""
        if self.over:
            return
        if not self.came:
            self._alarm = signal.signal(signal.SIGALRM, self._interrupt)
        wait = _importing(frame) and (number == signal.SIGALRM or not self.came)
        self.came = True
        signal.setitimer(signal.ITIMER_REAL, _SOON_S if wait else _AGAIN_S)
        if not wait:
            raise KeyboardInterrupt

    def _unraisable(self, problem: Any) -> None:
        """Try again soon where an interrupt fell into a place that cannot raise, such as a destructor."""
        if not isinstance(problem.exc_value, KeyboardInterrupt):
            self._hook(problem)
        elif not self.over:
            signal.setitimer(signal.ITIMER_REAL, _SOON_S)


def _importing(frame: FrameType | None) -> bool:
    """Say whether a frame was called, however far up, by the machinery that imports modules."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


def run(load: Callable[[], Callable[..., Any]], interrupted: str, documents: bool = False) -> NoReturn:
    """Run a Typer application and exit; `load` imports it, and `interrupted` is the line that ends it on a signal.

    Where its commands print `documents` for --json, an error is one too, on stdout, beside its line on stderr.
    The exit code is about the work. Only where that was well and its result could not be printed, since the disk is
    full or the output closed, is it 2; a reader that goes away (`| head`) has read what it wanted.
    """
    for number in (0, 1, 2):
        _occupy(number)
    for name, value in LIBRARIES.items():
        os.environ.setdefault(name, value)
    before = sys.stdout, sys.stderr
    out, err = (_Raw(number, "w", closefd=False) for number in (1, 2))
    sys.stdout, sys.stderr = (_text(raw, stream) for raw, stream in zip((out, err), before, strict=True))
    try:
        with _Signals() as signals:
            code = _code(load, interrupted, signals, out if documents and "--json" in sys.argv[1:] else None)
            out.waits = code != INTERRUPTED  # that nobody reads on may be why
            try:
                sys.stdout.flush()
            except KeyboardInterrupt:
                out.waits, code = False, INTERRUPTED
        if out.failure is not None and out.failure.errno != errno.EPIPE and code != 2:
            sys.stderr.write(f"error: the result cannot be printed: {out.failure.strerror}; give it another place\n")
            code = code or 2
        sys.stderr.flush()
    finally:
        sys.stdout, sys.stderr = before
    sys.exit(code)


def _code(load: Callable[[], Callable[..., Any]], interrupted: str, signals: _Signals, document_to: _Raw | None) -> int:
    """Run the application and return the exit code; every error ends as one line on stderr.

    `document_to` is the stdout that an error is a document on too, unless it has one already.
    """
    from safeio.errors import CocorrError, one_line

    def end(kind: str, message: str, code: int = 2) -> int:
        signals.over = True
        if document_to is not None:
            document_to.waits = code != INTERRUPTED
            _print_error(document_to, {"kind": kind, "message": message, "exit_code": code})
        sys.stderr.write(f"{message if code == INTERRUPTED else f'error: {message}'}\n")
        return code

    try:
        os.getcwd()  # noqa: PTH109 - pathlib is not wanted this early
    except OSError:  # vendors' libraries end the process there
        return end("system", "the folder that this command runs in is gone; go to another one")
    try:
        app = load()
        from typer.exceptions import TyperException

        try:
            code = app(standalone_mode=False)
        except TyperException as error:  # wrong options or arguments
            if type(error).__name__ == "NoArgsIsHelpError":  # a command of commands alone: its help, as it is
                sys.stdout.write(f"{error.format_message()}\n")
                return 0
            from safeio.usage import usage_message

            return end("usage", usage_message(error))
        if code == INTERRUPTED and signals.came:
            return end("interrupted", interrupted, INTERRUPTED)
        return code if isinstance(code, int) else 0
    except CocorrError as error:
        return end(error.kind, str(error), error.exit_code)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except KeyboardInterrupt:
        return end("interrupted", interrupted, INTERRUPTED)
    except BaseException as error:
        if signals.came:  # some libraries turn an interrupt into an error of their own
            return end("interrupted", interrupted, INTERRUPTED)
        if isinstance(error, MemoryError):
            return end("memory", "this needs more memory than there is; ask for less, or use a larger machine")
        if isinstance(error, OSError) and error.strerror:
            what = f"{error.filename}: " if error.filename else ""
            return end("system", f"{one_line(what + error.strerror)}; the system does not let this be done")
        if document_to is not None:
            end("internal", one_line(f"{type(error).__name__}: {error}; this is a fault of the program"), 1)
        raise


def _print_error(to: _Raw, error: dict[str, object]) -> None:
    """Print the document of an error on a stdout on which nothing stands."""
    import json

    sys.stdout.flush()
    if not to.wrote:
        sys.stdout.write(json.dumps({"schema_version": 1, "error": error}, indent=2) + "\n")
        sys.stdout.flush()


def _occupy(number: int) -> None:
    """Open /dev/null in the place of a standard stream that is closed, so that no file of ours gets its number.

    Read-only for stdout, so that writing to it fails as it would have.
    """
    try:
        os.fstat(number)
    except OSError:
        os.open(os.devnull, os.O_RDONLY)  # the lowest number that is free, and lower ones are taken


def _text(raw: _Raw, like: Any) -> io.TextIOWrapper:
    """Return a text stream over a descriptor; what its encoding cannot hold is shown as an escape."""
    encoding = getattr(like, "encoding", None) or "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=raw.isatty() or raw.fileno() == 2
    )
