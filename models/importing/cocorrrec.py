"""The published code of CoCorrRec: SCN with and without its GCN, and the five models that it is compared with.

It saves whole models by pickle; what is imported is `model.state_dict()`. Its tables of items have a row 0 for padding
that is zero in SCN alone: DIN, GRU4Rec and SASRec learn it, BERT4Rec and Mamba4Rec draw it and never change it.
"""

from models.importing.origin import Origin, affine, clear_padding, move_padding

HISTORY = 10
HEADS = 4
SAVE = "torch.save(model.state_dict(), FILE)"

_BLOCK = "ttt.layers.0.seq_modeling_block."
_SCN = {
    "ttt.embed_tokens.weight": "items.weight",
    "ttt.layers.0.seq_norm.weight": "input_norm.weight",
    f"{_BLOCK}q_proj.weight": "query.weight",
    f"{_BLOCK}k_proj.weight": "key.weight",
    f"{_BLOCK}v_proj.weight": "value.weight",
    f"{_BLOCK}o_proj.weight": "output.weight",
    f"{_BLOCK}post_norm.weight": "post_norm.weight",
    f"{_BLOCK}post_norm.bias": "post_norm.bias",
    f"{_BLOCK}learnable_token_idx": "token_scale_offset",
    f"{_BLOCK}learnable_ttt_lr_weight": "inner_lr.weight",
    f"{_BLOCK}learnable_ttt_lr_bias": "inner_lr.bias",
    f"{_BLOCK}ttt_norm_weight": "inner_norm_weight",
    f"{_BLOCK}ttt_norm_bias": "inner_norm_bias",
    f"{_BLOCK}W1": "initial_weight",
    f"{_BLOCK}b1": "initial_bias",
    "ttt.norm.weight": "output_norm.weight",
    **affine({"_target_trans.net.0": "candidate_hidden", "_target_trans.net.2": "candidate_output"}),
}
_CORRECTION = {
    **{f"fc{layer}.weight": f"fc{layer}.weight" for layer in (1, 2, 3)},
    **{f"_gru_cell.{part}_l0": f"gru.{part}_l0" for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")},
}
_GCN = {
    f"{_BLOCK}P": "gcn.attention_weight",
    f"{_BLOCK}Q": "gcn.bias_weight",
    **{f"{_BLOCK}Att_corrnet.{theirs}": f"gcn.attention.{ours}" for theirs, ours in _CORRECTION.items()},
    **{f"{_BLOCK}b1_corrnet.{theirs}": f"gcn.bias.{ours}" for theirs, ours in _CORRECTION.items()},
}
_ITEMS = "_id_encoder._embedding_matrix.weight"
_TOWERS = {
    "_seq_trans.net.0": "input",
    "_classifier.net.0": "user_hidden",
    "_classifier.net.2": "user_output",
    "_target_trans.net.0": "candidate_hidden",
    "_target_trans.net.2": "candidate_output",
}
_ENCODER = ("self_attn.out_proj", "linear1", "linear2", "norm1", "norm2")
_BERT_BLOCK = {
    "attention.linear_layers.0": "query",
    "attention.linear_layers.1": "key",
    "attention.linear_layers.2": "value",
    "attention.output_linear": "output",
    "feed_forward.w_1": "inner",
    "feed_forward.w_2": "outer",
}
_BERT_NORMS = {"input_sublayer": "attention_norm", "output_sublayer": "feed_forward_norm"}
_MIXER = (
    *("in_proj.weight", "conv1d.weight", "conv1d.bias", "x_proj.weight", "dt_proj.weight", "dt_proj.bias"),
    *("A_log", "D", "out_proj.weight"),
)


SCN = Origin(
    name="cocorrrec-scn",
    model="scn",
    description="SCN of the published CoCorrRec code, with or without its GCN",
    names=_SCN,
    parts={"gcn": _GCN},
    sizes={
        "vocabulary": (("ttt.embed_tokens.weight", 0),),
        "dimension": (("ttt.embed_tokens.weight", 1), ("ttt.norm.weight", 0), (f"{_BLOCK}q_proj.weight", 0)),
        "heads": ((f"{_BLOCK}W1", 0), (f"{_BLOCK}b1", 0), (f"{_BLOCK}ttt_norm_weight", 0)),
        "mini_batch": ((f"{_BLOCK}learnable_token_idx", 0),),
    },
    shapes={
        f"{_BLOCK}learnable_ttt_lr_weight": lambda ours: (ours[0], 1, ours[1]),
        f"{_BLOCK}learnable_ttt_lr_bias": lambda ours: (ours[0], 1),
        f"{_BLOCK}ttt_norm_weight": lambda ours: (ours[0], ours[2]),
        f"{_BLOCK}ttt_norm_bias": lambda ours: (ours[0], ours[2]),
    },
    history=HISTORY,
    derived=frozenset({f"{_BLOCK}token_idx", f"{_BLOCK}rotary_emb.inv_freq"}),
    settle=clear_padding,
    save=SAVE,
    assumed="the norms' eps is 1e-6, RoPE's base 10000 and the inner base learning rate 1, as published",
)

DIN = Origin(
    name="cocorrrec-din",
    model="din",
    description="DIN of the published CoCorrRec code",
    names={
        _ITEMS: "items.weight",
        "_target_attention._target_key_transform.net.weight": "query.weight",
        "_target_attention._item_key_transform.net.weight": "key.weight",
        "_target_attention._value_transform.net.weight": "value.weight",
        **affine(
            {
                "_target_trans.net.0": "target",
                "_seq_trans.net.0": "click",
                "_classifier.net.0": "first",
                "_classifier.net.2": "second",
                "_classifier.net.4": "logit",
            }
        ),
    },
    sizes={
        "vocabulary": ((_ITEMS, 0),),
        "dimension": ((_ITEMS, 1), ("_seq_trans.net.0.weight", 0), ("_target_trans.net.0.weight", 0)),
    },
    history=HISTORY,
    settle=move_padding(("target", "click")),
    save=SAVE,
)

GRU4REC = Origin(
    name="cocorrrec-gru4rec",
    model="gru4rec",
    description="GRU4Rec of the published CoCorrRec code",
    names={
        _ITEMS: "items.weight",
        **affine(_TOWERS),
        **{f"_gru_cell.{part}": f"gru.{part}" for part in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")},
    },
    sizes={
        "vocabulary": ((_ITEMS, 0),),
        "dimension": ((_ITEMS, 1), ("_gru_cell.weight_hh_l0", 1), ("_seq_trans.net.0.weight", 0)),
    },
    history=HISTORY,
    settle=move_padding(("input", "candidate_hidden")),
    save=SAVE,
)

SASREC = Origin(
    name="cocorrrec-sasrec",
    model="sasrec",
    description="SASRec of the published CoCorrRec code",
    names={
        _ITEMS: "items.weight",
        "_position_embedding._embedding_matrix.weight": "positions",
        **affine(_TOWERS),
        "_transformer.self_attn.in_proj_weight": "layer.self_attn.in_proj_weight",
        "_transformer.self_attn.in_proj_bias": "layer.self_attn.in_proj_bias",
        **affine({f"_transformer.{module}": f"layer.{module}" for module in _ENCODER}),
    },
    sizes={
        "vocabulary": ((_ITEMS, 0), ("_position_embedding._embedding_matrix.weight", 0)),
        "dimension": ((_ITEMS, 1), ("_seq_trans.net.0.weight", 0), ("_transformer.norm1.weight", 0)),
    },
    asked={"heads": HEADS},
    history=HISTORY,
    settle=move_padding(("input", "candidate_hidden"), "positions"),
    save=SAVE,
)

BERT4REC = Origin(
    name="cocorrrec-bert4rec",
    model="bert4rec",
    description="BERT4Rec of the published CoCorrRec code",
    names={
        "embedding.token.weight": "items.weight",
        "embedding.position.pe.weight": "positions",
        **affine({f"transformer_blocks.{{}}.{theirs}": f"blocks.{{}}.{ours}" for theirs, ours in _BERT_BLOCK.items()}),
        **{
            f"transformer_blocks.{{}}.{theirs}.norm.{mark}": f"blocks.{{}}.{ours}.{part}"
            for theirs, ours in _BERT_NORMS.items()
            for mark, part in (("a_2", "weight"), ("b_2", "bias"))
        },
    },
    counted={"blocks": "transformer_blocks.{}."},
    sizes={
        "vocabulary": (("embedding.token.weight", 0),),
        "dimension": (
            ("embedding.token.weight", 1),
            ("embedding.position.pe.weight", 1),
            ("transformer_blocks.0.attention.output_linear.weight", 0),
        ),
        "history_length": (("embedding.position.pe.weight", 0),),
    },
    asked={"heads": HEADS},
    settle=clear_padding,
    save=SAVE,
)

MAMBA4REC = Origin(
    name="cocorrrec-mamba4rec",
    model="mamba4rec",
    description="Mamba4Rec of the published CoCorrRec code",
    names={
        "item_embedding.weight": "items.weight",
        **affine(
            {
                "LayerNorm": "input_norm",
                "mamba_layers.{}.LayerNorm": "blocks.{}.mixer_norm",
                "mamba_layers.{}.ffn.w_1": "blocks.{}.inner",
                "mamba_layers.{}.ffn.w_2": "blocks.{}.outer",
                "mamba_layers.{}.ffn.LayerNorm": "blocks.{}.feed_forward_norm",
            }
        ),
        **{f"mamba_layers.{{}}.mamba.{part}": f"blocks.{{}}.mixer.{part}" for part in _MIXER},
    },
    counted={"blocks": "mamba_layers.{}."},
    sizes={
        "vocabulary": (("item_embedding.weight", 0),),
        "dimension": (("item_embedding.weight", 1), ("LayerNorm.weight", 0), ("mamba_layers.0.LayerNorm.weight", 0)),
        "state": (("mamba_layers.0.mamba.A_log", 1),),
    },
    least={"blocks": (2, "a single Mamba layer has no residual there")},
    history=HISTORY,
    settle=clear_padding,
    save=SAVE,
)

ORIGINS = (SCN, DIN, GRU4REC, SASREC, BERT4REC, MAMBA4REC)
