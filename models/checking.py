"""Holds a SPEC that others wrote to what models/spec.py says of one, before anything of it runs.

What is wrong is a ValueError: where it stands, what stands there, what to give.
"""

import keyword
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from models.spec import External, InputSpec, ModelSpec, ProgramSpec, Served

MODEL_NAME = re.compile(r"[A-Za-z0-9]\w{0,63}(-\w+){0,8}", re.ASCII)  # a folder of the artifacts has it
_TENSOR_NAME = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)
_SHOWN = 60
_Part = TypeVar("_Part")


def check(spec: ModelSpec) -> None:
    """Raise ValueError where a part of a SPEC is of another kind, or names what is not there."""
    _name("name", spec.name)
    _text("description", spec.description)
    for part, mapping in (("architecture", spec.architecture), ("optional", spec.optional)):
        _require(part, mapping, isinstance(mapping, Mapping), "a dict of sizes by name")
    for part, function in (("build", spec.build), ("weights", spec.weights)):
        _require(part, function, callable(function), "a function")
    for part, optional in (("select", spec.select), ("encode", spec.encode)):
        _require(part, optional, optional is None or callable(optional), "a function, or None")
    programs = spec.programs
    _require("programs", programs, isinstance(programs, Mapping) and bool(programs), "a dict of ProgramSpec by name")
    for name, program in programs.items():
        _name("a key of programs", name)
        _require(f"programs[{name!r}]", program, isinstance(program, ProgramSpec), "a ProgramSpec")
        _require(f"programs[{name!r}].name", program.name, program.name == name, repr(name))
        try:
            _check_program(program)
        except ValueError as error:
            raise ValueError(f"program {name}: {error}") from error
        _require(
            "select", spec.select, bool(spec.select) or not program.needs_selection, f"a function: {name} needs it"
        )
    default = spec.default_program
    _require("default_program", default, isinstance(default, str) and default in programs, f"one of {_all(programs)}")


def _check_program(program: ProgramSpec) -> None:
    _text("description", program.description)
    _require("runs_on", program.runs_on, program.runs_on in ("device", "cloud"), "'device' or 'cloud'")
    for part, function in (("build", program.build), ("cases", program.cases)):
        _require(part, function, callable(function), "a function")
    _require("of_top", program.of_top, program.of_top is None or callable(program.of_top), "a function, or None")
    served = program.served
    _require("served", served, served is None or isinstance(served, Served), "a Served, or None")
    external, needs = program.external, program.needs_selection
    _require("external", external, external is None or isinstance(external, External), "an External, or None")
    _require("needs_selection", needs, isinstance(needs, bool), "True or False")
    _require("needs_selection", needs, needs or external is None, "True, since external is of a selection")
    inputs = _tuple("inputs", program.inputs, "InputSpec", lambda one: isinstance(one, InputSpec))
    outputs = _tuple("outputs", program.outputs, "names", lambda one: isinstance(one, str))
    names = [*(one.name for one in inputs), *outputs]
    for name in names:
        fits = isinstance(name, str) and _TENSOR_NAME.fullmatch(name) is not None and not keyword.iskeyword(name)
        _require("the name of an input or output", name, fits, "up to 64 letters, digits and _, no word of Python")
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    _require("the name of two inputs or outputs", twice, twice is None, "each its own")
    for one in inputs:
        _require(f"dtype of {one.name}", one.dtype, one.dtype in ("int32", "float32"), "'int32' or 'float32'")
        _require(f"shape of {one.name}", one.shape, callable(one.shape), "a function of architecture, N and C")
        _text(f"meaning of {one.name}", one.meaning)
        _require(f"holds_items of {one.name}", one.holds_items, isinstance(one.holds_items, bool), "True or False")
    _check_references(program, [one.name for one in inputs], outputs)


def _check_references(program: ProgramSpec, inputs: list[str], outputs: tuple[str, ...]) -> None:
    """Raise ValueError where a program names an input or output that it has not."""
    for part, name in (("ranking", program.ranking), ("ranked", program.ranked)):
        _require(part, name, name is None or name in outputs, f"one of the outputs, {_all(outputs)}, or None")
    for part, crossing, there in (("sends", program.sends, outputs), ("receives", program.receives, inputs)):
        fits = isinstance(crossing, tuple | list) and all(name in there for name in crossing)
        fits = fits and len(set(crossing)) == len(crossing)
        _require(part, crossing, fits, f"some of {_all(there)}, each once")
    state, meanings = program.state, program.output_meanings
    fits = isinstance(state, Mapping) and all(out in outputs and into in inputs for out, into in state.items())
    fits = fits and len(set(state.values())) == len(state)
    _require("state", state, fits, f"outputs, of {_all(outputs)}, each with an input of its own, of {_all(inputs)}")
    fits = isinstance(meanings, Mapping) and all(name in outputs for name in meanings)
    _require("output_meanings", meanings, fits, f"texts by the names of outputs, {_all(outputs)}")
    for name, meaning in meanings.items():
        _text(f"output_meanings[{name!r}]", meaning)


def _require(part: str, value: object, fits: bool, give: str) -> None:
    if not fits:
        shown = repr(value)
        raise ValueError(f"{part} is {shown if len(shown) <= _SHOWN else f'{shown[:_SHOWN]}...'}; give {give}")


def _name(part: str, value: object) -> None:
    fits = isinstance(value, str) and MODEL_NAME.fullmatch(value) is not None
    _require(part, value, fits, "a name of letters, digits, _ and -")


def _text(part: str, value: object) -> None:
    _require(part, value, isinstance(value, str) and value.isprintable(), "a line of text that can be printed")


def _tuple(part: str, values: tuple[_Part, ...], of: str, fits: Callable[[_Part], bool]) -> tuple[_Part, ...]:
    whole = isinstance(values, tuple | list) and bool(values) and all(map(fits, values))
    _require(part, values, whole, f"a tuple of {of}, at least one")
    return tuple(values)


def _all(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))
