"""How a model is built and which deployable programs it has."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

Arrays = Mapping[str, "np.ndarray"]
Stored = Literal["fp32", "fp16", "int8"]
"""What a weights package may be stored in."""
_SHOWN = 60


@dataclass(frozen=True)
class InputSpec:
    """One int32 or float32 input of a program: its name and shape for a history length N and a candidate count C.

    `meaning` tells the developer of an app what to put there; "" where nobody said so. With `holds_items` its numbers
    are rows of the item table, for which an app has ids of its own.
    """

    name: str
    dtype: Literal["int32", "float32"]
    shape: Callable[[Mapping[str, Any], int, int], tuple[int, ...]]
    meaning: str = ""
    holds_items: bool = False

    def sized(self, architecture: Mapping[str, Any], history_length: int, candidates: int) -> tuple[int, ...]:
        """Return what `shape` gives for these sizes; raises ValueError where that is no tuple of whole numbers."""
        shape = self.shape(architecture, history_length, candidates)
        if not isinstance(shape, tuple | list) or any(type(extent) is not int or extent < 1 for extent in shape):
            raise ValueError(f"shape of {self.name} gives {repr(shape)[:_SHOWN]}; give whole numbers from 1")
        return tuple(shape)


@dataclass(frozen=True)
class Selection:
    """The sub-network that a program is built for: which blocks run, and whose history gives them their weights.

    `structure` holds 0 or 1 per block, `logits` what the controller says about each block (it would run those >= 0),
    `history` the latest clicks without padding, oldest first.
    """

    structure: tuple[int, ...]
    logits: tuple[float, ...]
    history: tuple[int, ...]


class Select(Protocol):
    """Resolve what a user asked for into a Selection; raises ValueError with one line where that cannot be."""

    def __call__(
        self, model: "nn.Module", golden: Arrays, history: Sequence[int] | None, structure: str | None
    ) -> Selection:
        """Take a history of item ids or None for a golden one, and a structure such as 101101 or None for its own."""
        ...


class Scores(Protocol):
    """Score golden cases with one structure for all users."""

    def __call__(self, model: "nn.Module", golden: Arrays, structure: tuple[int, ...] | None) -> "np.ndarray":
        """Return scores [cases, C] of a structure [L], or of that which the model chooses for each user."""
        ...


class BuildProgram(Protocol):
    """Wrap a model in a module whose forward takes a program's inputs in order."""

    def __call__(self, model: "nn.Module", selection: Selection | None = None, /) -> "nn.Module":
        """Return the module; raises ValueError for `needs_selection` without one, and for a part that a model lacks."""
        ...


class Cases(Protocol):
    """Make a program's inputs, those of an artifact's golden.npz, from a checkpoint's golden arrays."""

    def __call__(self, model: "nn.Module", golden: Arrays, selection: Selection | None = None, /) -> Arrays:
        """Return every input by name and in forward's order, with the cases on a first axis of its own."""
        ...


def golden_ids(_model: "nn.Module", golden: Arrays, _selection: Selection | None = None) -> Arrays:
    """Return item_ids [cases, 1, N] and candidate_ids [cases, 1, C] as they are."""
    return {name: golden[name][:, None] for name in ("item_ids", "candidate_ids")}


def require_module(what: str, made: object) -> None:
    """Raise TypeError where `build` of a SPEC made no module."""
    from torch import nn

    if not isinstance(made, nn.Module):
        raise TypeError(f"build of {what} gives {type(made).__name__}; give a torch.nn.Module")


@dataclass(frozen=True)
class External:
    """Weights that a program takes as inputs, or that a target may keep in a named data file beside the program.

    `weights` gives the tensors of a selection by name, in the order of the inputs that follow the program's `inputs`;
    `with_parameters` builds the same graph with parameters of exactly these names in place of those inputs.
    """

    weights: Callable[["nn.Module", Selection], dict[str, "Tensor"]]
    with_parameters: BuildProgram


class Answer(Protocol):
    """Write what a device gets from the cloud."""

    def __call__(self, inputs: Arrays, outputs: Arrays, stored: str | None, /) -> bytes:
        """Return the file of one user, of arrays without the axis of users; raises ValueError where there is none."""
        ...


