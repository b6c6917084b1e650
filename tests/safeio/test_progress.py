"""How work tells of itself on stderr."""

import io
import sys

import pytest

from safeio.progress import PassingLine, tell


class Stream(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


@pytest.mark.parametrize("terminal", [True, False])
def test_steps_and_what_passes(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    line = PassingLine()
    line.end()
    tell("first \x1b[2Jstep\nof two")
    line.show("batch 1")
    line.show("batch 2")
    line.stay("epoch 1")
    line.show("batch 3")
    line.end()
    tell("warning: slow")
    shown = [part.rstrip() for part in stream.getvalue().replace("\r", "\n").split("\n")]
    first = "... first \\x1b[2Jstep of two"
    if terminal:
        assert shown == [first, "", "... batch 1", "... batch 2", "... epoch 1", "", "... batch 3", "warning: slow", ""]
    else:
        assert shown == [first, "... epoch 1", "warning: slow", ""]
