"""A program that was handed over: saved with torch.export.save, or a module in memory; torch computes its outputs."""

import hashlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.core.errors import BadInputError, ProfileError, ProgramError
from exporter.core.extras import LOWER, require
from exporter.core.types import Arrays
from exporter.pipeline.arrays import MAX_BYTES, check_count, fits_int32, plain, uneven
from exporter.pipeline.exportable import Exportable
from exporter.pipeline.rehearsal import outputs_of
from exporter.pipeline.request import GivenModule, SavedProgram
from models.spec import ProgramSpec
from safeio import files, npz

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from exporter.core.sections import Source as Origin
    from exporter.graph.given import Given, Side

PROGRAM = "program"
"""The second part of such an artifact's place, where a model has the names of its programs."""
_MAX_VALUE_BYTES = 1 << 31  # of one value of the graph: more than a program for a device computes with
_NAME = 64


@dataclass(frozen=True)
class GivenProgram(Exportable):
    """A program with the golden inputs that were given with it, int32 and float32 alone.

    `rehearsed` are its golden outputs where another process has computed them.
    """

    given: "Given"
    label: str
    cases: Arrays
    sha256: str
    rehearsed: Arrays | None = None

    @property
    def name(self) -> str:
        """Return what the program is called."""
        return self.label

    @cached_property
    def module(self) -> "nn.Module":
        """Return the program with the targets' types at its borders."""
        from exporter.graph import given

        return given.module(self.given)

    @property
    def inputs(self) -> Arrays:
        """Return the golden inputs by name, [cases, *shape], in the program's order."""
        return self.cases

    @cached_property
    def outputs(self) -> Arrays:
        """Return what torch computes for the golden inputs, [cases, *shape] by name."""
        return super().outputs if self.rehearsed is None else self.rehearsed

    @property
    def origin(self) -> "Origin":
        """Return the hash of the program."""
        from exporter.core.sections import Source as Origin

        return Origin(program_sha256=self.sha256)


def load(choice: SavedProgram | GivenModule, profile: str, sizes: tuple[int | None, int | None]) -> GivenProgram:
    """Read what was handed over, hold its inputs to what it takes, and compute its golden outputs.

    `sizes` are the history length and the number of candidates that the profile asks for, which only a model can have.
    Raises BadInputError.
    """
    torch = require("torch", LOWER)
    if any(size is not None for size in sizes):
        raise ProfileError(
            f"profile {profile} asks for a history_length or candidates, and a program has the sizes that it was"
            " exported with; choose another --profile"
        )
    torch.set_num_threads(1)  # as for models that ship
    if isinstance(choice, SavedProgram):
        where, name = str(choice.file), _sanitised(choice.file.stem)
        given, sha256 = _saved(choice)
        arrays: Mapping[str, np.ndarray] = _read_inputs(choice.inputs)
    else:
        where, name = "the module", _sanitised(choice.name)
        arrays = plain(choice.inputs)
        given, sha256 = _traced(choice, {name: array[0] for name, array in arrays.items()})
    program = GivenProgram(_spec(where, given, choice.ranking), given, name, _cases(given, arrays), sha256)
    if isinstance(choice, SavedProgram):
        return replace(program, rehearsed=outputs_of(choice, program))
    checked_outputs(where, program)
    return program


def rebuilt(choice: SavedProgram, cases: Arrays) -> GivenProgram:
    """Return the program of a .pt2 with golden inputs that `load` made; raises ProgramError."""
    given, sha256 = _saved(choice)
    spec = _spec(str(choice.file), given, choice.ranking)
    return GivenProgram(spec, given, _sanitised(choice.file.stem), cases, sha256)


def _saved(choice: SavedProgram) -> "tuple[Given, str]":
    """Return the program of a .pt2 and its SHA-256; raises ProgramError."""
    from exporter.graph import given, pt2

    saved = pt2.read(choice.file)
    try:
        return given.given(saved.exported, saved.outputs, choice.outputs, saved.dynamic), saved.sha256
    except ProgramError as error:
        raise ProgramError(f"{choice.file} {error}") from error


def _traced(choice: GivenModule, first: Arrays) -> "tuple[Given, str]":
    """Return what torch.export makes of a module, or an ExportedProgram as it is; raises BadInputError."""
    import torch
    from torch.utils import _pytree as pytree

    from exporter.graph import given
    from exporter.graph.capture import trace

    module = choice.module
    if not isinstance(module, torch.nn.Module | torch.export.ExportedProgram):
        kind = f"the class {module.__name__}" if isinstance(module, type) else type(module).__name__
        raise BadInputError(f"module is {kind}; give a torch.nn.Module, or what torch.export.export returns")
    if not isinstance(module, torch.export.ExportedProgram):
        try:
            inspect.signature(module.forward).bind(**first)
        except (TypeError, ValueError) as error:
            raise BadInputError(f"inputs do not fit what forward takes: {error}") from error
    exported = module if isinstance(module, torch.export.ExportedProgram) else trace(choice.name, module, first)
    try:
        form = pytree.treespec_dumps(exported.call_spec.out_spec)
    except NotImplementedError:  # a class of the user's own
        form = ""
    try:
        found = given.given(exported, form, choice.outputs, frozenset())
    except ProgramError as error:
        raise ProgramError(f"the module {error}") from error
    return found, digest_of_program(exported)


