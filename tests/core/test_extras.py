"""A vendor's converter at work: its noise, what it raises, and what happens where a disk is full."""

import errno
import io
import os
import sys
import tempfile

import pytest

from exporter.core import extras
from exporter.core.errors import LoweringError, MissingExtraError, OutputError


def no_room(*_: object) -> io.BytesIO:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_a_converter_raises_is_a_refusal() -> None:
    with (
        pytest.raises(LoweringError, match=r"^it refused a/b: 99, in .*test_extras\.py:\d+; write") as caught,
        extras.converting("it refused a/b"),
    ):
        raise ZeroDivisionError(99)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    "words", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("write failed"), SystemError()]
)
def test_where_temporary_files_have_no_room_that_is_what_is_said(
    words: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many converters do not say that it was a write that failed."""
    monkeypatch.setattr(tempfile, "TemporaryFile", no_room)
    with (
        pytest.raises(OutputError, match=r"^cannot write temporary files: No space left.*TMPDIR$"),
        extras.converting(""),
    ):
        raise words


def test_an_error_of_ours_stays_what_it_is() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'no-such-package'"), extras.converting(""):
        extras.require("no_such_package", "onnx")


def test_the_streams_come_back_where_there_is_no_room_for_noise(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What is written afterwards reaches whoever reads it, the error's own line first of all."""
    monkeypatch.setattr(extras, "_somewhere", lambda: io.FileIO("/dev/full", "r+"))
    with pytest.raises(LoweringError), extras.converting("refused"):
        sys.stdout.write("noise of the buffer, which meets the full disk when it is flushed")
        raise ValueError
    os.write(2, b"error: one line\n")
    assert "error: one line" in capfd.readouterr().err


def test_a_line_that_was_cut_off_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    """As where a limit on the size of files lies within it: nobody could tell what it was."""
    with extras.without_noise("^known"):
        os.write(2, b"known: nothing new\nsomething else\nkno")
    assert capfd.readouterr().err == "something else\n"


def test_an_interrupt_stays_one_where_a_library_fails_in_its_clean_up():
    def interrupted() -> None:
        try:
            raise KeyboardInterrupt
        finally:
            raise AssertionError("Trying to pop empty mode stack")

    with pytest.raises(KeyboardInterrupt), extras.converting("refused"):
        interrupted()
