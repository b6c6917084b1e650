"""`--structure auto`: the sub-network of the best score among those that a latency predictor has within the budget."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.core.errors import BadInputError
from exporter.pipeline import lengths
from exporter.pipeline.predicting import conditions_of
from exporter.pipeline.request import AUTO, ProgramChoice

if TYPE_CHECKING:
    from exporter.core.predictor import Conditions, Predictor
    from exporter.core.sections import Searched
    from exporter.pipeline.source import Source
    from exporter.profiles import DeviceProfile

_FIT = "fit one to this with `cocorr-export ofa predict-latency`"
_SCORE = "mean Kendall tau-b over the golden users, beside the blocks that the model chooses for each"


@dataclass(frozen=True)
class Candidate:
    """A structure, how long it is predicted to take, and its score."""

    structure: tuple[int, ...]
    predicted_us: float
    score: float

    @property
    def digits(self) -> str:
        """Return the structure as digits."""
        return "".join(map(str, self.structure))


@dataclass(frozen=True)
class Search:
    """Structures that are predicted to keep a limit, the best score first, of which the first is tried now.

    `off_by` is the median relative error of the predictor, and `history` the clicks of a user who was named.
    """

    candidates: tuple[Candidate, ...]
    limit_us: float
    off_by: float
    considered: int
    history: tuple[int, ...] | None = None
    too_slow: tuple[str, ...] = ()

    @property
    def first(self) -> Candidate:
        """Return what is tried now."""
        return self.candidates[0]

    def following(self) -> "Search | None":
        """Return the search without what was tried and was too slow; None where nothing is left.

        What the predictor cannot tell from it is left out too: what stays is faster by more than it is off.
        """
        fast_enough = self.first.predicted_us * (1 - self.off_by)
        left = tuple(one for one in self.candidates[1:] if one.predicted_us < fast_enough)
        return replace(self, candidates=left, too_slow=(*self.too_slow, self.first.digits)) if left else None

    def section(self, measured_us: float | None, ndcg10: "tuple[float, float] | None") -> "Searched":
        """Return what the manifest says of it, with what the artifact took in the end."""
        from exporter.core.sections import Searched

        return Searched(
            limit_us=self.limit_us,
            predicted_us=self.first.predicted_us,
            predictor_off_by=self.off_by,
            measured_us=measured_us,
            score=self.first.score,
            score_method=_SCORE,
            considered=self.considered,
            too_slow=self.too_slow,
            ndcg10=None if ndcg10 is None else ndcg10[0],
            ndcg10_of_model=None if ndcg10 is None else ndcg10[1],
        )


def predictor_of(choice: ProgramChoice, targets: Sequence[str], profile: "DeviceProfile") -> "Predictor | None":
    """Return the predictor by which a structure is to be chosen, None where none is; raises BadInputError."""
    from exporter.artifact import predictor as documents

    if choice.structure != AUTO:
        if choice.predictor is not None:
            raise BadInputError("--predictor goes with --structure auto")
        return None
    if choice.predictor is None:
        raise BadInputError(f"--structure auto wants --predictor FILE, what a call takes here; {_FIT}")
    if len(targets) != 1:
        raise BadInputError("--structure auto is for one --target, as a predictor is")
    if profile.budgets.latency_us is None:
        raise BadInputError(
            f"--structure auto keeps budgets.latency_us, which the profile {profile.name} does not state"
        )
    return documents.read(choice.predictor)


def chosen(
    source: "Source",
    choice: ProgramChoice,
    predictor: "Predictor",
    lowering: lengths.Lowering,
    profile: "DeviceProfile",
    report: lengths.Report,
) -> "Source":
    """Return the program with the blocks of the best score within the budget, and what to try next if it is too slow.

    Where none is predicted to be within, the fastest is taken, and its measured time decides.
    """
    from exporter.measure.searching import best_first

    if lowering.is_mildest:
        raise BadInputError(
            "--structure auto is for one scheme, as a predictor is; name it in place of --precision auto"
        )
    _require_same(choice.predictor, predictor.conditions, conditions_of(source, lowering, profile))
    limit, costs = float(profile.budgets.latency_us or 0), predictor.costs
    blocks, score = len(costs.block_us), _Scores(source)
    report(f"scoring structures that are predicted to take {limit:g} us or less")
    found = best_first(blocks, lambda one: costs.predicted_us(one) <= limit, score.of)
    if not found:
        single = [tuple(int(block == at) for block in range(blocks)) for at in range(blocks)]
        fastest = min(single, key=costs.predicted_us)
        report(f"none is; the fastest, {''.join(map(str, fastest))}, is tried all the same")
        found = [(fastest, score.of(fastest))]
    candidates = tuple(Candidate(one, costs.predicted_us(one), value) for one, value in found)
    clicks = source.selection.history if choice.history is not None and source.selection is not None else None
    search = Search(candidates, limit, predictor.error.median, len(found), clicks)
    best = search.first
    report(f"{best.digits} has the best score of {len(found)}, {best.score:.4f}; predicted {best.predicted_us:.1f} us")
    return replace(source.of_structure(best.structure, clicks), search=search)


def _require_same(path: Path | None, held: "Conditions", wanted: "Conditions") -> None:
    """Raise BadInputError where a predictor is of something else than what is exported."""
    for key in fields(wanted):
        own, other = getattr(held, key.name), getattr(wanted, key.name)
        if own != other:
            what = key.name.replace("_", " ")
            moved = "" if key.name in ("model", "architecture") else f", or move this one here by a few: --from {path}"
            raise BadInputError(f"{path} is for {what} {own!r:.200}, and this has {other!r:.200}; {_FIT}{moved}")


class _Scores:
    """Scores of structures: how the model's own rankings agree with those of one structure for all golden users."""

    def __init__(self, source: "Source") -> None:
        if source.spec.scores is None:
            raise BadInputError(f"{source.name} has no structures to choose from; leave --structure out")
        self._scores, self._model, self._golden = source.spec.scores, source.model, source.checkpoint.golden
        self._own = self._scores(self._model, self._golden, None)

    def of(self, structure: tuple[int, ...]) -> float:
        """Return the score of a structure."""
        from exporter.parity.ranking import kendall_tau_b

        return float(kendall_tau_b(self._own, self._scores(self._model, self._golden, structure)).mean())


def ndcg10_of(source: "Source") -> "tuple[float, float] | None":
    """Return NDCG@10 of the golden users with one structure and with the model's choice for each.

    None where nobody knows what was clicked next.
    """
    from exporter.parity.positives import gain_of_rank, rank_of

    positive, scores, selection = source.positive, source.spec.scores, source.selection
    if positive is None or scores is None or selection is None:
        return None
    golden = source.checkpoint.golden
    of_one, of_model = (
        float(gain_of_rank(rank_of(scores(source.model, golden, structure), positive)).mean())
        for structure in (selection.structure, None)
    )
    return of_one, of_model
