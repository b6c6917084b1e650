"""The golden cases of a checkpoint: cut to what a profile asks for, and held against the weights beside them."""

from dataclasses import replace
from typing import TYPE_CHECKING

from exporter.core.errors import CheckpointError, ProfileError

if TYPE_CHECKING:
    from torch import nn

    from models.checkpoint import Checkpoint

_BATCH = 16


def check_sizes(checkpoint: "Checkpoint", history_length: int | None, candidates: int | None) -> None:
    """Raise ProfileError where the golden cases have fewer clicks or candidates than the profile asks for."""
    wanted = {"item_ids": ("history_length", history_length), "candidate_ids": ("candidates", candidates)}
    for name, (key, size) in wanted.items():
        held = checkpoint.golden[name].shape[1]
        if size is not None and size > held:
            raise ProfileError(
                f"{key}: the profile asks for {size}, the checkpoint has {held}; ask for {held} or fewer"
            )


def cut(checkpoint: "Checkpoint", history_length: int | None, candidates: int | None) -> "Checkpoint":
    """Return the checkpoint with shorter golden cases; its golden scores are not those of the cut cases."""
    golden = checkpoint.golden
    history_length = history_length or checkpoint.history_length
    return replace(
        checkpoint,
        config={**checkpoint.config, "history_length": history_length},
        golden={
            **golden,
            "item_ids": golden["item_ids"][:, -history_length:],
            "candidate_ids": golden["candidate_ids"][:, :candidates],
        },
    )


def check_scores(model: "nn.Module", checkpoint: "Checkpoint") -> None:
    """Compute the golden scores with the whole model; raises CheckpointError where those of the file are stale."""
    import torch

    from exporter.parity.verdict import golden_scores_off

    golden = checkpoint.golden
    with torch.no_grad():
        pairs = (torch.from_numpy(golden[name]).split(_BATCH) for name in ("item_ids", "candidate_ids"))
        scores = torch.cat([model(*pair) for pair in zip(*pairs, strict=True)]).numpy()
    off = golden_scores_off(golden["scores"], scores)
    if off is not None:
        raise CheckpointError(
            f"{checkpoint.folder}: golden.npz is stale: its 'scores' differ from what the weights give by up to"
            f" {off:.3g}; write the checkpoint again"
        )
