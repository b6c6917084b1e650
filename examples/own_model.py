"""A model of one's own: a user is the mean of the clicks' embeddings, and a candidate's score the product with it.

It has two programs: `rerank` takes the whole history, `step` one click and what is kept of those before it.

    cocorr-export export --model examples/own_model.py:SPEC --untrained --target onnx
    cocorr-train examples/own_model.py:SPEC --data clicks.csv --output checkpoint
    cocorr-export export --model examples/own_model.py:SPEC --checkpoint checkpoint --program step --target onnx
"""

import torch
from torch import Tensor, nn

from cocorr import RERANK, InputSpec, ItemEmbedding, ModelSpec, step_program


class Mean(nn.Module):
    """u = mean(E[clicks]), score u . E[c]; id 0 is padding on the right."""

    def __init__(self, vocabulary: int, dimension: int) -> None:
        super().__init__()
        self.items = ItemEmbedding(vocabulary, dimension)

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Map histories [B, N] and candidates [B, C] to scores [B, C]."""
        clicks = (item_ids != 0).to(torch.float32).sum(-1, keepdim=True)
        return self.score(self.items(item_ids).sum(1), clicks, candidate_ids)

    def score(self, total: Tensor, clicks: Tensor, candidate_ids: Tensor) -> Tensor:
        """Map the sum of the clicks' embeddings [B, D] and their number [B, 1] to scores [B, C]."""
        user = total / torch.clamp(clicks, min=1.0)
        return torch.bmm(self.items(candidate_ids), user[:, :, None]).squeeze(-1)


class Step(nn.Module):
    """One more click: what is kept are the sum of the embeddings and the number of clicks."""

    def __init__(self, model: Mean) -> None:
        super().__init__()
        self.model = model

    def forward(self, item_id: Tensor, candidate_ids: Tensor, total: Tensor, clicks: Tensor) -> tuple[Tensor, ...]:
        """Map a click [B, 1], candidates [B, C] and the state to scores [B, C] and the next state."""
        total = total + self.model.items(item_id[:, 0])
        clicks = clicks + (item_id != 0).to(torch.float32)
        return self.model.score(total, clicks, candidate_ids), total, clicks

    def start(self, sessions: int) -> tuple[Tensor, ...]:
        """Return the state before the first click."""
        return torch.zeros(sessions, self.model.items.weight.shape[1]), torch.zeros(sessions, 1)


STATE = (
    InputSpec("total", "float32", lambda architecture, _history, _candidates: (1, architecture["dimension"])),
    InputSpec("clicks", "float32", lambda _architecture, _history, _candidates: (1, 1)),
)
SPEC = ModelSpec(
    name="mean",
    description="The mean of the clicks' embeddings",
    build=lambda architecture: Mean(**architecture),
    architecture={"dimension": 32},
    programs={"rerank": RERANK, "step": step_program(Step, STATE)},
    default_program="rerank",
)
