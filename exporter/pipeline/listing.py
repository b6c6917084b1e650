"""What there is: models, programs, targets, profiles and origins of weights, and which targets are ready here."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from exporter.core.errors import BadInputError, CocorrError, UnknownNameError
from exporter.targets import TARGETS
from models import zoo
from models.importing import ORIGINS

if TYPE_CHECKING:
    from exporter.core.types import Row
    from models.listed import ListedModel

Listing = Literal["models", "programs", "targets", "profiles", "origins"]


def model_names() -> list[str]:
    """Return the models that can be exported by name: those that ship, and those of installed packages."""
    return sorted({*zoo.MODELS, *zoo.installed()})


def profile_names() -> list[str]:
    """Return the device profiles that ship."""
    from exporter import profiles

    return list(profiles.shipped())


def program_names(model: str) -> list[str]:
    """Return the programs of a model that ships, without importing it; none of another."""
    return list(zoo.listed(model).programs) if model in zoo.MODELS else []


def require_model(name: str) -> None:
    """Raise UnknownNameError for a model that is neither known by its name nor FILE.py:SPEC, BadInputError for half."""
    if name.partition(":")[0].endswith(".py") and not zoo.is_known(name):
        raise BadInputError(f"{name} does not say what its ModelSpec is called; give FILE.py:SPEC")
    if not zoo.is_known(name):
        raise UnknownNameError("model", name, model_names())


def listing(what: Listing) -> "Sequence[Row]":
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
    models = {name: _listed(name) for name in model_names()}
    if what == "models":
        return [
            {"model": name, "description": model if isinstance(model, str) else model.description}
            for name, model in models.items()
        ]
    return [
        {"model": name, "program": title, "runs on": program.runs_on, "description": program.description}
        for name, model in models.items()
        if not isinstance(model, str)
        for title, program in model.programs.items()
    ]


def _listed(name: str) -> "ListedModel | str":
    """Return what a model is, or why an installed package does not give it: the others are listed all the same."""
    from exporter.core.extras import LOWER, require

    try:
        if name not in zoo.MODELS:
            require("torch", LOWER)
        return zoo.listed(name)
    except CocorrError as error:
        return f"cannot be used: {error}"


def doctor() -> "dict[str, Sequence[Row]]":
    """Return one row per target and connection: its packages, whether it is ready, how to install what is missing."""
    from exporter.connections import ways
    from exporter.pipeline.reach import web_packages
    from exporter.targets.environment import survey

    return {"targets": survey(TARGETS), "connections": ways(web_packages())}
