"""The whole of Forward-OFA in one graph: all blocks for every sample, each weighed by whether it runs; for training.

`method` also makes of it a method that the paper compares with, one of compared/switches.py.
Sizes: batch B, history N, candidates C, dimension D, blocks L, generated numbers per block P, gates per block G.
"""

# mypy: allow-subclassing-any

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from models.forward_ofa import controller as control
from models.forward_ofa.backbones import nextitnet, sasrec
from models.forward_ofa.backbones.backbone import Backbone, Shapes, count, initial_weights
from models.forward_ofa.compared import finetune, sttd
from models.forward_ofa.compared.gater import Gater, gates_of, learned_gates
from models.forward_ofa.compared.rare_gem import Masks
from models.forward_ofa.compared.switches import METHODS
from models.forward_ofa.mapper import Mapper
from models.layers import ItemEmbedding, inner_product, last_position, states_at

MAX_HISTORY = 512
BACKBONES: Mapping[str, Callable[[int, int, int], Backbone]] = {"sasrec": sasrec.build, "nextitnet": nextitnet.build}
SHAPES: Mapping[str, Callable[[int], Shapes]] = {"sasrec": sasrec.shapes, "nextitnet": nextitnet.shapes}


class Supernet(nn.Module):
    """Score candidates for histories up to `history_length`; `kept_blocks` is for random, first and last alone.

    `structure`, a digit for each block, is for litepred alone. `masks` are those of a Rare Gem while it is trained.
    `steps` of finetune make each user's weights of the history; with 0 of them, as while the blocks are trained, it is
    DeviceRec.
    """

    def __init__(
        self,
        vocabulary: int,
        dimension: int,
        blocks: int,
        history_length: int,
        backbone: str,
        method: str = "forward_ofa",
        kept_blocks: int | None = None,
        steps: int | None = None,
        structure: str | None = None,
    ) -> None:
        super().__init__()
        check_sizes(dimension, blocks, history_length, backbone)
        _check_method(blocks, method, kept_blocks, steps, structure)
        if METHODS[method].factored and dimension % sttd.STEP:
            raise ValueError(f"the method sttd wants a dimension that is a multiple of {sttd.STEP}, not {dimension}")
        self.method_name = method
        self.given = None if structure is None else tuple(map(int, structure))
        self.method, self.kept_blocks, self.history_length = METHODS[method], kept_blocks or blocks, history_length
        self.items = ItemEmbedding(vocabulary, dimension)
        self.dropout = nn.Dropout(0.0)  # of what enters the first block; training sets it
        self.backbone = BACKBONES[backbone](dimension, blocks, history_length)
        learned = self.method.structure == "controller"
        self.controller = control.Controller(dimension, blocks) if learned else None
        self.interest = control.Interest(dimension) if self.method.mapper else None
        self.mapper = Mapper(dimension, blocks, self.backbone.shapes) if self.method.mapper else None
        self.gater = Gater(dimension, blocks, self.backbone.blocks[0].units) if self.method.gated else None
        self.factors = (
            sttd.Factors(self.backbone.shapes, blocks, sttd.RANKS[backbone]) if self.method.factored else None
        )
        self.masks: Masks | None = None
        self.steps = steps or 0
        if self.mapper is None and self.factors is None:
            own = torch.stack([initial_weights(self.backbone.shapes) for _ in range(blocks)])
            self.own_weights = nn.Parameter(own)  # [L, P]

    def start_from(self, plain: "Supernet") -> None:
        """Take the embeddings and the backbone of a model without mapper, whose blocks every user then starts from.

        Raises ValueError where the two differ in size or backbone, for factors, which no blocks become, and where what
        users are to fine-tune is no DeviceRec.
        """
        if self.factors is not None:
            raise ValueError("sttd learns factors, which no whole blocks become; leave --start-from out")
        if self.method.tuned and plain.method != METHODS["devicerec"]:
            raise ValueError("finetune can start only from a devicerec; give another --start-from, or leave it out")
        lends = plain.mapper is None and plain.factors is None and plain.gater is None
        theirs = tuple(plain.own_weights.shape) if lends else None
        mine = len(self.backbone.blocks), count(self.backbone.shapes)
        same = self.backbone.name == plain.backbone.name and self.history_length == plain.history_length
        if theirs != mine or not same or self.items.weight.shape != plain.items.weight.shape:
            raise ValueError(
                "training can start only from a devicerec or controller of the same backbone and sizes;"
                " give another --start-from, or leave it out"
            )
        self.items.load_state_dict(plain.items.state_dict())
        self.backbone.load_state_dict(plain.backbone.state_dict())
        own = self.own_weights if self.mapper is None else self.mapper.linear.bias
        with torch.no_grad():
            own.copy_(plain.own_weights.reshape(own.shape))

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return the scores [B, C] of candidate ids [B, C] after histories [B, N]."""
        return inner_product(self.user_state(item_ids, self.structure(item_ids)), self.items(candidate_ids))

    def generating(self) -> tuple[Mapper, control.Interest]:
        """Return what generates a user's weights; raises ValueError for a method that has the same for all."""
        if self.mapper is None or self.interest is None:
            others = ", ".join(name for name, method in METHODS.items() if method.mapper)
            alone = "; `ofa package --history` tunes those of one user" if self.method.tuned else ""
            raise ValueError(
                f"the method {self.method_name} has no mapper, as have {others}: choose one of these{alone}"
            )
        return self.mapper, self.interest

    def embed_and_mark(self, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings [B, N, D] and the mask [B, N] of last valid positions of histories [B, N]."""
        x = self.items(item_ids)
        return x, last_position(item_ids, x.dtype)

    def structure(self, item_ids: Tensor) -> Tensor:
        """Return which blocks run, [B, L] of 0 and 1, for histories [B, N]."""
        users, blocks = len(item_ids), len(self.backbone.blocks)
        if self.given is not None:
            return torch.tensor([self.given]).to(self.items.weight).expand(users, -1)
        if self.controller is not None:
            return control.choose(self.controller(*self.embed_and_mark(item_ids)))
        order = torch.arange(blocks).expand(users, -1)
        if self.method.structure == "random":
            order = _shuffled(item_ids, blocks)
        elif self.method.structure == "last":
            order = order.flip(-1)
        return (order < self.kept_blocks).to(self.items.weight)

    def weights(self, x: Tensor, last: Tensor, structure: Tensor) -> Tensor:
        """Return packed weights, [B, L, P] generated for a structure [B, L], or [L, P] of the model's own."""
        if self.factors is not None:
            return self.factors()
        if self.masks is not None:
            return self.masks(self.own_weights)
        if self.mapper is None or self.interest is None:
            return self.own_weights
        return self.mapper(self.interest(x, last, structure if self.method.structure_vector else None))

    def user_state(self, item_ids: Tensor, structure: Tensor) -> Tensor:
        """Return u [B, D] for histories [B, N]; a structure [B, L] between 0 and 1 lets gradients through."""
        x, last = self.embed_and_mark(item_ids)
        gates = None if self.gater is None else gates_of(self.gater(x, last))
        weights = self._tuned(item_ids, structure) if self.steps else self.weights(x, last, structure)
        return self._read_out(x, last, weights, structure, gates)

    def _read_out(self, x: Tensor, last: Tensor, weights: Tensor, structure: Tensor, gates: Tensor | None) -> Tensor:
        """Return u [B, D] of embeddings [B, N, D], with the last valid positions [B, N]."""
        return self.backbone.exit(states_at(self.mix(x, weights, structure, gates), last))

    def mix(self, x: Tensor, weights: Tensor, structure: Tensor, gates: Tensor | None = None) -> Tensor:
        """Return what the blocks make of embeddings [B, N, D], at all positions, for a structure [B, L].

        `weights` are [B, L, P], or [L, P] for all alike; `gates` [B, L, G], or None where nothing is gated.
        """
        x = self.dropout(self.backbone.entry(x))
        by_block = self.backbone.split(weights.flatten(-2))
        for index, (block, own) in enumerate(zip(self.backbone.blocks, by_block, strict=True)):
            open_units = None if gates is None else gates[:, index]
            x = x + structure[:, index, None, None] * (block(x, own, open_units) - x)
        return x

    def encode(self, item_ids: Tensor) -> Tensor:
        """Return what all blocks, the costliest structure, make of histories [B, N]: [B, N, D]; the controller runs."""
        structure = torch.ones_like(self.structure(item_ids))
        x, last = self.embed_and_mark(item_ids)
        gates = None if self.gater is None else gates_of(self.gater(x, last))
        return self.mix(x, self.weights(x, last, structure), structure, gates)

    def sample_user_state(self, item_ids: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Return u [B, D] for structures drawn by Gumbel-softmax, and sum_l -log alpha_l1 averaged over the batch.

        Without a controller the structure is what the method says, and the second number zero (eqs. 2-5 and 11), or for
        a gated network the share of its gates that are open.
        """
        if self.gater is not None:
            x, last = self.embed_and_mark(item_ids)
            gates, open_share = learned_gates(self.gater(x, last))
            structure = self.structure(item_ids)
            return self._read_out(x, last, self.weights(x, last, structure), structure, gates), open_share
        if self.controller is None:
            return self.user_state(item_ids, self.structure(item_ids)), torch.zeros(())
        structure, cost = control.sample(self.controller(*self.embed_and_mark(item_ids)), temperature)
        return self.user_state(item_ids, structure), cost.sum(-1).mean()

    def generate(self, item_ids: Tensor, structure: Tensor) -> Tensor:
        """Return the packed weights [B, L, P] of the blocks of given structures [B, L] for histories [B, N]."""
        if self.steps:
            return self._tuned(item_ids, structure)
        return self.weights(*self.embed_and_mark(item_ids), structure).expand(len(item_ids), -1, -1)

    def _tuned(self, item_ids: Tensor, structure: Tensor) -> Tensor:
        """Return the weights [B, L, P] that users have after their steps on histories [B, N], each from the model's."""
        return finetune.tune(self.states, self.own_weights, item_ids, structure, self.items.weight, self.steps)

    def states(self, item_ids: Tensor, structure: Tensor, weights: Tensor) -> Tensor:
        """Return [B, N, D], the user state u after each click of histories [B, N], with packed weights [B, L, P]."""
        return self.backbone.exit(self.mix(self.items(item_ids), weights, structure))


def check_sizes(dimension: int, blocks: int, history_length: int, backbone: str) -> None:
    """Raise ValueError for a backbone that cannot be."""
    if backbone not in BACKBONES:
        raise ValueError(f"backbone {backbone!r} is none of {', '.join(BACKBONES)}")
    if 2 * blocks > dimension:
        raise ValueError(f"{blocks} blocks need a dimension of {2 * blocks} or more for their structure vector")
    if history_length > MAX_HISTORY:
        raise ValueError(f"history_length {history_length} is more than {MAX_HISTORY}")


def _check_method(blocks: int, method: str, kept_blocks: int | None, steps: int | None, structure: str | None) -> None:
    """Raise ValueError for a method that cannot be."""
    if method not in METHODS:
        raise ValueError(f"method {method!r} is none of {', '.join(METHODS)}")
    if METHODS[method].takes_kept_blocks and not 1 <= (kept_blocks or 0) <= blocks:
        raise ValueError(f"the method {method} runs kept_blocks, 1 to {blocks} of them, not {kept_blocks or 'none'}")
    if kept_blocks is not None and not METHODS[method].takes_kept_blocks:
        raise ValueError(f"kept_blocks is for the methods random, first and last, and not for {method}")
    if METHODS[method].tuned != (steps is not None):
        raise ValueError("steps are for the method finetune, which needs some, and for no other")
    if (METHODS[method].structure == "given") != (structure is not None):
        raise ValueError("a structure is for the method litepred, which wants one, and for no other")
    if structure is not None and (len(structure) != blocks or set(structure) - set("01") or "1" not in structure):
        raise ValueError(f"structure {structure[:80]!r} must be {blocks} digits of 0 and 1, and one at least 1")


def _shuffled(item_ids: Tensor, blocks: int) -> Tensor:
    """Return for each history [B, N] a permutation of the blocks [B, L] that looks random and is always the same."""
    device = item_ids.device
    places = torch.arange(1, item_ids.shape[1] + 1, device=device)
    state = (item_ids.long() * places).sum(-1, keepdim=True) * 1_000_003 + torch.arange(blocks, device=device)
    for factor in (0x85EBCA6B, 0xC2B2AE35):  # two rounds of a multiplicative hash on 32 bits
        state = ((state ^ (state >> 15)) * factor) & 0xFFFFFFFF
    return state.argsort(-1)


def weight_count(architecture: Mapping[str, int | str]) -> int:
    """Return the number of weights of the item embedding, and of the mapper or of the blocks without one."""
    backbone, method = str(architecture.get("backbone")), str(architecture.get("method", "forward_ofa"))
    vocabulary, dimension = int(architecture["vocabulary"]), int(architecture.get("dimension", 1))
    if backbone not in SHAPES or method not in METHODS:
        return vocabulary * dimension  # which Supernet refuses before it takes memory
    shapes, blocks = SHAPES[backbone](dimension), int(architecture.get("blocks", 1))
    if METHODS[method].factored:
        return vocabulary * dimension + blocks * count(sttd.factor_shapes(shapes, sttd.RANKS[backbone]))
    generated = blocks * count(shapes)
    return vocabulary * dimension + generated * (dimension + 1 if METHODS[method].mapper else 1)
