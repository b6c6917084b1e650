"""SASRec as RecBole users have it, through torch.export and a .pt2 file, with random weights.

    python examples/sasrec_pt2.py FOLDER
    cocorr-export program FOLDER/sasrec.pt2 --inputs FOLDER/golden.npz --outputs scores --ranking scores --target onnx

Written from the equations of Kang and McAuley, "Self-Attentive Sequential Recommendation" (ICDM 2018): embeddings of
items and positions, blocks of causal self-attention and a pointwise feed-forward network, each with a residual and a
normalisation, and the product of the last click's state with an item's embedding. Ids are int64 and padded on the
right, and the number of clicks comes beside them, as RecBole's interface has it.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

ITEMS, CLICKS, CANDIDATES, CASES = 500, 12, 40, 32


class Block(nn.Module):
    """Self-attention over the clicks so far, then a feed-forward network."""

    def __init__(self, dimension: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.mixed = (nn.Linear(dimension, dimension) for _ in range(4))
        self.inner, self.outer = nn.Linear(dimension, 4 * dimension), nn.Linear(4 * dimension, dimension)
        self.norms = nn.ModuleList(nn.LayerNorm(dimension, eps=1e-6) for _ in range(2))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """Map [B, N, D] to [B, N, D]; `hidden` [B, 1, N, N] is far below zero where nothing may be attended to."""
        parts = (self._heads_apart(linear(x)) for linear in (self.query, self.key, self.value))
        query, key, value = parts
        scores = torch.matmul(query, key.transpose(-1, -2)) / query.shape[-1] ** 0.5 + hidden
        attended = torch.matmul(self.dropout(torch.softmax(scores, -1)), value)
        attended = attended.transpose(1, 2).reshape(x.shape)
        x = self.norms[0](x + self.dropout(self.mixed(attended)))
        return self.norms[1](x + self.dropout(self.outer(nn.functional.gelu(self.inner(x)))))

    def _heads_apart(self, x: Tensor) -> Tensor:
        batch, clicks, dimension = x.shape
        return x.view(batch, clicks, self.heads, dimension // self.heads).transpose(1, 2)


class SASRec(nn.Module):
    """Scores candidates by the state of the last click."""

    def __init__(self, items: int, clicks: int, dimension: int = 32, heads: int = 2, layers: int = 2) -> None:
        super().__init__()
        self.item_embedding = nn.Embedding(items, dimension, padding_idx=0)
        self.position_embedding = nn.Embedding(clicks, dimension)
        self.norm = nn.LayerNorm(dimension, eps=1e-6)
        self.dropout = nn.Dropout(0.5)
        self.blocks = nn.ModuleList(Block(dimension, heads) for _ in range(layers))

    def forward(self, item_seq: Tensor, item_seq_len: Tensor, candidates: Tensor) -> Tensor:
        """Map clicks [B, N], their number [B] and candidates [B, C], all int64, to scores [B, C]."""
        positions = torch.arange(item_seq.shape[1], device=item_seq.device)
        x = self.item_embedding(item_seq) + self.position_embedding(positions)[None]
        x = self.dropout(self.norm(x))
        clicked, before = item_seq != 0, positions[None, :] <= positions[:, None]
        seen = torch.logical_and(clicked[:, None, None, :], before[None, None])
        hidden = torch.where(seen, 0.0, -10000.0)
        for block in self.blocks:
            x = block(x, hidden)
        last = (item_seq_len - 1)[:, None, None].expand(-1, -1, x.shape[-1])
        user = x.gather(1, last).squeeze(1)
        return torch.bmm(self.item_embedding(candidates), user[:, :, None]).squeeze(-1)


def write(folder: Path) -> None:
    """Write sasrec.pt2 and golden.npz, histories of 1 to N clicks, into a folder."""
    torch.manual_seed(0)
    model = SASRec(ITEMS, CLICKS).eval()
    numbers = np.random.default_rng(0)
    lengths = numbers.integers(1, CLICKS + 1, CASES)
    histories = numbers.integers(1, ITEMS, (CASES, CLICKS)) * (np.arange(CLICKS) < lengths[:, None])
    golden = {
        "item_seq": histories,
        "item_seq_len": lengths,
        "candidates": np.stack([numbers.permutation(ITEMS - 1)[:CANDIDATES] + 1 for _ in range(CASES)]),
    }
    example = tuple(torch.from_numpy(array[:1]) for array in golden.values())  # a batch of one
    folder.mkdir(parents=True, exist_ok=True)
    torch.export.save(torch.export.export(model, example), folder / "sasrec.pt2")
    np.savez(folder / "golden.npz", **golden)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
