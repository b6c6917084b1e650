"""From a state dict under published names to ours: sizes from shapes, and all that does not fit told at once."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.checkpoint import MAX_SIZE, MAX_VOCABULARY
from models.importing.origin import Origin, Place, Shape
from models.importing.weights_file import ImportingError
from models.spec import ModelSpec
from safeio.errors import MAX_MESSAGE

Problems = dict[str, list[str]]
"""What does not fit, by what is wrong with it."""
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_NAMES_TOLD = (10_000, 12, 5, 2)
"""How many names of a kind a message has, the most that it has room for."""
_ROOM = MAX_MESSAGE - 200  # for the path before it


@dataclass(frozen=True)
class Converted:
    """A state dict of ours in fp32 with its architecture, the length N of histories, and what is to be said of it."""

    architecture: Mapping[str, int]
    state: Mapping[str, Tensor]
    history_length: int
    notes: tuple[str, ...]


def convert(
    origin: Origin, spec: ModelSpec, theirs: Mapping[str, Tensor], heads: int | None, history: int | None
) -> Converted:
    """Return the weights of `theirs` under our names; raises ImportingError that tells of all that does not fit."""
    theirs = {name: tensor for name, tensor in theirs.items() if name not in origin.derived}
    names, counts = _names(origin, theirs)
    sizes = {key: _extent(theirs, places) for key, places in origin.sizes.items()}
    known = {key: size for key, size in sizes.items() if size is not None} | counts
    asked, length, notes = _asked(origin, known, heads, history)
    architecture = {"vocabulary": 2, **spec.architecture, **known, **asked}
    architecture |= {part: 1 for part, its in origin.parts.items() if its.keys() & theirs.keys()}
    if "history_length" in spec.architecture:
        architecture["history_length"] = length
    problems = _impossible(origin, architecture)
    ours = {} if problems else _shapes(spec, architecture, problems)
    state = _place(origin, names, ours, theirs, problems)
    if problems:
        raise ImportingError(_told(origin, problems))
    if any(theirs[name].dtype != torch.float32 for name in names):
        kinds = sorted({str(theirs[name].dtype).removeprefix("torch.") for name in names})
        notes.append(f"weights of {' and '.join(kinds)} became float32")
    notes += [note for note in (origin.settle(state),) if note]
    if origin.assumed:
        notes.append(f"the weights do not show that {origin.assumed}")
    return Converted(architecture, state, length, tuple(notes))


def _names(origin: Origin, theirs: Mapping[str, Tensor]) -> tuple[dict[str, str], dict[str, int]]:
    """Return their names for ours with the blocks that there are, and how many of what is counted there are."""
    counts = {}
    for key, begin in origin.counted.items():
        numbered = re.compile(re.escape(begin).replace(r"\{\}", r"(\d{1,4})"))
        found = {int(match[1]) for name in theirs if (match := numbered.match(name))}
        counts[key] = max(len(found), 1)
    blocks = max(counts.values(), default=0)
    patterns = dict(origin.names)
    for part in origin.parts.values():
        if part.keys() & theirs.keys():
            patterns |= part
    names = {}
    for pattern, ours in patterns.items():
        for number in map(str, range(blocks)) if "{}" in pattern else ("",):
            names[pattern.replace("{}", number)] = ours.replace("{}", number)
    return names, counts


def _extent(theirs: Mapping[str, Tensor], places: Sequence[Place]) -> int | None:
    """Return what most places say of a size, the first of them where they are at odds; None where none is there."""
    said = [theirs[name].shape[axis] for name, axis in places if name in theirs and theirs[name].dim() > axis]
    return Counter(said).most_common(1)[0][0] if said else None


def _asked(
    origin: Origin, known: Mapping[str, int], heads: int | None, history: int | None
) -> tuple[dict[str, int], int, list[str]]:
    """Return the sizes that no shape shows, the length of histories, and notes on those that nobody stated."""
    notes, asked = [], {}
    if heads is not None and "heads" not in origin.asked:
        why = f"its weights say that it has {known['heads']}" if "heads" in known else "it has no heads"
        raise ImportingError(f"--heads {heads} is not for {origin.name}: {why}; leave it out")
    for key, usual in origin.asked.items():
        asked[key] = usual if heads is None else heads
        if heads is None:
            notes.append(f"{key} {usual} is what is usual there, the weights do not show it; --{key} says otherwise")
    if "history_length" in origin.sizes:
        length = known.get("history_length", history or 1)
        if history not in (None, length):
            raise ImportingError(
                f"--history {history} is not for {origin.name}: its table of positions is for {length} clicks; leave it"
                " out"
            )
        return asked, length, notes
    if origin.history is not None and history is None:
        notes.append(f"histories of {origin.history} clicks are what is usual there; --history says otherwise")
    return asked, history or origin.history or 1, notes


def _impossible(origin: Origin, architecture: Mapping[str, int]) -> Problems:
    """Return what is wrong with the sizes themselves."""
    wrong = []
    for key, size in architecture.items():
        least, most = (2, MAX_VOCABULARY) if key == "vocabulary" else (1, MAX_SIZE)
        least, why = origin.least.get(key, (least, ""))
        if not least <= size <= most:
            wrong.append(f"{key} is {size}, which must be from {least} to {most}{why and f', for {why}'}")
    return {"impossible": wrong} if wrong else {}


def _shapes(spec: ModelSpec, architecture: Mapping[str, int], problems: Problems) -> dict[str, Shape]:
    """Return the shapes of our model's weights by name, without memory for them; notes where there is no such model."""
    try:
        with torch.device("meta"):
            model = spec.build(architecture)
    except ValueError as error:
        problems["impossible"] = [str(error)]
        return {}
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _place(
    origin: Origin,
    names: Mapping[str, str],
    ours: Mapping[str, Shape],
    theirs: Mapping[str, Tensor],
    problems: Problems,
) -> dict[str, Tensor]:
    """Return the weights that fit under our names, in fp32 and in memory of their own; notes those that do not."""
    problems["missing"] = [name for name in names if name not in theirs]
    problems["of another shape"], problems["not finite"], problems["no floats"] = [], [], []
    state = {}
    for name, own in names.items():
        if name not in theirs or own not in ours:
            continue
        tensor, shape = theirs[name], ours[own]
        there = origin.shapes[name](shape) if name in origin.shapes else shape
        if tuple(tensor.shape) != there:
            problems["of another shape"].append(f"{name} is {list(tensor.shape)} and not {list(there)}")
        elif tensor.dtype not in DTYPES:
            problems["no floats"].append(f"{name} ({str(tensor.dtype).removeprefix('torch.')})")
        else:
            state[own] = tensor.detach().to(torch.float32).reshape(shape).clone()
            if not bool(torch.isfinite(state[own]).all()):
                problems["not finite"].append(name)
    problems["left over"] = [name for name in theirs if name not in names]
    for kind in [kind for kind, told in problems.items() if not told]:
        del problems[kind]
    return state


def _told(origin: Origin, problems: Problems) -> str:
    """Return one message about all problems, with as many names as one line may have."""
    message = ""
    for most in _NAMES_TOLD:
        parts = (f"{kind}: {_listed(told, most)}" for kind, told in problems.items())
        message = f"these weights are not those of {origin.name}; {'; '.join(parts)}"
        message += f"; give its state dict ({origin.save}), or name what it is with --as"
        if len(message) <= _ROOM:
            break
    return message


def _listed(told: Sequence[str], most: int) -> str:
    more = f" and {len(told) - most} more" if len(told) > most else ""
    return f"{', '.join(_shortened(told[:most]))}{more}"


def _shortened(names: Iterable[str]) -> list[str]:
    return [name if len(name) <= 120 else f"{name[:120]}..." for name in names]
