"""`cocorr-export serve`: the program that a model has in the cloud, verified, loaded and put on the network."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.core.errors import ArtifactError, BadInputError, RuntimeFailureError, RuntimeMissingError
from exporter.pipeline.lengths import Report
from exporter.pipeline.listing import require_model
from exporter.pipeline.loading import started
from exporter.targets import TARGETS

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from exporter.artifact.manifest import Manifest
    from exporter.artifact.store import Opened
    from exporter.core.types import Arrays
    from exporter.serve import batching
    from exporter.serve.bodies import Bodies
    from models.spec import Answer as Writer
    from models.spec import ProgramSpec, Served

_EXTRA = "serve"


@dataclass(frozen=True)
class ServeRequest:
    """What is to be served, and to whom.

    The program of `artifact`, or one that is made of `checkpoint`; None stands for the shipped one. `stored` is what
    answers are stored in where a request does not say; None: as the model's program has it. `port` 0 is any.
    """

    model: str
    checkpoint: Path | None = None
    artifact: Path | None = None
    bind: str = "127.0.0.1"
    port: int = 8000
    stored: str | None = None
    batch: int = 32
    queue: int = 256
    deadline_s: float = 10.0


def serve(request: ServeRequest, report: Report, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `announce` is told the address once it is open.

    Raises BadInputError before anything is made, and RuntimeFailureError or RuntimeMissingError for a program that
    fails its golden cases or cannot run: nothing is served that was not verified.
    """
    from exporter.core.extras import require

    for module in ("uvicorn", "starlette", "prometheus_client"):
        require(module, _EXTRA)
    from exporter.serve import server
    from exporter.serve.app import Service, application
    from exporter.serve.limits import Limits
    from exporter.serve.metrics import Metrics

    program, served = _program(request)
    with server.bind(request.bind, request.port) as listener:
        loaded = _loaded(request, program, served, report)
        bodies = _bodies(served, loaded.manifest, request.stored)
        path = f"/v1/{served.path}"
        limits = Limits(request.batch, request.queue, request.deadline_s, bodies.most_bytes)
        service = Service(path, bodies, loaded.compute, loaded.facts)

        def app(of: server.Server) -> "ASGIApp":
            metrics = Metrics(service.model, lambda: of.open_connections)
            return application(service, limits, metrics, lambda: of.is_leaving, report)

        server.run(server.Server(app, limits, lambda url: announce(f"{url}{path}")), listener)


def _program(request: ServeRequest) -> "tuple[ProgramSpec, Served]":
    """Return the program of a model that is served, and how; raises BadInputError."""
    from models.zoo import load_spec

    require_model(request.model)
    if request.artifact is not None and request.checkpoint is not None:
        raise BadInputError("--artifact has its weights, and --checkpoint names others; leave one of the two out")
    programs = load_spec(request.model).programs.values()
    found = next(((one, one.served) for one in programs if one.served is not None), None)
    if found is None:
        raise BadInputError(f"{request.model} has no program that a cloud serves to devices; serve scn or ofa")
    stored = found[1].stored
    if request.stored is not None and request.stored not in stored:
        having = f"one of {', '.join(stored)}" if stored else "left out: its answers have one form"
        raise BadInputError(f"--stored {request.stored} is nothing that {request.model} has; it is {having}")
    return found


@dataclass(frozen=True)
class Loaded:
    """A verified artifact in this process: `call` gives outputs [users, ...] for inputs [users, ...], by name."""

    manifest: "Manifest"
    call: "Callable[[Arrays], Arrays]"
    write: "Writer"
    runtime: str

    @property
    def facts(self) -> dict[str, str]:
        """Return what /metrics says of the model."""
        made = self.manifest
        return {
            "model": made.model,
            "program": made.program,
            "target": made.target,
            "precision": made.precision,
            "checkpoint_sha256": made.source.checkpoint_sha256 or "",
            "runtime": self.runtime,
            "parity": made.parity.verdict,
        }

    def compute(self, users: "Sequence[batching.User]") -> "list[batching.Answer]":
        """Answer users with one call."""
        import numpy as np

        from exporter.serve.batching import UnanswerableError

        outputs = self.call({name: np.stack([one.inputs[name] for one in users]) for name in users[0].inputs})
        answers: list[bytes | UnanswerableError] = []
        for at, user in enumerate(users):
            own = {name: array[at] for name, array in outputs.items()}
            try:
                answers.append(self.write(user.inputs, own, user.stored))
            except ValueError:
                answers.append(UnanswerableError("these numbers give none that are finite; send what the device has"))
        return answers


def _loaded(request: ServeRequest, program: "ProgramSpec", served: "Served", report: Report) -> Loaded:
    """Make or open the artifact, verify it, and load it; its files are not needed any more then."""
    from exporter.artifact import store
    from safeio.staging import scratch

    with ExitStack() as stack:
        if request.artifact is None:
            folder, manifest = _made(request, program, stack.enter_context(scratch("serve")), report)
        else:
            opened = _opened(request.artifact, request, program, report)
            folder, manifest = opened.folder, opened.manifest
        _require_pass(manifest)
        report("loading the program")
        loaded = _load(folder, manifest, served)
        if request.artifact is not None:
            store.require_same(opened)
        _try(loaded, folder)
    return loaded