def digest_of_program(exported: Any) -> str:
    """Return the SHA-256 of a program's graph and tensors."""
    digest = hashlib.sha256(exported.graph_module.code.encode())
    for name, tensor in {**exported.state_dict, **exported.constants}.items():
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _sanitised(name: str) -> str:
    """Return a name that a folder can have: letters, digits, _ and -."""
    plain = re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-")
    return plain[:_NAME] or PROGRAM


def _spec(where: str, given: "Given", ranking: str | None) -> ProgramSpec:
    names = tuple(side.name for side in given.outputs)
    if ranking is not None and ranking not in names:
        raise BadInputError(f"{where} has no output {ranking!r} to rank by; it gives {', '.join(names)}")
    ranked = [side for side in given.outputs if side.name == ranking]
    if ranked and (ranked[0].dtype != "float32" or not ranked[0].shape):
        raise BadInputError(f"{where} gives {ranking!r} as {ranked[0].dtype}, and a ranking is scores in float32")
    return ProgramSpec(
        name=PROGRAM,
        description="A program that was handed over",
        runs_on="device",
        inputs=(),
        outputs=names,
        ranking=ranking,
        build=lambda model, _selection=None: model,
    )


def _read_inputs(path: Path) -> "dict[str, np.ndarray]":
    try:
        return npz.read(files.read_file(path, MAX_BYTES, follow_link=True), MAX_BYTES)
    except files.UnreadableError as error:
        raise BadInputError(
            f"{path} {error}; give an .npz with an array per input, the cases on its first axis"
        ) from error


def _cases(given: "Given", arrays: "Mapping[str, np.ndarray]") -> Arrays:
    """Return golden inputs in the program's order and the targets' types; raises BadInputError."""
    names = [side.name for side in given.inputs]
    wrong = [f"have no {name!r}" for name in names if name not in arrays]
    wrong += [f"have {name!r}, which the program does not take" for name in arrays if name not in names]
    if wrong:
        raise BadInputError(f"the golden inputs {wrong[0]}; the program takes {', '.join(names)}")
    cases = {side.name: _case(side, arrays[side.name]) for side in given.inputs}
    counts = uneven(cases)
    if counts is not None:
        raise BadInputError(f"the golden inputs have no cases, or not the same number for each input: {counts}")
    check_count("the golden inputs", len(cases[names[0]]))
    return cases


def _case(side: "Side", array: "np.ndarray") -> "np.ndarray":
    """Return an input's golden values as [cases, *shape]; a batch of one may be left out of the array's axes."""
    import numpy as np

    def refuse(why: str) -> BadInputError:
        shape = ", ".join("n" if size is None else str(size) for size in side.shape)
        return BadInputError(
            f"the golden inputs have {side.name!r} as {array.dtype} {list(array.shape)}; {why}: [cases, {shape}]"
        )

    rank = len(side.shape)
    if array.ndim == rank and rank and side.shape[0] in (1, None):
        array = array[:, None]
    if array.ndim != rank + 1 or any(
        size not in (None, held) for size, held in zip(side.shape, array.shape[1:], strict=True)
    ):
        raise refuse("the program takes for each case what follows the cases")
    if 0 in array.shape:
        raise refuse("no axis may be empty")
    if side.dtype == "float32":
        if array.dtype != np.float32:
            raise refuse("the program takes float32, save it with .astype('float32')")
        if not np.isfinite(array).all():
            raise refuse("NaN and infinite values cannot be compared, leave them out")
        return array
    if array.dtype.kind not in ("b" if side.dtype == "bool" else "iu"):
        raise refuse(f"the program takes {side.dtype}")
    if not fits_int32(array):
        raise refuse("whole numbers are int32 on every target, and some do not fit")
    return array.astype(np.int32)


def checked_outputs(where: str, program: GivenProgram) -> Arrays:
    """Compute the golden outputs; raises BadInputError where they are not what an artifact can be compared with."""
    import numpy as np
    import torch

    captured = program.captured("inputs", "captured")  # shapes alone: before any memory is taken for the values
    for node in captured.exported.graph.nodes:
        value = node.meta.get("val")
        size = value.numel() * value.element_size() if isinstance(value, torch.Tensor) else 0
        if size > _MAX_VALUE_BYTES:
            raise BadInputError(f"{where} computes {node.name!r} of {size} bytes, more than a device has for a value")
    try:
        outputs = program.outputs
        first = [torch.from_numpy(array[0]) for array in program.inputs.values()]
        with torch.no_grad():
            again = program.module(*first)
    except Exception as error:  # torch, with values that the program does not take: ids beyond a table
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInputError(
            f"{where} cannot compute its golden cases: {words}; mend the inputs or the program"
        ) from error
    for (name, values), repeated in zip(outputs.items(), again, strict=True):
        if not np.isfinite(values).all():
            raise BadInputError(
                f"{where} gives NaN or infinite values as {name!r} for the golden cases; mend one of the two"
            )
        if not np.array_equal(values[0], repeated.numpy()):
            raise BadInputError(
                f"{where} gives other values of {name!r} when it runs again, as dropout does; call eval() on the model"
                " before torch.export"
            )
    return outputs
