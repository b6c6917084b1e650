"""`cocorr-export ofa predict-latency`: a latency predictor of sub-networks, fitted to the times of some of them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.core.errors import BadInputError, OutputError, UnknownNameError
from exporter.core.precision import weights_of
from exporter.pipeline import lengths
from exporter.pipeline.request import ProgramChoice
from exporter.targets import TARGETS

if TYPE_CHECKING:
    from exporter.core.predictor import Conditions, Predictor
    from exporter.pipeline.source import Source
    from exporter.profiles import DeviceProfile

_SEED = 0


@dataclass(frozen=True)
class PredictRequest:
    """What `cocorr-export ofa predict-latency` was asked for.

    With `known`, the file of a predictor of another target or profile, that one is moved to this by a few samples.
    """

    choice: ProgramChoice
    target: str
    output: Path
    samples: int
    profile: str = "generic"
    known: Path | None = None
    force: bool = False


@dataclass(frozen=True)
class Predicting:
    """A predictor that was written, and where."""

    place: str
    predictor: "Predictor"

    def to_json(self) -> dict[str, object]:
        """Return the document that `--json` prints."""
        from exporter.artifact import predictor as documents

        return {**documents.to_json(self.predictor), "predictor": self.place}

    def lines(self) -> list[str]:
        """Return what a person reads of it."""
        predictor, of = self.predictor, self.predictor.conditions
        blocks = ", ".join(f"{cost:.1f}" for cost in predictor.costs.block_us)
        error = predictor.error
        return [
            f"{self.place}: {of.model}/{of.program} on {of.target}, {len(predictor.samples)} structures timed over"
            f" {of.connection} by {predictor.executed_on}",
            f"a call takes {predictor.costs.call_us:.1f} us, and its blocks {blocks} us",
            f"off by {error.median:.1%} in the median and {error.p90:.1%} at the 90th percentile: {error.method}",
        ]


def predict_latency(request: PredictRequest, report: lengths.Report) -> Predicting:
    """Time sampled structures, fit a predictor to them and write it; raises BadInputError before any is lowered."""
    from exporter import profiles
    from exporter.artifact import predictor as documents
    from exporter.connections import connect
    from exporter.pipeline import source as sources
    from exporter.targets.environment import require_packages

    if request.target not in TARGETS:
        raise UnknownNameError("target", request.target, TARGETS)
    profile = profiles.load(request.profile)
    _check_output(request)
    known = None if request.known is None else documents.read(request.known)
    lowering = lengths.Lowering(
        request.target, profile.precision, profile.options_for(request.target), fold=profile.fold
    )
    lowering.check()
    require_packages(TARGETS[request.target])
    connect(*profile.connection.chosen()).check()
    if profile.budgets.latency_us is None:
        report(
            f"the profile {profile.name} states no budgets.latency_us, and --structure auto takes a predictor of its"
            " own profile alone: this one is of use where it is moved to another, with --from"
        )
    report("loading the checkpoint")
    sizes = profile.history_length, profile.candidates, profile.top
    source = sources.load(request.choice, *sizes, weights_of(profile.precision))
    conditions = conditions_of(source, lowering, profile)
    if known is not None and (known.conditions.model, known.conditions.architecture) != (
        conditions.model,
        conditions.architecture,
    ):
        raise BadInputError(f"{request.known} is of another architecture; fit one without --from")
    predictor = _fitted(request, source, lowering, profile, conditions, known, report)
    documents.write(request.output, predictor)
    return Predicting(str(request.output), predictor)


def conditions_of(source: "Source", lowering: lengths.Lowering, profile: "DeviceProfile") -> "Conditions":
    """Return what times of the program's sub-networks are of; raises BadInputError where it has none."""
    from exporter.core.predictor import Conditions

    if source.selection is None:
        raise BadInputError(f"{source.name}/{source.program.name} has no blocks to leave out; name another --program")
    return Conditions(
        model=source.name,
        program=source.program.name,
        architecture=dict(source.checkpoint.architecture),
        history_length=source.history_length,
        candidates=source.candidates,
        target=lowering.target,
        options=dict(lowering.options),
        precision=lowering.precision,
        fold=lowering.fold,
        without_passes=tuple(sorted(lowering.without)),
        profile=profile.name,
        connection=profile.connection.chosen()[0],
        threads=profile.threads,
    )


def _check_output(request: PredictRequest) -> None:
    from exporter.artifact.predictor import ADVICE
    from safeio import places

    places.check_file(request.output, ADVICE)
    if os.path.lexists(request.output) and not request.force:
        raise OutputError(f"{request.output} is there already; {ADVICE}, or replace it with --force")


def _fitted(
    request: PredictRequest,
    source: "Source",
    lowering: lengths.Lowering,
    profile: "DeviceProfile",
    conditions: "Conditions",
    known: "Predictor | None",
    report: lengths.Report,
) -> "Predictor":
    """Time structures of all numbers of blocks alike, and fit costs to them, or move those that are known."""
    from exporter.core.predictor import Origin, Predictor, Sample
    from exporter.measure import structures
    from exporter.pipeline.structure_times import time_in_rounds
    from exporter.targets.environment import versions

    least = structures.LEAST_SAMPLES if known is None else structures.LEAST_TO_TRANSFER
    chosen = structures.sampled(int(conditions.architecture["blocks"]), request.samples, _SEED)
    if len(chosen) < least:
        had = "were asked for" if len(chosen) == request.samples else "are all that these blocks have"
        raise BadInputError(f"--samples: {least} structures or more are needed, and {len(chosen)} {had}")
    timed = time_in_rounds([source.of_structure(one) for one in chosen], lowering, profile, report)
    costs, error = (
        structures.fit(chosen, timed.times_us)
        if known is None
        else structures.transfer(known.costs, chosen, timed.times_us)
    )
    origin = None
    if known is not None:
        of = known.conditions
        origin = Origin(of.profile, of.target, of.connection, len(known.samples))
    return Predictor(
        conditions=conditions,
        executed_on=timed.executed_on,
        versions=versions(TARGETS[lowering.target]),
        costs=costs,
        error=error,
        samples=tuple(
            Sample("".join(map(str, structure)), float(time))
            for structure, time in zip(chosen, timed.times_us, strict=True)
        ),
        method=structures.FITTED if known is None else structures.TRANSFERRED,
        transferred_from=origin,
    )
