"""The progress of a training run on disk, so that a run that was killed goes on after its last whole epoch.

One safetensors file beside the checkpoint to be, exchanged in one step. Tensors are `model.NAME`, `best.NAME`,
`optimiser.INDEX.KEY` and `torch_rng`; all else is JSON, the metadatum `facts`. What is read is untrusted: a checksum
tells damage, and all that a checksum cannot vouch for is compared with this run before anything of it is touched.
"""

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from models.checkpoint import CheckpointError
from safeio import strict_json
from safeio.errors import OutputError
from safeio.files import UnreadableError, read_file, replace_file, writing
from safeio.places import check_file, check_folder

SELECTION = "NDCG@10"
"""The metric of the validation by which the best epoch is chosen; more is better, and 1 is the most."""
_ROW = ("epoch", "loss", SELECTION, "seconds")
_FACTS = ("run", "numpy_rng", "epoch", "best", "best_epoch", "log", "sha256")
_AVERAGES = ("exp_avg", "exp_avg_sq")
_MAX_FACTS = 64 << 20
_ADVICE = "remove it to start anew"


@dataclass
class Progress:
    """Where a run is after `epoch` whole epochs: its best one so far with those weights, and a row for each epoch."""

    epoch: int
    best: float
    best_epoch: int
    best_state: dict[str, Tensor]
    log: list[dict[str, float]]


class _DamagedError(Exception):
    """What is wrong with a progress file."""


def check_place(path: Path) -> None:
    """Raise OutputError where no progress could be saved; asked before the data is read."""
    advice = "choose another --output, since progress is saved beside it"
    if path.is_symlink():  # nobody named it, so it is not followed
        raise OutputError(f"{path} is a link; {advice}")
    if os.path.lexists(path):
        check_file(path, advice)
    else:  # folders above it that are not there yet will be made
        check_folder(path, lambda _: None, advice)


@dataclass(frozen=True)
class Resume:
    """A file for the progress of one run of up to `epochs` epochs, which `run` describes in JSON values.

    `run` holds settings, data and versions: equal ones give equal weights.
    """

    path: Path
    run: Mapping[str, object]
    epochs: int

    def save(
        self, progress: Progress, model: nn.Module, optimiser: torch.optim.Optimizer, rng: np.random.Generator
    ) -> None:
        """Write all that the next epoch depends on; raises OutputError where it cannot be written."""
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in progress.best_state.items()}
        for index, values in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": tensor for key, tensor in values.items()}
        tensors["torch_rng"] = torch.get_rng_state()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        facts = {
            "run": self.run,
            "numpy_rng": rng.bit_generator.state,
            **{key: getattr(progress, key) for key in ("epoch", "best", "best_epoch", "log")},
        }
        facts["sha256"] = _checksum(facts, tensors)
        content = safetensors.torch.save(tensors, {"facts": json.dumps(facts)})
        advice = (
            f"the progress after epoch {progress.epoch} is lost: make room and repeat the command, it goes on after"
            " the epoch before"
        )
        with writing(self.path, advice):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.path, content, advice)

    def load(self, model: nn.Module, optimiser: torch.optim.Optimizer, rng: np.random.Generator) -> Progress | None:
        """Put all into the state of the last whole epoch and return it; None where there is no file.

        Raises CheckpointError, with everything as it was, where the file is of another run or damaged.
        """
        expected = _expected(model, optimiser)
        limit = sum(tensor.nbytes for tensor in expected.values()) + _MAX_FACTS
        try:
            facts, tensors = _parse(read_file(self.path, limit))
            self._check_run(facts["run"])
            _check_tensors(tensors, expected)
            log = _check_counts(facts, self.epochs)
            generator = _check_generator(facts["numpy_rng"])
        except UnreadableError as error:
            if error.missing:
                return None
            raise CheckpointError(f"{self.path} {error}; it is no progress of this run, {_ADVICE}") from error
        except _DamagedError as error:
            raise CheckpointError(f"{self.path} is damaged: {error}; {_ADVICE}") from error
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, "optimiser.").items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = tensor
        model.load_state_dict(_part(tensors, "model."))
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
        torch.set_rng_state(tensors["torch_rng"])
        rng.bit_generator.state = generator
        return Progress(facts["epoch"], facts["best"], facts["best_epoch"], _part(tensors, "best."), log)

    def remove(self) -> None:
        """Remove the file of a run that has ended; raises OutputError."""
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"cannot remove {self.path}: {error.strerror}; remove it yourself") from error

    def _check_run(self, run: object) -> None:
        """Raise CheckpointError for whole progress of another run."""
        if not isinstance(run, dict):
            _refuse("it does not say of which run it is")
        if run != self.run:
            changed = sorted(key for key in {**run, **self.run} if run.get(key) != self.run.get(key))
            raise CheckpointError(
                f"{self.path} is the progress of another run, with another {' and '.join(changed)};"
                f" repeat that one, or {_ADVICE}"
            )


