"""RecBole 1.2: SASRec and GRU4Rec, from `model.state_dict()` or what its trainer keeps under `state_dict`."""

from models.importing.origin import Origin, affine, clear_padding

HISTORY = 50
"""RecBole's MAX_ITEM_LIST_LENGTH where nothing else is said."""
SAVE = "torch.save(torch.load(CHECKPOINT, weights_only=False)['state_dict'], FILE), where RecBole is installed"

_LAYER = "trm_encoder.layer.{}."

SASREC = Origin(
    name="recbole-sasrec",
    model="recbole-sasrec",
    description="SASRec of RecBole",
    names={
        "item_embedding.weight": "items.weight",
        "position_embedding.weight": "positions",
        **affine(
            {
                "LayerNorm": "input_norm",
                f"{_LAYER}multi_head_attention.query": "blocks.{}.query",
                f"{_LAYER}multi_head_attention.key": "blocks.{}.key",
                f"{_LAYER}multi_head_attention.value": "blocks.{}.value",
                f"{_LAYER}multi_head_attention.dense": "blocks.{}.output",
                f"{_LAYER}multi_head_attention.LayerNorm": "blocks.{}.attention_norm",
                f"{_LAYER}feed_forward.dense_1": "blocks.{}.inner",
                f"{_LAYER}feed_forward.dense_2": "blocks.{}.outer",
                f"{_LAYER}feed_forward.LayerNorm": "blocks.{}.feed_forward_norm",
            }
        ),
    },
    counted={"blocks": _LAYER},
    sizes={
        "vocabulary": (("item_embedding.weight", 0),),
        "dimension": (("item_embedding.weight", 1), ("position_embedding.weight", 1), ("LayerNorm.weight", 0)),
        "inner": (
            ("trm_encoder.layer.0.feed_forward.dense_1.weight", 0),
            ("trm_encoder.layer.0.feed_forward.dense_1.bias", 0),
            ("trm_encoder.layer.0.feed_forward.dense_2.weight", 1),
        ),
        "history_length": (("position_embedding.weight", 0),),
    },
    asked={"heads": 2},
    settle=clear_padding,
    save=SAVE,
    assumed="the activation is GELU and the norms' eps 1e-12, RecBole's defaults; others give other scores",
)

GRU4REC = Origin(
    name="recbole-gru4rec",
    model="recbole-gru4rec",
    description="GRU4Rec of RecBole",
    names={
        "item_embedding.weight": "items.weight",
        "gru_layers.weight_ih_l{}": "layers.{}.weight_ih_l0",
        "gru_layers.weight_hh_l{}": "layers.{}.weight_hh_l0",
        **affine({"dense": "output"}),
    },
    counted={"layers": "gru_layers.weight_ih_l{}"},
    sizes={
        "vocabulary": (("item_embedding.weight", 0),),
        "dimension": (("item_embedding.weight", 1), ("dense.weight", 0), ("gru_layers.weight_ih_l0", 1)),
        "hidden": (("gru_layers.weight_hh_l0", 1), ("dense.weight", 1)),
    },
    history=HISTORY,
    settle=clear_padding,
    save=SAVE,
)

ORIGINS = (SASREC, GRU4REC)
