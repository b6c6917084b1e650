"""Put the chosen blocks and their weights together to the sub-network that a device runs; skipped blocks are gone."""

# mypy: allow-subclassing-any

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn

from models.forward_ofa.backbones.backbone import Backbone
from models.forward_ofa.compared.gater import Gater, gates_of
from models.layers import ItemEmbedding, inner_product, last_of, last_position, states_at


def block_weight_shapes(backbone: Backbone, structure: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of all tensors that a structure's blocks take from outside, such as block0_query_weight."""
    chosen = [index for index, runs in enumerate(structure) if runs]
    return {f"block{index}_{name}": shape for index in chosen for name, shape in backbone.shapes.items()}


def block_weights(backbone: Backbone, packed: Tensor, structure: Sequence[int]) -> dict[str, Tensor]:
    """Cut a mapper's output [L, P] for one user into the named tensors of the chosen blocks."""
    blocks = backbone.split(packed.reshape(-1))
    named = {f"block{index}_{name}": tensor for index, block in enumerate(blocks) for name, tensor in block.items()}
    return {name: named[name].contiguous() for name in block_weight_shapes(backbone, structure)}


class Assembled(nn.Module):
    """The blocks of one structure, in order, with their weights as parameters or left to be given with every call.

    With a gater each user's clicks close units of the blocks.
    """

    def __init__(
        self,
        backbone: Backbone,
        structure: Sequence[int],
        weights: Mapping[str, Tensor] | None,
        gater: Gater | None = None,
    ) -> None:
        super().__init__()
        self.gater = gater
        self.chosen = [index for index, runs in enumerate(structure) if runs]
        self.names = tuple(block_weight_shapes(backbone, structure))
        self.layers = tuple(backbone.shapes)
        self.entry, self.exit = backbone.entry, backbone.exit
        self.blocks = nn.ModuleList([backbone.blocks[index] for index in self.chosen])
        self.external = weights is None
        if weights is not None:
            for name in self.names:
                self.register_parameter(name, nn.Parameter(weights[name].detach().clone()))

    def user_state(self, x: Tensor, last: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """Return u [B, D] of embeddings [B, N, D]; `weights` in the order of `names`, or nothing for parameters."""
        values = weights if self.external else [getattr(self, name) for name in self.names]
        weight_of = dict(zip(self.names, values, strict=True))
        gates = None if self.gater is None else gates_of(self.gater(x, last))  # [B, L, G]
        x = self.entry(x)
        for index, block in zip(self.chosen, self.blocks, strict=True):
            own = {layer: weight_of[f"block{index}_{layer}"] for layer in self.layers}
            x = block(x, own, None if gates is None else gates.select(1, index))
        return self.exit(states_at(x, last))


class SubNetwork(Assembled):
    """The programs `subnet` and `subnet_external`: from ids, with the catalogue's embeddings."""

    def __init__(
        self,
        items: ItemEmbedding,
        backbone: Backbone,
        structure: Sequence[int],
        weights: Mapping[str, Tensor] | None,
        gater: Gater | None = None,
    ) -> None:
        super().__init__(backbone, structure, weights, gater)
        self.items = items

    def forward(self, item_ids: Tensor, candidate_ids: Tensor, *weights: Tensor) -> Tensor:
        """Return the scores [B, C] of candidate ids [B, C] after histories [B, N]."""
        x = self.items(item_ids)
        return inner_product(self.user_state(x, last_position(item_ids, x.dtype), weights), self.items(candidate_ids))


class CachedSubNetwork(Assembled):
    """The program `subnet_cached`: from embeddings that the device keeps for a session, without the catalogue."""

    def forward(
        self, history_embeddings: Tensor, history_length: Tensor, candidate_embeddings: Tensor, *weights: Tensor
    ) -> Tensor:
        """Map embeddings [B, N, D] of histories, their counts of clicks [B, 1] and embeddings [B, C, D] to [B, C]."""
        last = last_of(history_length.to(history_embeddings.dtype), history_embeddings.shape[1])
        return inner_product(self.user_state(history_embeddings, last, weights), candidate_embeddings)


def assemble(
    items: ItemEmbedding,
    backbone: Backbone,
    structure: Sequence[int],
    weights: Mapping[str, Tensor],
    external: Literal["inputs", "parameters"] = "parameters",
    gater: Gater | None = None,
) -> SubNetwork:
    """Return the sub-network of a structure: its weights as parameters of their names, or as inputs in their order."""
    return SubNetwork(items, backbone, structure, weights if external == "parameters" else None, gater)