def describe(values: Mapping[str, Any]) -> dict[str, object]:
    """Return values as JSON gives them back, so that they compare equal."""
    described: dict[str, object] = json.loads(json.dumps(values))
    return described


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _refuse(why: str) -> NoReturn:
    raise _DamagedError(why)


def _checksum(facts: Mapping[str, object], tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 of facts and tensors, however they are laid out in the file."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name!r} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _parse(data: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return facts and tensors of a file whose checksum is right; raises _DamagedError."""
    try:
        tensors = safetensors.torch.load(data)
        header = strict_json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        facts = strict_json.loads(header["__metadata__"]["facts"])
        checksum = facts.get("sha256")
        computed = _checksum({key: value for key, value in facts.items() if key != "sha256"}, tensors)
    except Exception as error:  # whatever bytes from elsewhere make of the libraries
        raise _DamagedError(f"it is no progress file ({type(error).__name__})") from error
    if checksum != computed:
        _refuse("its checksum is another")
    if set(facts) != set(_FACTS):
        _refuse("it has other facts than a progress file")
    return facts, tensors


def _expected(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return tensors of the names, dtypes and shapes that a progress file of this run may have."""
    tensors = {"torch_rng": torch.get_rng_state()}
    for name, tensor in model.state_dict().items():
        tensors |= {f"model.{name}": tensor, f"best.{name}": tensor}
    learned = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for index, parameter in enumerate(learned):
        tensors |= {f"optimiser.{index}.{key}": parameter.detach() for key in _AVERAGES}
        tensors[f"optimiser.{index}.step"] = torch.zeros(())
    return tensors


def _check_tensors(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise _DamagedError where tensors are not such as a run like this one has after some epochs."""
    for name, tensor in tensors.items():
        like = expected.get(name)
        if like is None:
            _refuse(f"it has a tensor {name[:80]!r}")
        if (tensor.dtype, tensor.shape) != (like.dtype, like.shape):
            _refuse(f"{name} is {tensor.dtype} of shape {list(tensor.shape)}")
        if not bool(torch.isfinite(tensor).all()):
            _refuse(f"{name} is not finite")
        if name.endswith(".exp_avg_sq") and bool((tensor < 0).any()):
            _refuse(f"{name} has a negative mean of squares")
        if name.endswith(".step") and name.startswith("optimiser.") and not (tensor >= 1 and tensor == tensor.round()):
            _refuse(f"{name} is {float(tensor):g}")
    for name in expected:
        # A parameter that had no part in the loss yet has no averages, but then none at all.
        group = name.rpartition(".")[0]
        optional = name.startswith("optimiser.") and not any(other.startswith(f"{group}.") for other in tensors)
        if name not in tensors and not optional:
            _refuse(f"it has no tensor {name}")
    try:
        torch.Generator().set_state(tensors["torch_rng"])
    except RuntimeError as error:
        raise _DamagedError("torch_rng is no state of torch's generator") from error


def _check_counts(facts: Mapping[str, Any], epochs: int) -> list[dict[str, float]]:
    """Return the log of a run of up to `epochs` epochs, one row for each; raises _DamagedError where it is none."""
    epoch, best, best_epoch, log = (facts[key] for key in ("epoch", "best", "best_epoch", "log"))
    if not _is_whole(epoch, 1, epochs) or not _is_whole(best_epoch, 1, epoch):
        _refuse("its epochs cannot be")
    if not isinstance(log, list) or len(log) != epoch:
        _refuse("its log has not one row for each epoch")
    for number, row in enumerate(log, start=1):
        if not isinstance(row, dict) or set(row) != set(_ROW) or not all(map(_is_finite, row.values())):
            _refuse(f"row {number} of its log is none")
        if row["epoch"] != number or not 0 <= row[SELECTION] <= 1:
            _refuse(f"row {number} of its log cannot be")
    reached = [row[SELECTION] for row in log]
    if best != max(reached) or best_epoch != 1 + reached.index(best):
        _refuse("its best epoch is not the best of its log")
    return log


def _check_generator(state: Any) -> dict[str, Any]:
    """Return the state of a PCG64 that numpy takes as it is; raises _DamagedError."""
    right = (
        isinstance(state, dict)
        and set(state) == {"bit_generator", "state", "has_uint32", "uinteger"}
        and state["bit_generator"] == "PCG64"
        and isinstance(state["state"], dict)
        and set(state["state"]) == {"state", "inc"}
        and all(_is_whole(value, 0, 2**128 - 1) for value in state["state"].values())
        and _is_whole(state["has_uint32"], 0, 1)
        and _is_whole(state["uinteger"], 0, 2**32 - 1)
    )
    if not right:
        _refuse("numpy_rng is no state of numpy's generator")
    checked: dict[str, Any] = state
    return checked


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_finite(value: object) -> bool:
    return _is_whole(value, 0, 2**53) or (isinstance(value, float) and math.isfinite(value))
