"""From a checkpoint to verified artifacts: the only file that knows every part, and the only one that knows the models.

The command line imports this module when it starts, so what is slow to import is imported where it is used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from exporter.core.errors import ArtifactError, CheckpointError, LoweringError, UnknownNameError
from exporter.core.types import Arrays, Captured, Precision, TensorSpec
from exporter.targets import TARGETS
from models.zoo import MODELS, load_spec

if TYPE_CHECKING:
    from torch import nn

    from exporter.profiles import DeviceProfile
    from models.spec import ProgramSpec

Document = dict[str, Any]
Report = Callable[[str], None]
Listing = Literal["models", "programs", "targets", "profiles"]

_WARMUP, _ITERATIONS = 20, 200
PRETRAINED = Path(__file__).resolve().parent.parent / "models" / "pretrained"
_STALE = 1e-4  # golden scores may be from another machine, whose torch rounds differently


@dataclass(frozen=True)
class ExportRequest:
    """What `cocorr-export MODEL` was asked for; None stands for the model's or the profile's own choice."""

    model: str
    target: str
    program: str | None
    profile: str
    checkpoint: Path | None
    precision: Precision | None
    output: Path


@dataclass(frozen=True)
class _Golden:
    """Inputs and torch outputs of the golden cases, [cases, *shape] each, and where the weights came from."""

    inputs: Arrays
    outputs: Arrays
    checkpoint_sha256: str


def model_names() -> list[str]:
    """Return the models that can be exported."""
    return sorted(MODELS)


def listing(what: Listing) -> list[Document]:
    """Return one row per model, program, target or shipped profile."""
    if what == "targets":
        return [
            {"target": name, "extra": target.extra, "precisions": ", ".join(target.precisions)}
            for name, target in TARGETS.items()
        ]
    if what == "profiles":
        from exporter import profiles

        return [{"profile": name, "description": profiles.load(name).description} for name in profiles.shipped()]
    specs = [load_spec(name) for name in model_names()]
    if what == "models":
        return [{"model": spec.name, "description": spec.description} for spec in specs]
    return [
        {"model": spec.name, "program": program.name, "runs on": program.runs_on, "description": program.description}
        for spec in specs
        for program in spec.programs.values()
    ]


def doctor() -> list[Document]:
    """Return one row per target: its packages, whether it is ready, and the command that installs what is missing."""
    from exporter.environment import survey

    return survey(TARGETS)


def export(request: ExportRequest, report: Report) -> list[Document]:
    """Lower, run and judge one program for one target or all; return one document per target.

    A target whose converter refuses the program has a document with `error` in place of results, so that the others
    still get theirs. Raises BadInputError before anything is written.
    """
    from exporter import profiles
    from exporter.environment import require_packages

    if request.model not in MODELS:
        raise UnknownNameError("model", request.model, MODELS)
    if request.target != "all" and request.target not in TARGETS:
        raise UnknownNameError("target", request.target, [*TARGETS, "all"])
    profile = profiles.load(request.profile)
    chosen = profile.allowed() if request.target == "all" else [request.target]
    options = {name: profile.options_for(name) for name in chosen}
    for name in chosen:
        require_packages(TARGETS[name])

    report("loading the checkpoint")
    program, module, golden = _load(request)
    report(f"capturing {request.model}/{program.name}")
    from exporter.capture import capture
    from exporter.passes.half import half

    examples = {name: array[0] for name, array in golden.inputs.items()}
    captured = capture(request.model, program.name, module, examples, program.outputs)
    precision = request.precision or profile.precision
    halved: Captured | None = None
    documents = []
    for name in chosen:
        source = captured
        if precision == "fp16" and TARGETS[name].wants_half(options[name]):
            source = halved = halved or half(captured)
        job = _Job(request, program, profile, precision, name, options[name], golden)
        try:
            documents.append(job.run(source, report))
        except LoweringError as error:
            documents.append({"model": request.model, "program": program.name, "target": name, "error": str(error)})
    return documents


@dataclass(frozen=True)
class _Job:
    """One artifact to make: everything that its manifest says about where it comes from."""

    request: ExportRequest
    program: "ProgramSpec"
    profile: "DeviceProfile"
    precision: Precision
    target: str
    options: Any
    golden: _Golden

    def run(self, captured: Captured, report: Report) -> Document:
        """Lower, judge and measure in a folder beside the artifact's place, and put it there when it is whole."""
        from exporter import judge, store
        from exporter.environment import versions

        target = TARGETS[self.target]
        place = self.request.output / self.request.model / self.program.name / self.profile.name / self.target
        with store.staging(place) as folder:
            report(f"{self.target}: lowering")
            model_file = target.lower(captured, self.precision, self.options, folder)
            store.write_golden(folder, self.golden.inputs, self.golden.outputs)
            report(f"{self.target}: running {len(next(iter(self.golden.inputs.values())))} golden cases")
            subject = judge.Subject(
                target=target,
                model_file=model_file,
                options=self.options,
                precision=self.precision,
                outputs=captured.outputs,
                ranking=self.program.ranking,
                threads=self.profile.threads,
            )
            ran = judge.run(subject, self.golden.inputs, _WARMUP, _ITERATIONS)
            manifest = {
                "schema_version": store.SCHEMA_VERSION,
                "model": self.request.model,
                "program": self.program.name,
                "target": self.target,
                "profile": self.profile.name,
                "precision": self.precision,
                "options": dict(self.options),
                "threads": self.profile.threads,
                "model_file": model_file.name,
                "files": store.list_files(folder),
                "inputs": [_row(spec) for spec in captured.inputs],
                "outputs": [_row(spec) for spec in captured.outputs],
                "ranking": self.program.ranking,
                "source": {"checkpoint_sha256": self.golden.checkpoint_sha256, "versions": versions(target)},
                "parity": judge.parity(subject, ran, self.golden.outputs),
                "flops": judge.flops(target, model_file),
                "memory": judge.memory(target, model_file, ran),
                "latency": judge.latency(ran, _WARMUP),
            }
            store.write_manifest(folder, manifest)
        return {**manifest, "artifact": str(place)}


