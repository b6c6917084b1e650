"""The root of the project's error tree: errors that end a command as one printable line with an exit code."""

import re
from collections.abc import Iterable

MAX_MESSAGE = 1000
_LONGEST_NAME = 100


class CocorrError(Exception):
    """Base of all errors that a user may see; the message is one line that cannot steer a terminal."""

    exit_code = 1

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))

    @property
    def kind(self) -> str:
        """Return the name of the class as documents have it: `bad_input` for BadInputError."""
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__.removesuffix("Error")).lower()


class BadInputError(CocorrError):
    """The request cannot be served as it stands; nothing was changed."""

    exit_code = 2


class OutputError(BadInputError):
    """A place on disk that cannot be written."""


def has_controls(text: str) -> bool:
    """Say whether a text has control characters, or halves of surrogate pairs: so Python shows what is not UTF-8."""
    return any(sign < " " or "\x7f" <= sign <= "\x9f" or "\ud800" <= sign <= "\udfff" for sign in text)


def printable(text: str) -> str:
    """Return a text with escapes for what does not print, so that it cannot steer a terminal."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def one_line(message: str) -> str:
    """Return words as one line of at most 1,000 characters, with escapes for what does not print."""
    line = " ".join(message[: 8 * MAX_MESSAGE].split())
    plain = printable(line)
    return plain if len(plain) <= MAX_MESSAGE else f"{plain[:MAX_MESSAGE]}..."


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a question whether the name most like a wrong one was meant, or nothing where none is like it."""
    from difflib import get_close_matches

    names = {other.lower(): other for other in known}
    close = get_close_matches(name[:_LONGEST_NAME].lower(), names, n=1)
    return f" (did you mean {names[close[0]]!r}?)" if close else ""
