"""Capturing a program: what is captured, and that the caller's model stays as it was."""

from collections.abc import Callable

import numpy as np
import pytest
import tiny_models
import torch
from torch import nn

from exporter.core.errors import LoweringError
from exporter.graph.capture import capture

LENGTH = tiny_models.LENGTH
IDS = {"item_ids": np.ones((1, LENGTH), np.int32), "candidate_ids": np.ones((1, 3), np.int32)}


class Untraceable(nn.Module):
    """A model with a buffer whose forward depends on values, which torch.export refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.BatchNorm1d(3)
        self.register_buffer("limit", torch.ones(()), persistent=False)

    def forward(self, item_ids: torch.Tensor, candidate_ids: torch.Tensor) -> torch.Tensor:
        return item_ids if item_ids.sum() > self.limit else candidate_ids


def state_of(model: nn.Module) -> dict[str, object]:
    """Return all that a caller can see of a model without running it."""
    return {
        "state_dict": [(name, tensor.data_ptr()) for name, tensor in model.state_dict().items()],
        "buffers": [(name, buffer.data_ptr()) for name, buffer in model.named_buffers()],
        "training": [(name, part.training) for name, part in model.named_modules()],
        "requires_grad": [(name, parameter.requires_grad) for name, parameter in model.named_parameters()],
        "hooks": [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules()],
    }


def scn_in_training() -> nn.Module:
    model = tiny_models.build("scn").train()
    model.items.weight.requires_grad_(False)
    return model


@pytest.mark.parametrize(("build", "fails"), [(scn_in_training, False), (Untraceable, True)])
def test_the_model_stays_as_it_was(build: Callable[[], nn.Module], fails: bool) -> None:
    model = build()
    before = state_of(model)
    if fails:
        with pytest.raises(LoweringError, match="cannot capture"):
            capture("test", "piece", model, IDS, ("scores",))
    else:
        capture("test", "piece", model, IDS, ("scores",))
    assert state_of(model) == before


def test_a_model_can_be_captured_twice_and_gives_the_same_graph() -> None:
    model = tiny_models.build("scn")
    first, second = (capture("test", "piece", model, IDS, ("scores",)).exported for _ in range(2))
    assert str(first.graph) == str(second.graph)
    assert first.graph_signature == second.graph_signature


def test_every_buffer_is_persistent_in_what_is_captured_and_weights_are_shared() -> None:
    model = tiny_models.build("scn")
    exported = capture("test", "piece", model, IDS, ("scores",)).exported
    assert exported.graph_signature.non_persistent_buffers == ()
    own = {f"program.{name}": tensor.data_ptr() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    assert all(own[name] == tensor.data_ptr() for name, tensor in exported.state_dict.items())
    buffers = {f"program.{name}" for name, _ in model.named_buffers()}
    assert buffers <= exported.state_dict.keys()