def _target() -> str:
    """Return the target whose files take any number of users."""
    return next(name for name, target in TARGETS.items() if target.any_batch)


def _made(request: ServeRequest, program: "ProgramSpec", folder: Path, report: Report) -> "tuple[Path, Manifest]":
    from exporter.artifact.results import Refusal
    from exporter.pipeline.export import export
    from exporter.pipeline.request import ExportRequest, ProgramChoice

    choice = ProgramChoice(request.model, program.name, request.checkpoint)
    (made,) = export(ExportRequest(choice, _target(), folder), report)
    if isinstance(made, Refusal):
        raise RuntimeFailureError(made.error)
    return Path(made.place), made.manifest


def _opened(place: Path, request: ServeRequest, program: "ProgramSpec", report: Report) -> "Opened":
    """Open an artifact from anywhere and judge it by its own golden cases; raises ArtifactError."""
    from dataclasses import replace

    from exporter.pipeline.opening import open_known, require_unchanged
    from exporter.pipeline.parity import judge_golden
    from models.zoo import load_spec

    opened = open_known(place)
    require_unchanged(opened)
    made = opened.manifest
    wanted = (load_spec(request.model).name, program.name, _target())
    if (made.model, made.program, made.target) != wanted or made.any_batch is None:
        users = "" if made.any_batch else ", which takes one user a call"
        raise ArtifactError(
            f"{place}: {made.model}/{made.program} for {made.target}{users}; export {wanted[0]} with --program"
            f" {wanted[1]} --target {wanted[2]}"
        )
    if [(tensor.name, tensor.shape) for tensor in made.inputs] != _sizes(program, made):
        raise ArtifactError(f"{place}: its inputs are not those of its architecture; export it again")
    return replace(opened, manifest=replace(made, parity=judge_golden(opened.folder, made, report)))


def _sizes(program: "ProgramSpec", manifest: "Manifest") -> list[tuple[str, tuple[int, ...]]] | None:
    """Return the inputs that a program has for the architecture in a manifest; None where that is none."""
    history, candidates = manifest.history_length or 1, manifest.candidates or 1
    try:
        return [(one.name, one.sized(manifest.source.architecture, history, candidates)) for one in program.inputs]
    except (LookupError, ValueError, TypeError):
        return None


def _require_pass(manifest: "Manifest") -> None:
    verdict, reason = manifest.parity.verdict, manifest.parity.reason
    if verdict != "pass":
        kind = RuntimeFailureError if verdict == "fail" else RuntimeMissingError
        raise kind(f"{manifest.model}/{manifest.program} is not served: its golden cases are {verdict}, {reason}")


def _load(folder: Path, manifest: "Manifest", served: "Served") -> Loaded:
    """Load an artifact with its target's own loader, as the agent does."""
    from exporter.connections.agent.running import place_of
    from exporter.connections.agent.signature import output_order

    runtime = started(TARGETS[manifest.target], manifest)
    model = runtime.load(folder / manifest.model_file, None)
    names = [tensor.name for tensor in manifest.outputs]
    order = output_order(model.outputs, [{"name": name} for name in names])

    def call(inputs: "Arrays") -> "Arrays":
        results = model.collect(model.run(model.prepare(dict(inputs))))
        return {name: results[at] for name, at in zip(names, order, strict=True)}

    try:
        write = served.answers(manifest.source.architecture, manifest.source.checkpoint_sha256)
    except (ValueError, LookupError) as error:
        raise ArtifactError(f"{folder}: its architecture is none of {manifest.model}: {error}") from error
    return Loaded(manifest, call, write, place_of(runtime))


def _try(loaded: Loaded, folder: Path) -> None:
    """Answer the first golden user twice over, so that what cannot be written ends this here; raises ArtifactError."""
    from exporter.artifact import store
    from exporter.serve.batching import UnanswerableError, User

    golden = store.read_golden(folder)
    user = User({name: array[0, 0] for name, array in golden.inputs.items()})
    try:
        answers = loaded.compute([user, user])
    except Exception as error:  # a runtime raises what it likes
        raise ArtifactError(f"{folder}: two users in one call do not run: {error}") from error
    if any(isinstance(answer, UnanswerableError) for answer in answers):
        raise ArtifactError(f"{folder}: its outputs are not those of its architecture; export it again")


def _bodies(served: "Served", manifest: "Manifest", stored: str | None) -> "Bodies":
    """Return what requests hold."""
    from exporter.serve.bodies import Bodies, Taken

    first = [stored] if stored is not None else []
    return Bodies(
        [Taken(tensor.name, tensor.shape[1:], tensor.name in served.in_digits) for tensor in manifest.inputs],
        [*first, *(one for one in served.stored if one != stored)],
    )