def parity(folder: Path, report: Report) -> Document:
    """Judge an artifact again from its folder alone; return its document with the new verdict. Raises ArtifactError."""
    from exporter import judge, store

    manifest = store.read_manifest(folder)
    if manifest["target"] not in TARGETS:
        raise ArtifactError(f"{folder}: made for the target {manifest['target']!r}, which is not known here")
    report("comparing the files with the manifest")
    changed = store.changed_file(folder, manifest)
    if changed:
        return {**manifest, "artifact": str(folder), "parity": judge.unjudged("fail", changed)}
    inputs, outputs = store.read_golden(folder)
    target = TARGETS[manifest["target"]]
    specs = {side: tuple(map(_spec, manifest[side])) for side in ("inputs", "outputs")}
    subject = judge.Subject(
        target=target,
        model_file=folder / manifest["model_file"],
        options=manifest["options"],
        precision=manifest["precision"],
        outputs=specs["outputs"],
        ranking=manifest["ranking"],
        threads=manifest["threads"],
    )
    for side, arrays in (("inputs", inputs), ("outputs", outputs)):
        for spec in specs[side]:
            array = arrays.get(spec.name)
            if array is None or array.shape[1:] != spec.shape or array.dtype.name != spec.dtype:
                expected = f"{spec.dtype} {list(spec.shape)}"
                return {
                    **manifest,
                    "artifact": str(folder),
                    "parity": judge.unjudged("fail", f"golden.npz has no {spec.name!r} of {expected} per case"),
                }
    report("running the golden cases")
    ordered = {spec.name: inputs[spec.name] for spec in specs["inputs"]}
    ran = judge.run(subject, ordered, warmup=0, iterations=0)
    return {**manifest, "artifact": str(folder), "parity": judge.parity(subject, ran, outputs)}


def _load(request: ExportRequest) -> tuple["ProgramSpec", "nn.Module", _Golden]:
    """Load model and weights, and compute the golden cases with torch; raises CheckpointError, UnknownNameError."""
    import numpy as np
    import torch

    from models import checkpoint as checkpoints

    torch.set_num_threads(
        1
    )  # these models are too small to share: more threads wait for each other, and others for them
    spec = load_spec(request.model)
    name = request.program or spec.default_program
    if name not in spec.programs:
        raise UnknownNameError(f"program of {request.model}", name, spec.programs)
    program = spec.programs[name]
    try:
        checkpoint = checkpoints.read(request.checkpoint or PRETRAINED / request.model)
        model = checkpoints.build(checkpoint, spec)
    except checkpoints.CheckpointError as error:
        raise CheckpointError(str(error)) from error
    candidates = checkpoint.golden["candidate_ids"].shape[1]
    inputs = {}
    for want in program.inputs:
        shape = want.shape(checkpoint.architecture, checkpoint.history_length, candidates)
        array = checkpoint.golden[want.name]
        inputs[want.name] = array.reshape(len(array), *shape)
    module = program.build(model).eval()
    results: dict[str, list[np.ndarray]] = {output: [] for output in program.outputs}
    with torch.no_grad():
        for case in zip(*(torch.from_numpy(array) for array in inputs.values()), strict=True):
            values = module(*case)
            for output, value in zip(program.outputs, values if isinstance(values, tuple) else (values,), strict=True):
                results[output].append(value.numpy())
    outputs = {output: np.stack(values) for output, values in results.items()}
    for output, computed in outputs.items():
        golden = checkpoint.golden.get(output)
        if golden is not None and not np.allclose(golden.reshape(computed.shape), computed, rtol=0, atol=_STALE):
            raise CheckpointError(
                f"{checkpoint.folder}: golden.npz is stale: its {output!r} differ from what the weights give by up to"
                f" {np.abs(golden.reshape(computed.shape) - computed).max():.3g}; write the checkpoint again"
            )
    return program, module, _Golden(inputs, outputs, checkpoint.sha256)


def _row(spec: TensorSpec) -> Document:
    return {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}


def _spec(row: Document) -> TensorSpec:
    return TensorSpec(row["name"], tuple(row["shape"]), row["dtype"])
