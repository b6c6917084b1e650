"""Figures of lists of the best items, of which an artifact and torch may each name some that the other does not.

`verdict.py` derives why these errors bound what the scores of all items may be off by. Lists are rows [rows, K].
"""

import numpy as np

from exporter.core.types import Arrays
from exporter.parity.compare import (
    REL_FLOOR,
    TOP,
    OutputError,
    ParityReport,
    RankingFigures,
    find_mismatch,
    output_error,
)
from exporter.parity.ranking import kendall_tau_b, top_set_gaps


def compare_lists(expected: Arrays, actual: Arrays, ranking: str, ranked: str) -> ParityReport:
    """Compare as `compare` does, where `ranked` names the output with the ids of the items whose scores `ranking` has.

    Lists that are none, with padding or an item twice, are a mismatch. The ids are judged by the scores of their items.
    """
    mismatch = find_mismatch(expected, actual)
    if mismatch is None and not {ranking, ranked} <= set(expected):
        mismatch = f"the outputs {ranking!r} and {ranked!r} are not both there"
    for which, arrays in (("expected", expected), ("actual", actual)):
        if mismatch is None and (fault := list_fault(arrays[ranked], arrays[ranking])) is not None:
            mismatch = f"{which} output {ranked!r}: {fault}"
    if mismatch is not None:
        return ParityReport(0, None, None, (), None, mismatch, mismatch)
    pairs = ((arrays[ranking], arrays[ranked]) for arrays in (expected, actual))
    error, figures = selected(ranking, *pairs)
    rest = [name for name in expected if name not in (ranking, ranked)]
    outputs = (error, *(output_error(name, expected[name], actual[name], False) for name in rest))
    return ParityReport(
        cases=len(expected[ranking]),
        max_abs_error=max(output.max_abs_error for output in outputs),
        max_rel_error=max(output.max_rel_error for output in outputs),
        outputs=outputs,
        ranking=figures,
        ranking_reason=None,
    )


def order_is_settled(scores: np.ndarray) -> bool:
    """Say whether lists [..., K] would be judged alike with their equal scores in any other order.

    All errors stay what they are then; the top 10 is another set only where the 10th and the 11th score are equal.
    """
    return scores.shape[-1] > TOP and not (scores[..., TOP - 1] == scores[..., TOP]).any()


def list_fault(ids: np.ndarray, scores: np.ndarray) -> str | None:
    """Say why outputs [cases, ..., K] are no lists of the best items, or None where they are."""
    if ids.shape != scores.shape or ids.dtype.kind != "i":
        return f"ids are {ids.dtype} {list(ids.shape)} for scores of shape {list(scores.shape)}"
    if ids.min() < 1:
        return f"case {_first(ids < 1)} holds the row {ids.min()}, which is no item"
    rising = np.sort(ids, axis=-1)
    if (twice := rising[..., 1:] == rising[..., :-1]).any():
        return f"case {_first(twice)} holds an item twice"
    if (climbs := scores[..., 1:] > scores[..., :-1]).any():
        return f"the scores of case {_first(climbs)} are not in falling order"
    return None


def _first(places: np.ndarray) -> int:
    return int(np.argwhere(places)[0][0])


def selected(
    name: str, expected: tuple[np.ndarray, np.ndarray], actual: tuple[np.ndarray, np.ndarray]
) -> tuple[OutputError, RankingFigures]:
    """Compare lists of the best items, their scores, the output `name`, and their ids, both [cases, ..., K].

    The lists are without fault (`list_fault`). The error of a case is the largest of
    these: at each rank the difference of scores; of each item that both have the difference of its scores; of each item
    that only one has by how much its score exceeds the other's last. The top 10 are compared by their ids.
    """
    scores, ids = (pair.reshape(-1, pair.shape[-1]) for pair in expected)
    scores, found = scores.astype(np.float64), actual[0].astype(np.float64).reshape(scores.shape)
    found_ids = actual[1].reshape(ids.shape)
    # What the other list says of an item: its score there, or at most the last one where it is not in it.
    seen, asked = _looked_up(ids, scores, found_ids, found), _looked_up(found_ids, found, ids, scores)
    errors = np.stack([np.abs(found - scores), np.abs(seen - scores), np.abs(asked - found)]).max((0, 2))
    cases = len(expected[0])
    of_cases, scales = (values.reshape(cases, -1).max(1) for values in (errors, np.abs(scores).max(1)))
    floor = REL_FLOOR * scales.max() or 1.0
    relative = float((np.abs(found - scores) / np.maximum(np.abs(scores), floor)).max())
    error = OutputError(name, expected[0].dtype.name, True, tuple(of_cases.tolist()), tuple(scales.tolist()), relative)
    return error, _figures(name, (scores, ids), (seen, found_ids), errors)


def _looked_up(ids: np.ndarray, scores: np.ndarray, other_ids: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the other list's score of each item of a list; of one that it lacks, the lower of its last and the own."""
    looked_up: np.ndarray = np.minimum(scores, other[:, -1:])
    for row, (wanted, there) in enumerate(zip(ids, other_ids, strict=True)):
        _, at, place = np.intersect1d(wanted, there, assume_unique=True, return_indices=True)
        looked_up[row, at] = other[row, place]
    return looked_up


def _figures(
    name: str, expected: tuple[np.ndarray, np.ndarray], actual: tuple[np.ndarray, np.ndarray], errors: np.ndarray
) -> RankingFigures:
    """Return the figures of all lists; tau is that of torch's items, those that the artifact lacks tied or last."""
    (scores, ids), (seen, found_ids) = expected, actual
    count, top = ids.shape[1], min(TOP, ids.shape[1])
    pairs = zip(ids[:, :top], found_ids[:, :top], strict=True)
    overlap = np.array([len(np.intersect1d(*pair, assume_unique=True)) / top for pair in pairs])
    tau = kendall_tau_b(scores, seen) if count > 1 else None
    gaps = top_set_gaps(scores, TOP) if count > TOP else None
    return RankingFigures(
        output=name,
        rankings=len(ids),
        kendall_tau=None if tau is None else float(tau.mean()),
        kendall_tau_min=None if tau is None else float(tau.min()),
        top10_overlap=float(overlap.mean()),
        top10_overlap_min=float(overlap.min()),
        top10_changed=int((overlap < 1).sum()),
        flip_margin=None if gaps is None else float(gaps.min()),
        twice_max_error=2 * float(errors.max()),
        could_flip=None if gaps is None else int(((gaps <= 2 * errors) & (errors > 0)).sum()),
        reason=None if count > TOP else f"of {count} items nobody knows how near the next one is",
    )
