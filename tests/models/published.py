"""Models as other projects publish them, in torch's own modules under their names; random weights, row 0 not zero.

Written from their descriptions and equations, as independent judges of what importing makes of their state dicts.
"""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

V, D, N, HEADS = 40, 16, 7, 2


def module(**parts: nn.Module) -> nn.Module:
    """Return a module with these parts."""
    whole = nn.Module()
    for name, part in parts.items():
        whole.add_module(name, part)
    return whole


def dense(*sizes: int) -> nn.Module:
    """Linear maps of these widths, tanh between them, in a `net`."""
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.Tanh()]
    return module(net=nn.Sequential(*layers[:-1]))


def linear(inputs: int, outputs: int) -> nn.Module:
    return module(net=nn.Linear(inputs, outputs, bias=False))


def ids(rows: int = V) -> nn.Module:
    return module(_embedding_matrix=nn.Embedding(rows, D))


class Published(nn.Module):
    """Scores [C] of candidates [C] after one history [N] with padding on the right."""

    def last(self, history: Tensor) -> int:
        return max(int((history != 0).sum()) - 1, 0)


class DIN(Published):
    def __init__(self) -> None:
        super().__init__()
        self._id_encoder, self._target_trans, self._seq_trans = ids(), dense(D, D), dense(D, D)
        self._target_attention = module(
            _target_key_transform=linear(D, D), _item_key_transform=linear(D, D), _value_transform=linear(D, D)
        )
        self._classifier = dense(2 * D, 2 * D, D, 1)

    def forward(self, history: Tensor, candidates: Tensor) -> Tensor:
        table, attention = self._id_encoder._embedding_matrix, self._target_attention
        target = torch.tanh(self._target_trans.net(table(candidates)))
        clicks = torch.tanh(self._seq_trans.net(table(history)))
        query, key = attention._target_key_transform.net(target), attention._item_key_transform.net(clicks)
        weights = torch.softmax(query @ key.T / math.sqrt(D) - 1e8 * (history == 0), -1)
        return self._classifier.net(torch.cat([target, weights @ attention._value_transform.net(clicks)], -1))[:, 0]


class GRU4Rec(Published):
    def __init__(self) -> None:
        super().__init__()
        self._id_encoder, self._target_trans, self._seq_trans = ids(), dense(D, D, D), dense(D, D)
        self._gru_cell = nn.GRU(D, D, batch_first=True)
        self._classifier = dense(D, D, D)

    def encode(self, clicks: Tensor) -> Tensor:
        return self._gru_cell(torch.tanh(self._seq_trans.net(clicks))[None])[0][0]

    def forward(self, history: Tensor, candidates: Tensor) -> Tensor:
        table = self._id_encoder._embedding_matrix
        user = self._classifier.net(self.encode(table(history))[self.last(history)])
        return self._target_trans.net(table(candidates)) @ user


class SASRec(GRU4Rec):
    def __init__(self) -> None:
        super().__init__()
        del self._gru_cell
        self._position_embedding = ids()
        self._transformer = nn.TransformerEncoderLayer(D, HEADS, 4 * D, dropout=0, batch_first=True)

    def encode(self, clicks: Tensor) -> Tensor:
        positions = self._position_embedding._embedding_matrix(torch.arange(len(clicks)))
        return self._transformer(torch.tanh(self._seq_trans.net(clicks + positions))[None])[0]


class StdNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a_2, self.b_2 = nn.Parameter(torch.ones(D)), nn.Parameter(torch.zeros(D))

    def forward(self, x: Tensor) -> Tensor:
        return self.a_2 * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + self.b_2


def heads_attend(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor) -> Tensor:
    """Attention head by head by torch's own function, over [N, D]; nothing attends to where `mask` is false."""
    apart = (x.unflatten(-1, (heads, -1)).transpose(0, 1) for x in (query, key, value))
    return functional.scaled_dot_product_attention(*apart, attn_mask=mask).transpose(0, 1).flatten(1)


