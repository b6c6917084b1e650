"""Markers round a call: system calls that do nothing, at which an emulator that counts instructions stops."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from exporter.connections.agent.contract import Model

# The process group that nobody has, by which a marker is known.
MARKER = 0x5CA1AB1E


def mark() -> None:
    """Make a marker."""
    with contextlib.suppress(OSError):
        os.getpgid(MARKER)


def run_between_markers(model: Model, feed: Any) -> None:
    """Make three markers: nothing lies between the first two, a call of the model between the last two."""
    if model.run_marked is not None:
        model.run_marked(feed)
        return
    mark()
    mark()
    model.run(feed)
    mark()
