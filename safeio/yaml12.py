"""Read YAML with one meaning, that of YAML 1.2's core schema (its section 10.3).

PyYAML finds the structure; what a plain word stands for is decided here, since PyYAML follows YAML 1.1, where `on` is
true, `017` is 15 and `2020-13-99` is a broken date. What a file of ours has no use for is an error with its line:
anchors, aliases, tags, directives, a second document, a key that stands twice, and keys that are no strings.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

MAX_DEPTH = 32
MAX_NUMBER = 64
"""Characters of a number; no device needs more, and Python refuses to print whole numbers of thousands of digits."""

_NULL = re.compile(r"null|Null|NULL|~|")
_BOOLEAN = re.compile(r"(true|True|TRUE)|false|False|FALSE")
_NUMBERS: tuple[tuple[re.Pattern[str], Callable[[str], int | float]], ...] = (
    (re.compile(r"[-+]?[0-9]+"), int),
    (re.compile(r"0o[0-7]+"), lambda text: int(text[2:], 8)),
    (re.compile(r"0x[0-9a-fA-F]+"), lambda text: int(text[2:], 16)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
)
_SPECIAL = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
# What YAML 1.2 does not allow to stand in a file, and the line breaks of YAML 1.1 that are none any more.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_LINE_BREAK = re.compile(r"\r\n|\r|\n")


class YamlError(Exception):
    """Why a text is not read, and the 1-based line at fault."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(frozen=True)
class Document:
    """What a text holds: dicts with string keys, lists, strings, numbers, booleans and None.

    `lines` has the 1-based line of every path of keys and, in lists, positions.
    """

    data: Any
    lines: Mapping[tuple[str, ...], int]


def read(data: bytes) -> Document:
    """Read one document of UTF-8 text; raises YamlError."""
    text = _decode(data)
    forbidden = _FORBIDDEN.search(text)
    if forbidden:
        line = _line_at(text, forbidden.start())
        raise YamlError(line, f"the character U+{ord(forbidden[0]):04X} may not stand in a YAML file; remove it")
    builder = _Builder(text)
    return Document(builder.document(), builder.lines)


def _decode(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise YamlError(1, "this is UTF-16; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = _line_at(error.object[: error.start].decode("latin-1"), error.start)
        raise YamlError(line, f"the byte 0x{error.object[error.start]:02X} is no UTF-8; save it as UTF-8") from error


def _line_at(text: str, place: int) -> int:
    return len(_LINE_BREAK.findall(text, 0, place)) + 1


class _Parser(yaml.SafeLoader):
    """Finds the events of a text; what PyYAML itself would make of a scalar is never asked."""

    def process_directives(self) -> Any:
        """Refuse directives, of which PyYAML's events show only some."""
        token: Any = self.peek_token()  # type: ignore[no-untyped-call]
        if isinstance(token, yaml.DirectiveToken):
            raise YamlError(_line(token), "directives (lines that begin with %) are not read here; remove it")
        return super().process_directives()  # type: ignore[no-untyped-call]


class _Builder:
    """Builds the value of one document from the parser's events, in one pass."""

    def __init__(self, text: str) -> None:
        self.lines: dict[tuple[str, ...], int] = {}
        self._parser: Any = _Parser(text)

    def document(self) -> Any:
        """Return the value of the only document, None where there is none."""
        self._next()  # the start of the stream
        if isinstance(self._next(), yaml.StreamEndEvent):
            return None
        value = self._value(self._next(), ())
        self._next()  # the end of the document
        after = self._next()
        if not isinstance(after, yaml.StreamEndEvent):
            raise YamlError(_line(after), "a second document begins here; give one for each file")
        return value

    def _next(self) -> Any:
        try:
            return self._parser.get_event()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line = self._here() if mark is None else mark.line + 1
            raise YamlError(line, f"not YAML: {error.problem or error.context}") from error
        except (ValueError, OverflowError) as error:  # an escape such as "\UFFFFFFFF", which is no character
            raise YamlError(self._here(), f"not YAML: {error}") from error

    def _here(self) -> int:
        return int(self._parser.line) + 1

    def _value(self, event: Any, keys: tuple[str, ...]) -> Any:
        """Return the value that begins with `event`; `keys` is the path that leads to it."""
        self._check(event, keys)
        if isinstance(event, yaml.ScalarEvent):
            return _plain(event) if event.implicit[0] else _text(event)
        return self._list(keys) if isinstance(event, yaml.SequenceStartEvent) else self._mapping(keys)

    @staticmethod
    def _check(event: Any, keys: tuple[str, ...]) -> None:
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            sign = "*" if isinstance(event, yaml.AliasEvent) else "&"
            reason = f"{sign}{event.anchor}: anchors and aliases are not read here; write the value out"
            raise YamlError(_line(event), reason)
        if event.tag is not None:
            raise YamlError(_line(event), f"{event.tag!r}: tags are not read here; remove it, or put it in quotes")
        if len(keys) > MAX_DEPTH:
            raise YamlError(_line(event), f"nested more than {MAX_DEPTH} deep, which no device profile is")

    def _list(self, keys: tuple[str, ...]) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            inner = (*keys, str(len(values)))
            self.lines[inner] = _line(event)
            values.append(self._value(event, inner))
        return values

    def _mapping(self, keys: tuple[str, ...]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            self._check(event, keys)
            key = self._key(event)
            inner = (*keys, key)
            if key in values:
                first = f"this key stands already in line {self.lines[inner]}"
                raise YamlError(_line(event), f"{'.'.join(inner)}: {first}; remove one of the two")
            self.lines[inner] = _line(event)
            values[key] = self._value(self._next(), inner)
        return values

    @staticmethod
    def _key(event: Any) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise YamlError(_line(event), "a key must be a word, not a list or a mapping")
        key = _plain(event) if event.implicit[0] else _text(event)
        if not isinstance(key, str):
            raise YamlError(_line(event), f"the key {event.value[:40]!r} is no string; put it in quotes if it is meant")
        return key


def _line(event: Any) -> int:
    return int(event.start_mark.line) + 1


def _text(event: Any) -> str:
    text = str(event.value)
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        raise YamlError(_line(event), "an escape in this text is half a character; write the character itself")
    return text


def _plain(event: Any) -> Any:
    """Return what a plain scalar stands for in the core schema."""
    text = _text(event)
    if _NULL.fullmatch(text):
        return None
    if boolean := _BOOLEAN.fullmatch(text):
        return boolean[1] is not None
    if special := _SPECIAL.fullmatch(text):
        return float(f"{special[1]}inf") if special[2] else float("nan")
    for pattern, number in _NUMBERS:
        if pattern.fullmatch(text):
            if len(text) > MAX_NUMBER:
                raise YamlError(_line(event), f"a number of {len(text)} characters; {MAX_NUMBER} is the most")
            return number(text)
    return text
