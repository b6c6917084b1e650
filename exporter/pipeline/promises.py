"""What the SPEC of a program promises, held against its golden inputs and what it computes, before it is lowered."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from exporter.core.errors import BadInputError
from exporter.pipeline import batches
from exporter.pipeline.arrays import check_count, check_whole, uneven

if TYPE_CHECKING:
    from torch import Tensor

    from exporter.core.types import Arrays
    from exporter.pipeline.source import Source
    from models.spec import ProgramSpec


def check_cases(where: str, source: "Source") -> None:
    """Raise BadInputError where the golden inputs of a program are not what its SPEC says: no artifact has those."""
    import numpy as np

    program, inputs = source.program, source.exact_inputs
    whose = f"{where}: the cases of {program.name}"
    if not isinstance(inputs, Mapping) or not all(isinstance(array, np.ndarray) for array in inputs.values()):
        raise BadInputError(f"{whose} are no dict of numpy arrays; give one, with an array per input, cases first")
    own = [spec.name for spec in program.inputs]
    names = [*own, *(source.external.tensors if source.external else ())]
    if list(inputs) != names:
        told, wanted = (", ".join(map(str, part)) or "nothing" for part in (inputs, names))
        raise BadInputError(f"{whose} are for {told}; give {wanted}, in this order")
    check_whole(whose, inputs)
    check_count(whose, max(len(array) for array in inputs.values() if array.ndim))
    for spec in program.inputs:
        array = inputs[spec.name]
        try:
            shape = spec.sized(source.checkpoint.architecture, source.history_length, source.candidates)
        except ValueError as error:
            raise BadInputError(f"{where}: {program.name}: {error}") from error
        if array.dtype != spec.dtype:
            raise BadInputError(f"{whose} have {spec.name!r} in {array.dtype}; give {spec.dtype}")
        if array.shape[1:] != shape:
            raise BadInputError(f"{whose} have {spec.name!r} as {list(array.shape)}; give {_cases_of(shape)}")
        if not np.isfinite(array).all():
            raise BadInputError(f"{whose} have NaN or infinite values in {spec.name!r}; give finite ones")
    counts = uneven(inputs)
    if counts is not None:
        raise BadInputError(f"{whose} are none, or not the same number for each input ({counts}); give as many of each")


def _cases_of(shape: Iterable[object]) -> str:
    return f"[{', '.join(map(str, ('cases', *shape)))}]"


def check_outputs(where: str, source: "Source") -> None:
    """Compute one case, of one user; raises BadInputError where what comes out is not what the SPEC says.

    Also for a batch that cannot be had: an output without an axis of users, or golden cases that are too large.
    """
    import torch

    program = source.program
    inputs = source.inputs if source.batch == 1 else batches.alone(source.inputs)
    with torch.no_grad():
        values = source.module(*(torch.from_numpy(array[0]) for array in inputs.values()))
    whose = f"{where}: forward of {program.name}"
    values = values if isinstance(values, tuple) else (values,)
    stray = next((type(value).__name__ for value in values if not isinstance(value, torch.Tensor)), None)
    if stray is not None:
        raise BadInputError(f"{whose} gives {stray}; give a tensor, or a tuple of tensors")
    if len(values) != len(program.outputs):
        named = ", ".join(program.outputs)
        raise BadInputError(f"{whose} gives {len(values)} outputs, and its SPEC names {named}; make the two one")
    for name, value in zip(program.outputs, values, strict=True):
        if value.dtype not in (torch.float32, torch.int32):
            kind = str(value.dtype).removeprefix("torch.")
            raise BadInputError(f"{whose} gives {name!r} in {kind}; give float32 or int32, as all targets have them")
    made = dict(zip(program.outputs, values, strict=True))
    _check_ranking(whose, source, inputs, made)
    _check_uses(whose, program, inputs, made)
    if source.batch > 1:
        first = {name: array[0] for name, array in inputs.items()}
        batches.check_one(source.batch, first, {name: value.numpy() for name, value in made.items()})


def _check_ranking(whose: str, source: "Source", inputs: "Arrays", made: "Mapping[str, Tensor]") -> None:
    """Raise BadInputError where a program that takes ids of candidates gives no score for each, on the last axis."""
    program, count = source.program, source.candidates
    if program.ranking is None or program.ranked is not None:
        return
    sizes = {
        spec.name: tuple(
            spec.shape(source.checkpoint.architecture, source.history_length, candidates)[-1:]
            for candidates in (count, count + 1)
        )
        for spec in program.inputs
        if spec.holds_items
    }
    taking = [name for name, held in sizes.items() if held == ((count,), (count + 1,))]
    scores = list(made[program.ranking].shape)
    if taking and scores[-1:] != [count]:
        wanted = list(inputs[taking[0]].shape[1:])
        raise BadInputError(
            f"{whose}: {program.ranking} is {scores}; give {wanted}, a score for each candidate of {taking[0]}"
        )


def _check_uses(whose: str, program: "ProgramSpec", inputs: "Arrays", made: "Mapping[str, Tensor]") -> None:
    """Raise BadInputError where an output is not what its state's input takes, or no ids of the scores."""
    ids = program.ranked
    kinds = {name: (list(value.shape), str(value.dtype).removeprefix("torch.")) for name, value in made.items()}
    for output, into in program.state.items():
        array = inputs[into]
        if kinds[output] != (list(array.shape[1:]), array.dtype.name):
            raise BadInputError(f"{whose} gives {output!r} in another shape or type than {into!r}, which takes it")
    if ids is not None and (program.ranking is None or kinds[ids] != (kinds[program.ranking][0], "int32")):
        raise BadInputError(f"{whose} gives {ids!r} as no int32 ids of the scores; give an id for each score")


def require_finite(where: str, source: "Source") -> None:
    """Compute the golden outputs; raises BadInputError where one is no number that can be compared."""
    import numpy as np

    for name, values in source.outputs.items():
        if not np.isfinite(values).all():
            raise BadInputError(
                f"{where}: {source.program.name} gives NaN or infinite values as {name!r} for the golden cases; mend"
                " the weights or the cases"
            )
