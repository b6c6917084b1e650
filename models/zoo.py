"""Where each model's SPEC lives; a model is imported when it is asked for, and no sooner."""

import importlib

from models.spec import ModelSpec

MODELS: dict[str, str] = {"ofa": "models.forward_ofa.programs", "scn": "models.scn"}


def load_spec(name: str) -> ModelSpec:
    """Import and return the SPEC of the model `name`; raises KeyError for a name that is not in MODELS."""
    spec: ModelSpec = importlib.import_module(MODELS[name]).SPEC
    return spec
