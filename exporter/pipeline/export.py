"""From a checkpoint to verified artifacts: what is asked for is checked, and each target's artifact is made."""

from dataclasses import replace
from typing import TYPE_CHECKING, cast

from exporter.core.errors import BadInputError, LoweringError, UnknownNameError
from exporter.core.precision import MILDEST_FIRST, weights_of
from exporter.pipeline import lengths, places, promises, searching
from exporter.pipeline.job import Job, place_of
from exporter.pipeline.lengths import Report
from exporter.pipeline.listing import require_model
from exporter.pipeline.reach import way_of
from exporter.pipeline.request import AUTO, ExportRequest, ProgramChoice
from exporter.targets import TARGETS
from models import zoo

if TYPE_CHECKING:
    from exporter.artifact.results import Refusal, Result
    from exporter.pipeline.exportable import Exportable
    from exporter.pipeline.source import Source
    from exporter.profiles import DeviceProfile


def export(request: ExportRequest, report: Report) -> "list[Result | Refusal]":
    """Lower, run and judge one program for one target or all; return one result per target.

    A target whose converter refuses the program has a Refusal in place of a result, so that the others still get
    theirs. Raises BadInputError before anything is written.
    """
    from exporter import profiles
    from exporter.artifact import store
    from exporter.artifact.results import Refusal
    from exporter.connections import connect
    from exporter.targets.environment import left_out, require_packages

    if isinstance(request.choice, ProgramChoice):
        require_model(request.choice.model)
    chosen = _named_targets(request.target)
    profile = profiles.load(request.profile)
    if request.connection is not None:
        profile = profile.model_copy(update={"connection": way_of(request.connection)})
    if request.target == "all":
        reasons = {name: left_out(TARGETS[name]) for name in profile.allowed()}
        chosen = [name for name, reason in reasons.items() if reason is None]
        for name, reason in reasons.items():
            if reason is not None:
                report(f"{name}: left out, {reason}")
    asked, without = request.precision or profile.precision, known_passes(request.without_passes)
    precision = MILDEST_FIRST[0] if asked == "auto" else asked
    fold, options = request.fold or profile.fold, profile.options_for
    lowerings = [lengths.Lowering(name, precision, options(name), without, fold, asked == "auto") for name in chosen]
    for lowering in lowerings:
        lowering.check()
        require_packages(TARGETS[lowering.target])

    connect(*profile.connection.chosen()).check()
    store.check_output(request.output)
    _check_places(request, profile, lowerings)
    choice = request.choice
    predictor = searching.predictor_of(choice, chosen, profile) if isinstance(choice, ProgramChoice) else None

    source = source_of(request, profile, report)
    if predictor is not None and isinstance(choice, ProgramChoice):
        source = searching.chosen(cast("Source", source), choice, predictor, lowerings[0], profile, report)
    jobs = [Job(request.output, source, profile, lowering, report, request.force) for lowering in lowerings]
    for job in jobs:
        job.check_place()
    report(f"capturing {source.name}/{source.program.name}")
    results: list[Result | Refusal] = []
    for job in jobs:
        try:
            results.append(job.run())
        except LoweringError as error:
            results.append(Refusal(source.name, source.program.name, job.lowering.target, str(error)))
    return results


def _named_targets(words: str) -> list[str]:
    """Return the targets of `onnx,tflite`; raises UnknownNameError, and BadInputError for one that stands twice."""
    names = words.split(",")
    for name in names:
        if name not in TARGETS and words != "all":
            raise UnknownNameError("target", name, [*TARGETS, "all"])
        if names.count(name) > 1:
            raise BadInputError(f"--target names {name} twice")
    return names


def known_passes(names: frozenset[str]) -> frozenset[str]:
    """Return names of passes that can be left out; raises UnknownNameError for another."""
    from exporter.graph import OPTIONAL

    unknown = sorted(names - {*OPTIONAL})
    if unknown:
        raise UnknownNameError("pass", unknown[0], OPTIONAL)
    return names


def _check_places(request: ExportRequest, profile: "DeviceProfile", lowerings: "list[lengths.Lowering]") -> None:
    """Check all places against what is known before torch is imported; what is not, once the checkpoint is read."""
    choice = request.choice
    if not isinstance(choice, ProgramChoice) or choice.model not in zoo.MODELS:
        return
    program = choice.program or zoo.DEFAULT_PROGRAMS[choice.model]
    if not program.isidentifier():
        return
    program = f"{program}_cached" if choice.embeddings == "cached" else program
    for lowering in lowerings:
        facts = {
            **lowering.facts,
            "weights": "untrained" if choice.untrained else "trained",
            "structure": None if choice.structure == AUTO else choice.structure,
            "history length": profile.history_length,
            "candidates": profile.candidates,
            "top": profile.top,
            "batch": choice.batch,
        }
        places.check(place_of(request.output, choice.model, program, profile, lowering), facts, request.force)


def source_of(request: ExportRequest, profile: "DeviceProfile", report: Report) -> "Exportable":
    """Return what was asked for: a program of a model with a checkpoint, or one that was handed over."""
    from exporter.pipeline import program as programs
    from exporter.pipeline import source as sources

    choice = request.choice
    if not isinstance(choice, ProgramChoice):
        report("reading the program")
        return programs.load(choice, profile.name, (profile.history_length, profile.candidates))
    report("loading the checkpoint")
    stored = weights_of(request.precision or profile.precision)
    if choice.structure == AUTO:  # it is chosen once the model is there
        choice = replace(choice, structure=None)
    source = sources.load(choice, profile.history_length, profile.candidates, profile.top, stored)
    if choice.history is not None and (note := sources.items_of(source.checkpoint).note) is not None:
        report(note)
    with zoo.foreign(choice.model):
        promises.require_finite(choice.model, source)
    return source
