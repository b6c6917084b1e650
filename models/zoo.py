"""Where each model's SPEC lives; a model is imported when it is asked for, and no sooner."""

import importlib

from models.spec import ModelSpec

MODELS: dict[str, str] = {
    "scn": f"{__package__}.scn.programs",
    "ofa": f"{__package__}.forward_ofa.programs",
    **{name: f"{__package__}.baselines.{name}" for name in ("din", "gru4rec", "sasrec", "bert4rec", "mamba4rec")},
    "recbole-sasrec": f"{__package__}.recbole.sasrec",
    "recbole-gru4rec": f"{__package__}.recbole.gru4rec",
}
DEFAULT_PROGRAMS: dict[str, str] = {**dict.fromkeys(MODELS, "rerank"), "ofa": "subnet"}
"""What each SPEC says of its default program, for whoever must know it before torch is imported."""


def load_spec(name: str) -> ModelSpec:
    """Import and return the SPEC of the model `name`; raises KeyError for a name that is not in MODELS."""
    spec: ModelSpec = importlib.import_module(MODELS[name]).SPEC
    return spec
