"""Bring in a vendor's package when it is needed, with its known noise off the user's screen."""

import contextlib
import importlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from types import ModuleType

from exporter.core.errors import MissingExtraError

_NOISE = (
    r"^(INFO|DEBUG):|^[ID]\d{4} ",  # records below a warning
    r"\d+%\|.*\|",  # progress bars
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # torch's own pytree, seen through copyreg
    r"^\s*return cls\.__new__\(cls, \*args\)",
    r"^\s*warnings\.warn\($",
)


def require(module: str, extra: str) -> ModuleType:
    """Import `module`; raises MissingExtraError where its package is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name != package:  # present, but broken inside: that is not the user's missing extra
            raise
        raise MissingExtraError(package, extra) from error


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
    with tempfile.TemporaryFile() as file:
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            try:
                yield
            finally:
                root.setLevel(logging_before[0])  # some packages configure everybody's logging when they are imported
                root.handlers[:] = logging_before[1]
                sys.stdout.flush()
                sys.stderr.flush()
                os.dup2(saved[0], 1)
                os.dup2(saved[1], 2)
        finally:
            os.close(saved[0])
            os.close(saved[1])
        file.seek(0)
        for line in file.read().decode(errors="replace").splitlines():
            if line.strip() and not any(pattern.search(line) for pattern in known):
                print(line, file=sys.stderr)  # noqa: T201
