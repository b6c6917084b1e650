"""Bring in a vendor's package when it is needed, with its known noise off the user's screen."""

import contextlib
import importlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import BinaryIO

from exporter.core.errors import CocorrError, LoweringError, MissingExtraError, OutputError
from exporter.core.types import Captured
from safeio import process
from safeio.files import write_failure

_NOISE = (
    r"^(INFO|DEBUG):|^[ID]\d{4} ",  # records below a warning
    r"\d+%\|.*\|",  # progress bars
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # torch's own pytree, seen through copyreg
    r"^\s*return cls\.__new__\(cls, \*args\)",
    r"^\s*warnings\.warn\($",
)
LOWER = "lower"
"""The extra that brings torch and the converters; a target's own brings what runs its artifacts."""
_PROBE_BYTES = 16 << 20  # the weights of a program for a device


def require(module: str, extra: str, without: Sequence[str] = ()) -> ModuleType:
    """Import `module`; raises MissingExtraError where its package is not installed.

    `without` are packages that it imports where they are installed, and that nothing here needs.
    """
    try:
        with process.importing(*without):
            return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name != package:  # present, but broken inside: that is not the user's missing extra
            raise
        raise MissingExtraError(package, extra) from error


def _is_of_an_interrupt(error: BaseException | None) -> bool:
    """Say whether an error came up while an interrupt was on its way: torch fails in its own clean-up."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, KeyboardInterrupt):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


@contextlib.contextmanager
def converting(refusal: str, *noise: str, captured: Captured | None = None) -> Iterator[None]:
    """Run a vendor's converter in the body: hold back its noise, and translate what it raises.

    `captured` is what it converts, None where nothing is captured yet. The body writes nothing but temporary files;
    what comes out is written afterwards. Raises LoweringError, `refusal` and why, and OutputError where there is no
    room for its temporary files: many converters say no more than that they failed.
    """
    from exporter.core.refusals import explain

    why = ""
    try:
        with without_noise(*noise), _shared_sources():
            try:
                yield
            except CocorrError:
                raise
            except (Exception, SystemExit) as error:
                why = explain(error, captured)  # it asks torch, which has words to say too
                raise
    except CocorrError:
        raise
    except (Exception, SystemExit) as error:  # converters raise whatever their passes raise, and a user's forward
        if _is_of_an_interrupt(error):
            raise KeyboardInterrupt from error
        full = _no_room() or (write_failure(error) if isinstance(error, OSError) else None)
        if full is not None:
            raise OutputError(
                f"cannot write temporary files: {full}; make room for them, or name another folder in TMPDIR"
            ) from error
        raise LoweringError(f"{refusal}: {why}") from error


@contextlib.contextmanager
def _shared_sources() -> Iterator[None]:
    """Let torch share, in the body, its notes of where a node comes from, which it copies whole for each new node.

    They are a chain with a link for each time that a graph was traced, and nobody changes one: of a lowering that
    traces twenty times, the copies were the largest single part.
    """
    tracing = sys.modules.get("torch.fx.traceback")
    if tracing is None or hasattr(tracing.NodeSource, "__deepcopy__"):
        yield
        return
    tracing.NodeSource.__deepcopy__ = lambda source, _memo: source
    try:
        yield
    finally:
        del tracing.NodeSource.__deepcopy__


def _no_room() -> str | None:
    """Return why the temporary place does not hold what a converter writes there, or None if it does."""
    try:
        with tempfile.TemporaryFile() as file:
            file.write(bytes(_PROBE_BYTES))
    except OSError as error:
        return write_failure(error)
    return None


@contextlib.contextmanager
def without_noise(*noise: str) -> Iterator[None]:
    """Hold back what is printed to stdout and stderr, then print to stderr the lines that match no pattern in `noise`.

    The descriptors are redirected, because converters print from native code too. Where the body raises, nothing is
    printed: the error has its own message.
    """
    known = [re.compile(pattern) for pattern in (*noise, *_NOISE)]
    root = logging.getLogger()
    logging_before = root.level, root.handlers[:]
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with _somewhere() as file:
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            try:
                yield
            finally:
                root.setLevel(logging_before[0])  # some packages configure everybody's logging when they are imported
                root.handlers[:] = logging_before[1]
                for stream in (sys.stdout, sys.stderr):
                    with contextlib.suppress(OSError):  # no room for the noise; what comes next is not to go there too
                        stream.flush()
                os.dup2(saved[0], 1)
                os.dup2(saved[1], 2)
        finally:
            os.close(saved[0])
            os.close(saved[1])
        file.seek(0)
        # What is behind the last line feed is a line that was cut off, where files may only be so large.
        for line in file.read().decode(errors="replace").split("\n")[:-1]:
            if line.strip() and not any(pattern.search(line) for pattern in known):
                print(line, file=sys.stderr)  # noqa: T201


def _somewhere() -> BinaryIO:
    """Return a file without a name: in memory where the system has such files, since a disk may be full."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("noise"), "w+b")
    return tempfile.TemporaryFile()