class BERT4Rec(Published):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = module(token=nn.Embedding(V, D), position=module(pe=nn.Embedding(N, D)))
        blocks = []
        for _ in range(2):
            attention = module(
                linear_layers=nn.ModuleList(nn.Linear(D, D) for _ in range(3)), output_linear=nn.Linear(D, D)
            )
            blocks.append(
                module(
                    attention=attention,
                    feed_forward=module(w_1=nn.Linear(D, 4 * D), w_2=nn.Linear(4 * D, D)),
                    input_sublayer=module(norm=StdNorm()),
                    output_sublayer=module(norm=StdNorm()),
                )
            )
        self.transformer_blocks = nn.ModuleList(blocks)

    def forward(self, history: Tensor, candidates: Tensor) -> Tensor:
        x = self.embedding.token(history) + self.embedding.position.pe.weight
        for block in self.transformer_blocks:
            normal = block.input_sublayer.norm(x)
            mixed = heads_attend(*(layer(normal) for layer in block.attention.linear_layers), HEADS, history != 0)
            x = x + block.attention.output_linear(mixed)
            inner = functional.gelu(block.feed_forward.w_1(block.output_sublayer.norm(x)), approximate="tanh")
            x = x + block.feed_forward.w_2(inner)
        return self.embedding.token(candidates) @ x[self.last(history)]


