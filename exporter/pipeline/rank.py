"""`cocorr-export rank`: items in the order that an artifact gives them for a history, computed by its own runtime.

Candidates are scored in as many calls as they need; a program that finds the best of the catalogue itself takes one.

Needs the artifact alone: neither the checkpoint nor torch, where the runtime does not.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.core.errors import ArtifactError, BadInputError, RuntimeFailureError
from exporter.pipeline.lengths import Report
from exporter.pipeline.opening import open_known, require_unchanged
from exporter.pipeline.reach import reach

if TYPE_CHECKING:
    import numpy as np

    from exporter.artifact.manifest import Manifest
    from exporter.artifact.results import Ranking
    from exporter.artifact.store import Opened
    from exporter.connections.running import Subject
    from exporter.core.types import Arrays, RunResult
    from exporter.pipeline.ids import Items

_HISTORY, _CANDIDATES = "item_ids", "candidate_ids"
_MOST_CALLS = 4096
_MOST_BYTES = 64 << 20
"""Of the inputs of one run: they are written into its folder, weights from outside once for every call."""


@dataclass(frozen=True)
class RankRequest:
    """What `cocorr-export rank` was asked for: ids as `pipeline.ids` reads them; without candidates, all items.

    `connection` is as in `pipeline.parity`.
    """

    artifact: Path
    history: str
    candidates: str | None = None
    top: int = 10
    connection: str = "host"


def rank(request: RankRequest, report: Report) -> "Ranking":
    """Return the best candidates with their scores, the best first, those of equal scores in the order given.

    Those of a program that finds them itself are in its own order. A history that is too long is cut to its latest
    clicks, a shorter one padded as in training. As many calls are made as the candidates need. Raises BadInputError for
    unknown ids and for an artifact that does not rank, and RuntimeMissingError or RuntimeFailureError where it gives no
    scores.
    """
    import numpy as np

    from exporter.artifact.results import Ranked, Ranking
    from exporter.pipeline.subjects import subject_of

    way = reach(request.connection)
    opened = open_known(request.artifact)
    manifest = opened.manifest
    length, count = _sizes(request.artifact, manifest)
    if manifest.ranked is not None:
        _check_list(request, manifest, count)
    report("comparing the files with the manifest")
    require_unchanged(opened)
    items = _items(request.artifact, opened)
    if items.note is not None:
        report(items.note)
    clicks = items.rows("--history", request.history)
    everything = range(1, items.vocabulary)
    candidates = items.rows("--candidates", request.candidates) if request.candidates is not None else [*everything]
    seen = clicks[-length:]
    history = np.array([*seen, *[0] * (length - len(seen))], np.int32)
    subject = subject_of(opened.folder, manifest, way)
    if manifest.ranked is not None:
        report(f"running 1 call for the best {count} of {len(candidates)} items")
        best, scores, last = _best(subject, opened, history, items.vocabulary)
    else:
        calls = -(-len(candidates) // count)
        lists = np.zeros(calls * count, np.int32)
        lists[: len(candidates)] = candidates
        report(f"running {calls} {'call' if calls == 1 else 'calls'} of {count} candidates")
        scores, last = _scores(subject, opened, history, lists.reshape(calls, count))
        order = np.argsort(-scores[: len(candidates)], kind="stable")
        best, scores = np.array(candidates)[order], scores[order]
    ranked = zip(best[: request.top].tolist(), scores[: request.top].tolist(), strict=True)
    return Ranking(
        place=str(request.artifact),
        manifest=manifest,
        ids=items.kind,
        history=tuple(items.name(row) for row in seen),
        left_out=len(clicks) - len(seen),
        candidates=len(candidates),
        executed_on=last.executed_on,
        unsettled=last.unsettled,
        ranked=tuple(Ranked(items.name(row), row, score) for row, score in ranked),
    )


def _sizes(folder: Path, manifest: "Manifest") -> tuple[int, int]:
    """Return how many clicks a call takes, and how many candidates it takes or, of the best items, gives.

    Raises ArtifactError for a program that does not rank, and for a manifest whose sizes are those of no list.
    """
    external = {tensor.name for tensor in (manifest.external.tensors if manifest.external else ())}
    inputs = {tensor.name: tensor for tensor in manifest.inputs if tensor.name not in external}
    outputs = {tensor.name: tensor for tensor in manifest.outputs}
    program = f"{folder}: {manifest.model}/{manifest.program}"
    if inputs.keys() != ({_HISTORY, _CANDIDATES} if manifest.ranked is None else {_HISTORY}):
        raise ArtifactError(
            f"{program} takes {', '.join(inputs)}; rank is for programs that score {_CANDIDATES} for {_HISTORY}, or"
            " find the best items for it, and take nothing else: export rerank or topk, or of ofa subnet or"
            " subnet_external"
        )
    if manifest.ranking is None:
        raise ArtifactError(f"{program} names no output as its ranking; rank is for programs that score candidates")
    history, scores = inputs[_HISTORY], outputs[manifest.ranking]
    ids = inputs[_CANDIDATES] if manifest.ranked is None else outputs[manifest.ranked]
    for tensor in (history, ids):
        if tensor.dtype != "int32" or len(tensor.shape) != 2 or tensor.shape[0] != 1:
            raise ArtifactError(
                f"{program} has {tensor.name} as {tensor.dtype} {list(tensor.shape)}; rank is for programs that have"
                " int32 [1, n] there, the ids of one user"
            )
    if scores.shape != ids.shape:
        raise ArtifactError(
            f"{program} has {scores.name} as {list(scores.shape)} and {ids.name} as {list(ids.shape)}; rank is for"
            " programs that give a score for each"
        )
    length, count = history.shape[1], ids.shape[1]
    if not 0 < 4 * (length + count) <= _MOST_BYTES or not length * count:
        raise ArtifactError(f"{program} takes {length} clicks and {count} candidates, which is no list to rank")
    return length, count


def _check_list(request: RankRequest, manifest: "Manifest", count: int) -> None:
    """Raise BadInputError where a program that gives the best `count` of the catalogue is asked for something else."""
    program = f"{request.artifact}: {manifest.model}/{manifest.program} gives the best {count} of the whole catalogue"
    if request.candidates is not None:
        raise BadInputError(f"{program}; leave out --candidates, or export rerank, which scores them")
    if request.top > count:
        raise BadInputError(f"{program}; give --top {count} or less, or export it with more: top in the profile")


def _items(folder: Path, opened: "Opened") -> "Items":
    """Return what the items of an artifact are called; raises ArtifactError."""
    from exporter.artifact import store
    from exporter.pipeline.ids import Items
    from safeio import catalogue

    manifest = opened.manifest
    vocabulary = manifest.source.architecture.get("vocabulary")
    if not isinstance(vocabulary, int) or not 2 <= vocabulary <= catalogue.MAX_ROWS:
        raise ArtifactError(
            f"{folder}: the manifest does not say how many items there are; export it from a checkpoint"
        )
    return Items(str(folder), store.read_items(opened.folder, manifest), vocabulary)


def _scores(
    subject: "Subject", opened: "Opened", history: "np.ndarray", lists: "np.ndarray"
) -> "tuple[np.ndarray, RunResult]":
    """Return the scores of all candidates in `lists` [calls, C] for a history [N], and the last run."""
    import numpy as np

    manifest = opened.manifest
    case = {**_own_weights(opened), _HISTORY: history[None]}
    per_call = sum(array.nbytes for array in case.values()) + lists[0].nbytes
    at_once = min(_MOST_CALLS, max(1, _MOST_BYTES // per_call))
    scores = []
    for start in range(0, len(lists), at_once):
        part = lists[start : start + at_once, None]
        cases = {name: np.broadcast_to(array, (len(part), *array.shape)) for name, array in case.items()}
        cases[_CANDIDATES] = part
        last = _run(subject, opened, {spec.name: cases[spec.name] for spec in manifest.inputs})
        scores.append(last.outputs[str(manifest.ranking)].reshape(-1))
    return np.concatenate(scores), last


def _best(
    subject: "Subject", opened: "Opened", history: "np.ndarray", vocabulary: int
) -> "tuple[np.ndarray, np.ndarray, RunResult]":
    """Return the best items for a history [N] and their scores, both [K], and the run."""
    manifest = opened.manifest
    result = _run(subject, opened, {_HISTORY: history[None, None]})
    ids, scores = (result.outputs[str(name)].reshape(-1) for name in (manifest.ranked, manifest.ranking))
    if ids.min() < 1 or ids.max() >= vocabulary:
        raise RuntimeFailureError(f"{opened.folder}: gives rows that are no items; check it with parity")
    return ids, scores, result


def _run(subject: "Subject", opened: "Opened", cases: "Arrays") -> "RunResult":
    """Return what an artifact gives for cases, [cases, *shape] by name; raises where it gives no finite scores."""
    import numpy as np

    from exporter.connections import running

    result = running.run(subject, cases, warmup=0, iterations=0).required(opened.folder)
    if not np.isfinite(result.outputs[str(opened.manifest.ranking)]).all():
        raise RuntimeFailureError(f"{opened.folder}: gives scores that are not finite; check it with parity")
    return result


def _own_weights(opened: "Opened") -> "Arrays":
    """Return the weights that the program takes as inputs, those that ship beside it."""
    from exporter.artifact import weights

    external = opened.manifest.external
    if external is None or external.data_file is not None:  # the runtime reads the file itself
        return {}
    return weights.beside(opened.folder, None, external.shapes, external.metadata)
