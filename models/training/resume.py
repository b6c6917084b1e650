"""The progress of a training run on disk, so that a run that was killed goes on after its last whole epoch.

One safetensors file beside the checkpoint to be, exchanged in one step; what is read is treated as untrusted.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from models.checkpoint import CheckpointError


@dataclass
class Progress:
    """Where a run is after `epoch` whole epochs: its best one so far with those weights, and a row for each epoch."""

    epoch: int
    best: float
    best_epoch: int
    best_state: dict[str, Tensor]
    log: list[dict[str, float]]


@dataclass(frozen=True)
class Resume:
    """A file for the progress of one run, which `run` describes: settings, data and versions, all JSON values."""

    path: Path
    run: Mapping[str, object]

    def save(
        self, progress: Progress, model: nn.Module, optimiser: torch.optim.Optimizer, rng: np.random.Generator
    ) -> None:
        """Write all that the next epoch depends on; raises CheckpointError where it cannot be written."""
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in progress.best_state.items()}
        for index, values in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{key}": tensor for key, tensor in values.items()}
        tensors["torch_rng"] = torch.get_rng_state()
        facts = {
            "run": self.run,
            "numpy_rng": rng.bit_generator.state,
            **{key: getattr(progress, key) for key in ("epoch", "best", "best_epoch", "log")},
        }
        content = safetensors.torch.save(
            {name: tensor.detach().contiguous() for name, tensor in tensors.items()}, {"facts": json.dumps(facts)}
        )
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(content)
            os.replace(temporary, self.path)  # noqa: PTH105 - Path.replace is the same, with a worse message
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise CheckpointError(
                f"the progress after epoch {progress.epoch} cannot be written to {self.path}:"
                f" {error.strerror or error}; make room and repeat the command, it goes on after the epoch before"
            ) from error

    def load(self, model: nn.Module, optimiser: torch.optim.Optimizer, rng: np.random.Generator) -> Progress | None:
        """Put all into the state of the last whole epoch and return it; None where there is no file.

        Raises CheckpointError where the file is of another run or damaged.
        """
        if not self.path.exists():
            return None
        advice = "remove it to start anew"
        try:
            with safe_open(self.path, "pt") as file:
                facts = json.loads((file.metadata() or {})["facts"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
            if facts["run"] != self.run:
                changed = sorted(key for key in self.run if facts["run"].get(key) != self.run[key])
                raise CheckpointError(
                    f"{self.path} is the progress of another run, with another {' and '.join(changed)};"
                    f" repeat that one, or {advice}"
                )
            parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}}
            state: dict[int, dict[str, Tensor]] = {}
            for name, tensor in tensors.items():
                part, _, rest = name.partition(".")
                if part in parts:
                    parts[part][rest] = tensor
                elif part == "optimiser":
                    index, _, key = rest.partition(".")
                    state.setdefault(int(index), {})[key] = tensor
            model.load_state_dict(parts["best"])  # so that a best state that does not fit is known now
            model.load_state_dict(parts["model"])
            optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
            torch.set_rng_state(tensors["torch_rng"])
            rng.bit_generator.state = facts["numpy_rng"]
            log = [{str(key): float(value) for key, value in row.items()} for row in facts["log"]]
            return Progress(int(facts["epoch"]), float(facts["best"]), int(facts["best_epoch"]), parts["best"], log)
        except CheckpointError:
            raise
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            raise CheckpointError(f"{self.path} is no progress of this run ({error}); {advice}") from error

    def remove(self) -> None:
        """Remove the file of a run that has ended."""
        self.path.unlink(missing_ok=True)


def describe(values: Mapping[str, Any]) -> dict[str, object]:
    """Return values as JSON gives them back, so that they compare equal."""
    described: dict[str, object] = json.loads(json.dumps(values))
    return described
