"""An artifact as something to run and to judge: what running, parity and golden cases need of its manifest."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from exporter.artifact.manifest import Manifest
from exporter.artifact.store import Golden
from exporter.connections.host import HostConnection
from exporter.connections.running import Ran, Subject, run
from exporter.core.precision import Precision
from exporter.core.protocols import Connection
from exporter.core.sections import InOneCall, Parity, Scheme
from exporter.core.types import TensorSpec
from exporter.parity import section
from exporter.targets import TARGETS


def subject_of(folder: Path, manifest: Manifest, connection: Connection | None = None) -> Subject:
    """Return the artifact in `folder`, to run over `connection` or on this host."""
    data = manifest.external.data_file if manifest.external else None
    return Subject(
        target=TARGETS[manifest.target],
        model_file=folder / manifest.model_file,
        options=manifest.options,
        outputs=tuple(tensor.spec for tensor in manifest.outputs),
        threads=manifest.threads,
        connection=connection or HostConnection(),
        data=None if data is None else data.layout,
        label=f"{manifest.model}/{manifest.program}",
    )


def fed(manifest: Manifest) -> tuple[TensorSpec, ...]:
    """Return what a run is given: the inputs, and the weights that are written into a data file."""
    external = manifest.external
    written = external.tensors if external is not None and external.data_file is not None else ()
    return tuple(tensor.spec for tensor in (*manifest.inputs, *written))


def golden_problem(manifest: Manifest, golden: Golden) -> str | None:
    """Say which array of the golden cases is missing or not of the type and shape that the manifest states."""
    expected = tuple(tensor.spec for tensor in manifest.outputs)
    in_fp32 = expected if manifest.scheme is not None else ()
    held = [(golden.inputs, fed(manifest)), (golden.outputs, expected), (golden.fp32, in_fp32)]
    if golden.further_outputs or golden.further_fp32:
        if manifest.scheme is None or golden.positive is not None:
            return "golden.npz has further cases, and nothing is judged by them"
        held += [(golden.further_outputs, expected), (golden.further_fp32, expected)]
    for arrays, specs in held:
        stated = {spec.name for spec in specs}
        other = next((name for name in arrays if name not in stated), None)
        if other is not None:
            return f"golden.npz has {other[:80]!r} besides what the manifest states"
        for spec in specs:
            array = arrays.get(spec.name)
            if array is None or array.shape[1:] != spec.shape or array.dtype.name != spec.dtype:
                return f"golden.npz has no {spec.name!r} of {spec.dtype} {list(spec.shape)} per case"
    judged = manifest.parity.scheme.cases if manifest.parity.scheme is not None else None
    cases = sum(len(side[expected[0].name]) for side in (golden.outputs, golden.further_outputs) if side)
    if judged is not None and judged != cases:
        return f"golden.npz has {cases} cases for the scheme, which was judged by {judged}"
    scores = golden.outputs[manifest.ranking] if manifest.ranking is not None else None
    positive = golden.positive
    if positive is not None and (
        scores is None or positive.min() < 0 or positive.max() >= scores[0].size or manifest.ranked is not None
    ):
        return "golden.npz has positives that are no candidates"
    return None


def parity_of(
    ran: Ran,
    golden: Golden,
    ranking: str | None,
    precision: Precision,
    ranked: str | None = None,
    scheme: Scheme | None = None,
    untrained: bool = False,
) -> Parity:
    """Return the parity section of a run: judged where there are outputs, else the verdict of having none.

    What a `scheme` changes is part of it, and judged unless the weights are `untrained`.
    """
    if ran.result is None:
        parity = Parity(verdict=ran.verdict, reason=ran.reason or "")
    else:
        parity = section.judged(ran.result, golden.outputs, ranking, precision, ranked)
    if scheme is None:
        return parity
    cost = section.scheme_cost(golden.beside_fp32, ranking, ranked, scheme, untrained, golden.positive)
    return section.with_scheme(parity, cost)


def in_one_call(
    parity: Parity, subject: Subject, golden: Golden, ranking: str | None, precision: Precision, ranked: str | None
) -> Parity:
    """Run all golden cases as the users of one call, two at least; return the parity section with both verdicts.

    Each is held to what torch gives for it alone, so that what mixes users fails. What did not run before does not run
    here.
    """
    if parity.executed_on is None:
        return parity
    cases = len(next(iter(golden.inputs.values())))
    users = max(cases, 2)
    rows = np.arange(users) % cases
    together = {name: array[rows].reshape(1, users, *array.shape[2:]) for name, array in golden.inputs.items()}
    outputs = tuple(replace(spec, shape=(users, *spec.shape[1:])) for spec in subject.outputs)
    ran = run(replace(subject, outputs=outputs), together, 0, 0)
    if ran.result is None:
        judged = InOneCall(users=users, verdict=ran.verdict, reason=ran.reason or "", max_abs_error=None)
    else:
        each = {name: array.reshape(users, 1, *array.shape[2:]) for name, array in ran.result.outputs.items()}
        expected = {name: array[rows] for name, array in golden.outputs.items()}
        own = section.judged(replace(ran.result, outputs=each), expected, ranking, precision, ranked)
        judged = InOneCall(users=users, verdict=own.verdict, reason=own.reason or "", max_abs_error=own.max_abs_error)
    return section.with_one_call(parity, judged)