@dataclass(frozen=True)
class Served:
    """How a program of the cloud is served over a network: at /v1/`path`.

    `answers` gives for an architecture, and the SHA-256 of the checkpoint, what writes an answer. Requests have the
    inputs `in_digits` as a text of 0 and 1; where `stored` names what an answer may be stored in, they may choose, and
    the first is the default.
    """

    path: str
    answers: Callable[[Mapping[str, Any], str | None], Answer]
    in_digits: tuple[str, ...] = ()
    stored: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProgramSpec:
    """One deployable graph: `build` makes its module, `cases` the inputs on which its artifacts are judged.

    `ranking` names the output that holds candidate scores, whose order parity must keep; None where there is none.
    With `needs_selection` it is built for one user's Selection, and `build` and `cases` raise ValueError without; any
    other program is the same for all users. Where a case is too large for all of them to be kept, `further` yields the
    inputs of the others, some at a time: on them torch is held to torch, and no artifact is run.
    `sends` are outputs that go to the other side, device or cloud, and `receives` inputs that come from there.
    `state` names for an output the input that takes it with the next call; all such inputs are zero at the start.
    `output_meanings` tells the developer of an app what outputs are, by their names.
    Where the program itself chooses the best items, `ranked` names the output that has the rows of those whose scores
    `ranking` has, and `of_top` gives the `build` for another number of them than the program's own. `served` is how
    the cloud offers it to devices; None: it does not.
    """

    name: str
    description: str
    runs_on: Literal["device", "cloud"]
    inputs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    ranking: str | None
    build: BuildProgram
    cases: Cases = golden_ids
    further: "Callable[[nn.Module, Arrays, Selection | None], Iterator[Arrays]] | None" = None
    needs_selection: bool = False
    external: External | None = None
    sends: tuple[str, ...] = ()
    receives: tuple[str, ...] = ()
    state: Mapping[str, str] = field(default_factory=dict)
    output_meanings: Mapping[str, str] = field(default_factory=dict)
    ranked: str | None = None
    of_top: Callable[[int], BuildProgram] | None = None
    served: Served | None = None


class Made(Protocol):
    """Weights packages of up to as many users as a Cloud makes at once, all of one structure; rows are users.

    `users` [n] is whose of those asked for they are, `files` uint8 [n, bytes].
    """

    @property
    def users(self) -> "np.ndarray":
        """Return the place of each row's user among those asked for."""
        ...

    @property
    def files(self) -> "np.ndarray":
        """Return the packages; they lie where the next ones are written."""
        ...

    def scores(self, item_ids: "np.ndarray", candidate_ids: "np.ndarray", as_stored: bool) -> "np.ndarray":
        """Return what each user's sub-network gives, [n, C]; `as_stored`: with the weights that come out of `files`."""
        ...

    def tensors(self) -> Arrays:
        """Return the weights by name that come out of `files`, fp32 [n, *shape]."""
        ...


class Cloud(Protocol):
    """What answers devices: which sub-network each user asks for, and the package of its weights.

    What it gives for a user does not depend, to the bit, on who else is asked for.
    """

    def requests(
        self, item_ids: "np.ndarray", structure: tuple[int, ...] | None = None
    ) -> "tuple[np.ndarray, np.ndarray]":
        """Return structures int8 [U, L] and latents fp32 [U, D] of histories [U, N]; all of one structure if given."""
        ...

    def package_bytes(self, structure: tuple[int, ...], stored: Stored) -> int:
        """Return the length of the package of every user of a structure."""
        ...

    def packages(self, structures: "np.ndarray", latents: "np.ndarray", stored: Stored) -> Iterator[Made]:
        """Yield the packages of users with structures [U, L] and latents [U, D], some at once; raises BadInputError."""
        ...


class Package(Protocol):
    """Make the weights package of one user; it names the checkpoint by its SHA-256."""

    def __call__(
        self,
        model: "nn.Module",
        item_ids: "np.ndarray",
        structure: tuple[int, ...] | None,
        stored: Stored,
        checkpoint: str | None,
        /,
    ) -> tuple[tuple[int, ...], bytes]:
        """Return the structure [L], the user's own if none is given, and the file for a history [1, N].

        Raises ValueError for a model that gives all users the same weights, and for weights that it cannot store.
        """
        ...


def table_weights(architecture: Mapping[str, Any]) -> int:
    """Return the number of weights of the item embedding alone."""
    return int(architecture["vocabulary"]) * int(architecture.get("dimension", 1))


@dataclass(frozen=True)
class ModelSpec:
    """A model: `build` takes the `architecture` part of a checkpoint's config.json and returns it untrained.

    Its forward maps histories [B, N] and candidate ids [B, C] to scores [B, C], those of a checkpoint's golden.npz.
    `architecture` has the default sizes, all but the vocabulary's; a history_length in it stands for that of the data.
    `optional` adds the parts that a checkpoint may lack. `weights` is a lower bound on the number of its weights, known
    before memory is taken; `select` and `scores` are None for a model of one network. `encode` computes all that it
    computes for each click of histories [B, N] and nothing else: what module hooks see of it is the per-token cost that
    Table 4 of the CoCorrRec paper states. `cloud` is what generates each user's weights, where something does; it
    raises ValueError for a model that has no such part. `package` makes one user's weights alone, generated or
    fine-tuned.
    """

    name: str
    description: str
    build: Callable[[Mapping[str, Any]], "nn.Module"]
    architecture: Mapping[str, Any]
    programs: Mapping[str, ProgramSpec]
    default_program: str
    weights: Callable[[Mapping[str, Any]], int] = table_weights
    select: Select | None = None
    scores: Scores | None = None
    encode: Callable[["nn.Module", "Tensor"], Any] | None = None
    cloud: Callable[["nn.Module", str | None], Cloud] | None = None
    package: Package | None = None
    optional: Mapping[str, Any] = field(default_factory=dict)

    def sized(self, vocabulary: int, history_length: int) -> dict[str, Any]:
        """Return the architecture that is trained by default, for V items with padding and histories of N clicks."""
        architecture = {"vocabulary": vocabulary, **self.architecture}
        return architecture | ({"history_length": history_length} if "history_length" in architecture else {})
