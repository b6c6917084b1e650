"""The side of a worker: it makes its judge once, and answers shard after shard until nobody asks any more."""

import fcntl
import json
import os
import signal
from collections.abc import Callable

from exporter.core.errors import CocorrError
from exporter.core.types import Arrays
from exporter.fleet import frames

Judge = Callable[[Arrays], Arrays]
"""What is computed of a shard: arrays [users, ...] by name to arrays [users, ...] by name."""


def serve(make: Callable[[dict[str, object]], Judge], lifeline: int) -> None:
    """Answer frames on standard input by frames on standard output; returns when the first is closed.

    `make` takes the engine's settings. `lifeline` is a pipe on which nothing ever comes: it closes when the engine's
    process dies, and that ends this one, whatever native code it is in.
    """
    _end_with(lifeline)
    asked = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # runtimes print
    try:
        settings = frames.read(asked)
        if settings is None:
            return
        judge = make(json.loads(settings[1]))
        frames.write(answers, "ready")
        while (frame := frames.read(asked)) is not None:
            frames.write(answers, "arrays", frames.of_arrays(judge(frames.to_arrays(frame[1]))))
    except Exception as error:  # runtimes raise what they like
        frames.write(answers, "error", frames.of_words(told(error)))


def told(error: Exception) -> dict[str, object]:
    """Return what is said of an error: one message, and the exit code of one of ours."""
    words = str(error) or type(error).__name__
    code = error.exit_code if isinstance(error, CocorrError) else None
    return {"message": words[:2000], "exit_code": code}


def _end_with(lifeline: int) -> None:
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if os.get_blocking(lifeline):
        os.set_blocking(lifeline, False)
    try:
        if not os.read(lifeline, 1):  # it had closed before anybody listened
            os._exit(3)
    except BlockingIOError:
        pass
