"""What there is: models, programs, targets, profiles and origins of weights, and which targets are ready here."""

from collections.abc import Sequence
from typing import Literal

from exporter.core.extras import LOWER, require
from exporter.core.types import Row
from exporter.targets import TARGETS
from models.importing import ORIGINS
from models.zoo import MODELS, load_spec

Listing = Literal["models", "programs", "targets", "profiles", "origins"]


def model_names() -> list[str]:
    """Return the models that can be exported."""
    return sorted(MODELS)


def listing(what: Listing) -> Sequence[Row]:
    """Return one row per model, program, target, shipped profile or origin of weights."""
    if what == "targets":
        return [
            {"target": name, "extra": target.extra, "precisions": ", ".join(target.precisions)}
            for name, target in TARGETS.items()
        ]
    if what == "profiles":
        from exporter import profiles

        return [{"profile": name, "description": profiles.load(name).description} for name in profiles.shipped()]
    if what == "origins":
        return [
            {"origin": origin.name, "model": origin.model, "description": origin.description}
            for origin in ORIGINS.values()
        ]
    require("torch", LOWER)
    specs = [load_spec(name) for name in model_names()]
    if what == "models":
        return [{"model": spec.name, "description": spec.description} for spec in specs]
    return [
        {"model": spec.name, "program": program.name, "runs on": program.runs_on, "description": program.description}
        for spec in specs
        for program in spec.programs.values()
    ]


def doctor() -> dict[str, Sequence[Row]]:
    """Return one row per target and connection: its packages, whether it is ready, how to install what is missing."""
    from exporter.connections import ways
    from exporter.targets.environment import survey

    return {"targets": survey(TARGETS), "connections": ways()}
