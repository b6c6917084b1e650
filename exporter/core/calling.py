"""How an app calls a program: what the snippets of an artifact's card are made from, and what they are."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from exporter.core.types import Options
from safeio import catalogue

EXAMPLE = "example.json"
ITEMS = catalogue.FILE
HISTORY = "item_ids"
"""The input that takes clicks, oldest first."""

Language = Literal["python", "kotlin", "swift", "javascript"]

# Words that are no names in Kotlin or in Swift.
_RESERVED = frozenset(
    (
        *("any", "as", "break", "case", "catch", "class", "continue", "default", "defer", "deinit", "do", "else"),
        *("enum", "extension", "fallthrough", "false", "fileprivate", "for", "fun", "func", "guard", "if"),
        *("import", "in", "init", "inout", "interface", "internal", "is", "let", "nil", "null", "object", "open"),
        *("operator", "package", "private", "protocol", "public", "repeat", "rethrows", "return", "self", "static"),
        *("struct", "subscript", "super", "switch", "this", "throw", "throws", "true", "try", "typealias"),
        *("typeof", "val", "var", "when", "where", "while"),
    )
)
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_PLAIN_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


@dataclass(frozen=True)
class Argument:
    """An input or output as an app sees it; with `holds_items` its numbers are rows of the item table."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    holds_items: bool = False

    @property
    def count(self) -> int:
        """Return how many numbers it has."""
        return math.prod(self.shape)

    @property
    def identifier(self) -> str:
        """Return its name as Kotlin and Swift write names: item_ids is itemIds."""
        first, *others = [part for part in self.name.split("_") if part] or ["_"]
        name = first[:1].lower() + first[1:] + "".join(part[:1].upper() + part[1:] for part in others)
        return f"{name}_" if name in _RESERVED or name[:1].isdigit() else name


class Named(Protocol):
    """An input of a program, wherever it is described."""

    @property
    def name(self) -> str:
        """Return its name."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Return its shape."""
        ...


def clicks_per_call(state: Mapping[str, str], inputs: Iterable[Named]) -> int | None:
    """Return how many clicks a call of a program with a state takes in; None for one without.

    As many as its `item_ids` have places, and one where it has no such input.
    """
    if not state:
        return None
    return next((spec.shape[-1] for spec in inputs if spec.name == HISTORY), 1)


@dataclass(frozen=True, kw_only=True)
class Calling:
    """One program to be called: its files by name, its inputs and outputs in their order in the file.

    `weights` are inputs too, the tensors of the weights package beside the program; where that package or another
    file is read by the runtime itself, `data_file` names it and `weights` is empty. With `raw_ids` the folder has
    items.tsv, and an app's ids are those in it. `state` names for an output the input that takes it with the next call.
    """

    model: str
    program: str
    model_file: str
    options: Options
    inputs: tuple[Argument, ...]
    outputs: tuple[Argument, ...]
    state: Mapping[str, str]
    weights: tuple[Argument, ...] = ()
    package: str | None = None
    data_file: str | None = None
    raw_ids: bool = False

    @property
    def title(self) -> str:
        """Return what the program is called."""
        return f"{self.model}/{self.program}"

    @property
    def class_name(self) -> str:
        """Return a name for a class that calls it: ScnRerank."""
        words = re.findall(r"[A-Za-z0-9]+", f"{self.model} {self.program}")
        name = "".join(word[:1].upper() + word[1:] for word in words)
        return name if name[:1].isalpha() else f"Program{name}"

    @property
    def is_plain(self) -> bool:
        """Say whether all names can stand in code as they are, and mean nothing else there."""
        arguments = (*self.inputs, *self.outputs, *self.weights)
        files = [name for name in (self.model_file, self.package, self.data_file) if name is not None]
        plain = all(_PLAIN.fullmatch(argument.name) for argument in arguments) and all(
            map(_PLAIN_FILE.fullmatch, files)
        )
        identifiers = [[argument.identifier for argument in side] for side in (self.inputs, self.outputs)]
        return plain and all(len(set(names)) == len(names) for names in identifiers)


@dataclass(frozen=True)
class Snippet:
    """A program in one language that calls an artifact; `needs` says what to install or to add to a build.

    `code` is None where that runtime has no way to call this program in this language, and `note` says why. `proved`
    says how far the code was tried where that is not what is said of all code in its language.
    """

    language: Language
    runtime: str
    needs: str
    code: str | None
    note: str = ""
    proved: str | None = None
