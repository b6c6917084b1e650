"""All figures of an artifact: counted in its file, measured in a fresh process, per click, and over the network."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.core.errors import ArtifactError, BadInputError, CocorrError
from exporter.core.types import Verdict
from exporter.pipeline import budgets, growth
from exporter.pipeline.artifact import golden_problem, open_known, require_unchanged
from exporter.pipeline.reach import reach
from exporter.pipeline.request import ExportRequest
from exporter.targets import TARGETS
from models.zoo import MODELS, load_spec

if TYPE_CHECKING:
    from exporter.artifact.store import Opened
    from exporter.connections.running import Ran
    from exporter.core.protocols import Connection
    from exporter.pipeline.source import Source

Document = dict[str, Any]

_WARMUP = 20
_LEAST_PAIRS = 20
_WORSE: tuple[Verdict, ...] = ("pass", "unverified", "fail")


@dataclass(frozen=True)
class ProfileRequest:
    """What `cocorr-export profile` was asked for; `against` is another artifact to be compared with.

    `connection` is the name of one, or of a profile whose device runs it.

    `checkpoint` is where the artifact comes from, None for the one that ships; other lengths are lowered from it.
    """

    artifact: Path
    iterations: int
    samples: bool = False
    against: Path | None = None
    checkpoint: Path | None = None
    connection: str = "host"


def profile(request: ProfileRequest, report: growth.Report) -> Document:
    """Measure an artifact, write the figures into its manifest and return its document.

    The document has two more parts than the manifest where they were asked for: the raw samples and the comparison.
    Its verdict is the manifest's, or that of this run where that is worse: what does not run has not passed.
    Raises ArtifactError for a folder that is not as it was exported.
    """
    from exporter.artifact import store
    from exporter.connections import running
    from exporter.measure import figures
    from exporter.targets import reading

    if request.against is not None and request.iterations < _LEAST_PAIRS:
        raise BadInputError(f"a comparison needs --iterations {_LEAST_PAIRS} or more")
    way = reach(request.connection)
    opened = _open(request.artifact)
    store.check_writable(opened)
    folder, manifest = opened.folder, dict(opened.manifest)
    rival = None if request.against is None else (request.against, _open(request.against).manifest)
    target = TARGETS[manifest["target"]]
    report("counting the operations of the file")
    lowered = reading.read(target, folder / manifest["model_file"])
    report(f"running {request.iterations} times in a process of its own")
    subject, inputs = _one_case(folder, manifest, way)
    ran = running.run(subject, inputs, _WARMUP, request.iterations)
    if ran.verdict == "unverified" and request.connection != "host":  # asked for by name: figures that are there stay
        raise BadInputError(f"nothing could be measured over {request.connection}: {ran.reason}")
    counted = figures.flops(lowered)
    manifest["memory"] = figures.memory(lowered, [row["name"] for row in manifest["inputs"]], ran.result, ran.reason)
    manifest["latency"] = figures.latency(ran.result, ran.reason, _WARMUP)
    manifest["growth"] = _growth(request, manifest, counted, report, subject.connection)
    manifest["flops"] = {
        **counted,
        **figures.per_token(manifest.get("state", {}), counted["total"], manifest["growth"]),
    }
    manifest["network"] = _network(manifest)
    limits = {row["budget"]: row["limit"] for row in manifest.get("budgets") or ()}
    manifest["budgets"] = budgets.section(limits, manifest)
    store.update_manifest(opened, manifest)
    document = {**manifest, "artifact": str(request.artifact), "parity": _shown(manifest["parity"], ran)}
    if request.samples:
        document["samples_us"] = list(ran.result.samples_us) if ran.result else []
    if rival is not None:
        report(f"calling it and {rival[0]} in turn")
        document["comparison"] = _compare(request, subject, inputs, rival)
    return document


def _open(folder: Path) -> "Opened":
    """Open an artifact whose files are as it lists them."""
    opened = open_known(folder)
    require_unchanged(opened)
    return opened


def _shown(parity: Document, ran: "Ran") -> Document:
    """Return the parity section to show: the manifest's, unless the artifact did worse when it was run now."""
    from exporter.parity import section

    if _WORSE.index(ran.verdict) > _WORSE.index(parity["verdict"]):
        return section.unjudged(ran.verdict, ran.reason or "")
    return parity


