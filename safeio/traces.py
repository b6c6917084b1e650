"""Which line of a user's source an error is about: neither of this project's nor of the libraries that it calls."""

import re
import sysconfig
from pathlib import Path
from types import TracebackType

_ROOT = Path(__file__).resolve().parents[1]
_OWN = (
    *(str(_ROOT / room) + "/" for room in ("exporter", "safeio", "cocorr")),
    *(str(_ROOT / "models" / file) for file in ("zoo.py", "spec.py", "checking.py", "untrained.py", "checkpoint.py")),
)
_STANDARD = str(Path(sysconfig.get_path("stdlib"))) + "/"
_LIBRARY = re.compile(r"/(site|dist)-packages/(torch|numpy|pydantic)/|/torch/(nn|fx|export|_export)/")
_PACKAGES = re.compile(r"/(site|dist)-packages/")
_FRAME = re.compile(r'File "([^"\n]+)", line (\d+)')


def said(error: BaseException) -> str:
    """Return the words of an error that others raised, "" where its own code fails to give them."""
    try:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return ""


def line_of(error: BaseException) -> str | None:
    """Return `file:line` of the innermost call in a user's source that raised an error, or None."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return _shown(error.filename, error.lineno or 1)
    found = None
    frame: TracebackType | None = error.__traceback__
    while frame is not None:
        name = frame.tb_frame.f_code.co_filename
        found = _shown(name, frame.tb_lineno) if _is_users(name) else found
        frame = frame.tb_next
    return found


def line_in(text: str) -> str | None:
    """Return `file:line` of the last line of a user's source that a stack trace in words names, or None."""
    users = [(name, line) for name, line in _FRAME.findall(text) if _is_users(name)]
    return _shown(users[-1][0], int(users[-1][1])) if users else None


def _is_users(name: str) -> bool:
    if name.startswith("<") or name.startswith(_OWN) or _LIBRARY.search(name):
        return False
    return not name.startswith(_STANDARD) or _PACKAGES.search(name) is not None


def _shown(name: str, line: int) -> str:
    """Return a place as short as it can be found by: relative to the current folder where it is inside."""
    path = Path(name)
    here = Path.cwd()
    return f"{path.relative_to(here) if path.is_relative_to(here) else path}:{line}"