class Mamba(nn.Module):
    """The block of mamba_ssm, a token at a time."""

    STATE, RANK, INNER = 3, 1, 2 * D

    def __init__(self) -> None:
        super().__init__()
        self.in_proj = nn.Linear(D, 2 * self.INNER, bias=False)
        self.conv1d = nn.Conv1d(self.INNER, self.INNER, 4, groups=self.INNER, padding=3)
        self.x_proj = nn.Linear(self.INNER, self.RANK + 2 * self.STATE, bias=False)
        self.dt_proj = nn.Linear(self.RANK, self.INNER)
        self.A_log = nn.Parameter(torch.arange(1.0, self.STATE + 1).log().repeat(self.INNER, 1))
        self.D = nn.Parameter(torch.ones(self.INNER))
        self.out_proj = nn.Linear(self.INNER, D, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        u, gate = self.in_proj(x).chunk(2, -1)
        u = functional.silu(self.conv1d(u.T[None])[0, :, : len(x)]).T
        state, outputs = torch.zeros(self.INNER, self.STATE), []
        for token in u:
            rank, into, out = self.x_proj(token).split([self.RANK, self.STATE, self.STATE])
            step = functional.softplus(self.dt_proj(rank))[:, None]
            state = torch.exp(-step * torch.exp(self.A_log)) * state + step * token[:, None] * into
            outputs.append(state @ out + self.D * token)
        return self.out_proj(torch.stack(outputs) * functional.silu(gate))


class Mamba4Rec(Published):
    def __init__(self) -> None:
        super().__init__()
        self.item_embedding, self.LayerNorm = nn.Embedding(V, D), nn.LayerNorm(D, 1e-12)
        feed_forwards = [
            module(w_1=nn.Linear(D, 4 * D), w_2=nn.Linear(4 * D, D), LayerNorm=nn.LayerNorm(D, 1e-12)) for _ in "12"
        ]
        layers = [module(mamba=Mamba(), LayerNorm=nn.LayerNorm(D, 1e-12), ffn=ffn) for ffn in feed_forwards]
        self.mamba_layers = nn.ModuleList(layers)

    def forward(self, history: Tensor, candidates: Tensor) -> Tensor:
        x = self.LayerNorm(self.item_embedding(history))
        for layer in self.mamba_layers:
            x = layer.LayerNorm(layer.mamba(x) + x)
            x = layer.ffn.LayerNorm(layer.ffn.w_2(functional.gelu(layer.ffn.w_1(x))) + x)
        return self.item_embedding(candidates) @ x[self.last(history)]


class RecBoleSASRec(Published):
    INNER = 24

    def __init__(self) -> None:
        super().__init__()
        self.item_embedding, self.position_embedding = nn.Embedding(V, D, padding_idx=0), nn.Embedding(N, D)
        self.LayerNorm = nn.LayerNorm(D, 1e-12)
        layers = []
        for _ in range(2):
            maps = {name: nn.Linear(D, D) for name in ("query", "key", "value", "dense")}
            layers.append(
                module(
                    multi_head_attention=module(**maps, LayerNorm=nn.LayerNorm(D, 1e-12)),
                    feed_forward=module(
                        dense_1=nn.Linear(D, self.INNER),
                        dense_2=nn.Linear(self.INNER, D),
                        LayerNorm=nn.LayerNorm(D, 1e-12),
                    ),
                )
            )
        self.trm_encoder = module(layer=nn.ModuleList(layers))

    def forward(self, history: Tensor, candidates: Tensor) -> Tensor:
        x = self.LayerNorm(self.item_embedding(history) + self.position_embedding.weight)
        seen = torch.ones(N, N).tril().bool()
        for layer in self.trm_encoder.layer:
            own, after = layer.multi_head_attention, layer.feed_forward
            x = own.LayerNorm(own.dense(heads_attend(own.query(x), own.key(x), own.value(x), HEADS, seen)) + x)
            x = after.LayerNorm(after.dense_2(functional.gelu(after.dense_1(x))) + x)
        return self.item_embedding(candidates) @ x[self.last(history)]


class RecBoleGRU4Rec(Published):
    HIDDEN = 24

    def __init__(self) -> None:
        super().__init__()
        self.item_embedding = nn.Embedding(V, D, padding_idx=0)
        self.gru_layers = nn.GRU(D, self.HIDDEN, num_layers=2, bias=False, batch_first=True)
        self.dense = nn.Linear(self.HIDDEN, D)

    def forward(self, history: Tensor, candidates: Tensor) -> Tensor:
        states, _ = self.gru_layers(self.item_embedding(history)[None])
        return self.item_embedding(candidates) @ self.dense(states[0, self.last(history)])


MODELS: dict[str, Callable[[], Published]] = {
    "cocorrrec-din": DIN,
    "cocorrrec-gru4rec": GRU4Rec,
    "cocorrrec-sasrec": SASRec,
    "cocorrrec-bert4rec": BERT4Rec,
    "cocorrrec-mamba4rec": Mamba4Rec,
    "recbole-sasrec": RecBoleSASRec,
    "recbole-gru4rec": RecBoleGRU4Rec,
}


def build(name: str) -> Published:
    """Return a published model whose every weight is random, norms, biases and row 0 of the items among them."""
    model = MODELS[name]().eval()
    generator = torch.Generator().manual_seed(len(name))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.3
            keeps = parameter_name.endswith(("A_log", ".D", "a_2")) or "orm" in parameter_name.rsplit(".", 1)[0]
            parameter.copy_(parameter + noise if keeps else noise)
    return model


def published_scn(oracle: "dict[str, Tensor]") -> dict[str, Tensor]:
    """Return the state dict of a published SCN for the weights of a conformance vector, which are named by role."""
    block = "ttt.layers.0.seq_modeling_block."
    names = {
        "item_embedding": "ttt.embed_tokens.weight",
        "input_norm_weight": "ttt.layers.0.seq_norm.weight",
        "output_norm_weight": "ttt.norm.weight",
        "query_weight": f"{block}q_proj.weight",
        "key_weight": f"{block}k_proj.weight",
        "value_weight": f"{block}v_proj.weight",
        "output_weight": f"{block}o_proj.weight",
        "post_norm_weight": f"{block}post_norm.weight",
        "post_norm_bias": f"{block}post_norm.bias",
        "token_scale_offset": f"{block}learnable_token_idx",
        "inner_lr_weight": f"{block}learnable_ttt_lr_weight",
        "inner_lr_bias": f"{block}learnable_ttt_lr_bias",
        "inner_norm_weight": f"{block}ttt_norm_weight",
        "inner_norm_bias": f"{block}ttt_norm_bias",
        "initial_weight": f"{block}W1",
        "initial_bias": f"{block}b1",
        "fusion_attention": f"{block}P",
        "fusion_bias": f"{block}Q",
        "candidate_hidden_weight": "_target_trans.net.0.weight",
        "candidate_hidden_bias": "_target_trans.net.0.bias",
        "candidate_output_weight": "_target_trans.net.2.weight",
        "candidate_output_bias": "_target_trans.net.2.bias",
    }
    state = {}
    for role, tensor in oracle.items():
        net, _, rest = role.partition(".")
        if net in ("gcn_attention", "gcn_bias"):
            own = {"gcn_attention": "Att_corrnet", "gcn_bias": "b1_corrnet"}[net]
            state[f"{block}{own}.{rest.replace('gru.', '_gru_cell.')}"] = tensor
        else:
            state[names[role]] = tensor
    return state