def _one_case(folder: Path, manifest: Document, connection: "Connection | None" = None) -> tuple[Any, dict[str, Any]]:
    """Return the artifact to run over `connection`, or on this host, and its first golden case."""
    from exporter.artifact import store
    from exporter.pipeline.subjects import subject_of

    golden, outputs = store.read_golden(folder)
    subject = subject_of(folder, manifest, connection)
    wrong = golden_problem(subject, manifest, golden, outputs)
    if wrong is not None:
        raise ArtifactError(f"{folder}: {wrong}; export the artifact again")
    return subject, {row["name"]: golden[row["name"]][:1] for row in manifest["inputs"]}


def _compare(
    request: ProfileRequest, subject: Any, inputs: Mapping[str, Any], rival: tuple[Path, Document]
) -> Document:
    """Call two artifacts in turn; null and the reason where one of them cannot run here."""
    from exporter.connections import running
    from exporter.measure import figures

    other, others = _one_case(*rival)
    try:
        times = running.compare_times((subject, inputs), (other, others), _WARMUP, request.iterations)
    except CocorrError as error:
        return {"first": str(request.artifact), "second": str(rival[0]), "ratio": None, "reason": str(error)}
    return figures.comparison(str(request.artifact), str(rival[0]), times)


def _growth(
    request: ProfileRequest, manifest: Document, counted: Document, report: growth.Report, connection: "Connection"
) -> Document:
    """Return the figures at several lengths and the lines through them; null and the reason where there are none."""
    from exporter.measure import figures
    from exporter.measure.growth import LENGTHS

    try:
        source = _source(request, manifest)
    except CocorrError as error:
        return {"points": [], "lines": None, "module_hook_macs_per_token": None, "reason": str(error)}
    hooks = source.module_hook_macs()
    if not source.reads_history:
        reason = "no input of this program has the length of the history"
        return {"points": [], "lines": None, "module_hook_macs_per_token": hooks, "reason": reason}
    own = source.checkpoint.history_length
    points = [figures.point(own, counted, manifest["memory"], manifest["latency"])]
    lowering = growth.Lowering(manifest["target"], manifest["precision"], manifest["options"])
    lengths = [length for length in LENGTHS if length != own]
    longer = growth.lengthened(source, max(lengths))
    timed = _WARMUP, request.iterations
    points += growth.points(longer, lowering, lengths, timed, manifest["threads"], report, connection)
    return {**figures.growth(points), "module_hook_macs_per_token": hooks, "reason": None}


def _source(request: ProfileRequest, manifest: Document) -> "Source":
    """Return the program as it was lowered, from the checkpoint that the manifest names by its hash."""
    from exporter.pipeline import source as sources

    model, program = manifest["model"], manifest["program"]
    if model not in MODELS or program not in load_spec(model).programs:
        raise ArtifactError(f"{model}/{program} is not known here")
    source = sources.load(
        ExportRequest(
            model=model,
            target=manifest["target"],
            program=program,
            profile=manifest["profile"],
            checkpoint=request.checkpoint,
            precision=manifest["precision"],
            output=request.artifact,
            structure=(manifest.get("selection") or {}).get("structure"),
            untrained=manifest["source"].get("untrained") is True,
        ),
        manifest.get("history_length"),
        manifest.get("candidates"),
    )
    if source.checkpoint.sha256 != manifest["source"].get("checkpoint_sha256"):
        raise BadInputError(f"{source.checkpoint.folder} is not the checkpoint of this artifact; give it: --checkpoint")
    return source


def _network(manifest: Document) -> Document | None:
    """Return the program's exchange with the other side, or None where it has none."""
    from exporter.measure import figures

    exchange = manifest.get("exchange") or {"up": [], "down": []}
    if not exchange["up"] and not exchange["down"]:
        return None
    tensors = [*manifest["inputs"], *manifest["outputs"], *(manifest.get("external") or {}).get("tensors", ())]
    sizes = {row["name"]: 4 * math.prod(row["shape"]) for row in tensors}  # int32 and float32 alone cross the border
    up, down = ({name: sizes[name] for name in exchange[way]} for way in ("up", "down"))
    return figures.network(up, down, manifest.get("links") or [], manifest["latency"]["p50_us"])
