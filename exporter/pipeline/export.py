"""From a checkpoint to verified artifacts: lower, run, judge and measure, and keep to the budgets of the device."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.core.errors import LoweringError, UnknownNameError
from exporter.core.types import Precision, TensorSpec
from exporter.pipeline import budgets, growth
from exporter.pipeline.request import ExportRequest
from exporter.targets import TARGETS
from models.zoo import MODELS

if TYPE_CHECKING:
    from exporter.pipeline.source import Source
    from exporter.profiles import DeviceProfile

Document = dict[str, Any]
Report = Callable[[str], None]

_WARMUP, _ITERATIONS = 20, 200


def export(request: ExportRequest, report: Report) -> list[Document]:
    """Lower, run and judge one program for one target or all; return one document per target.

    A target whose converter refuses the program has a document with `error` in place of results, so that the others
    still get theirs. Raises BadInputError before anything is written.
    """
    from exporter import profiles
    from exporter.artifact import store
    from exporter.connections import connect
    from exporter.targets.environment import require_packages

    if request.model not in MODELS:
        raise UnknownNameError("model", request.model, MODELS)
    if request.target != "all" and request.target not in TARGETS:
        raise UnknownNameError("target", request.target, [*TARGETS, "all"])
    profile = profiles.load(request.profile)
    chosen = profile.allowed() if request.target == "all" else [request.target]
    options = {name: profile.options_for(name) for name in chosen}
    for name in chosen:
        require_packages(TARGETS[name])

    connect(*profile.connection.chosen()).check()
    store.check_output(request.output)

    report("loading the checkpoint")
    from exporter.pipeline import source as sources

    source = sources.load(request, profile.history_length, profile.candidates)
    report(f"capturing {request.model}/{source.program.name}")
    precision = request.precision or profile.precision
    jobs = [_Job(request.output, source, profile, precision, name, options[name], report) for name in chosen]
    for job in jobs:
        store.check_place(job.place)
    documents = []
    for job in jobs:
        try:
            documents.append(job.run())
        except LoweringError as error:
            documents.append(
                {"model": request.model, "program": source.program.name, "target": job.target, "error": str(error)}
            )
    return documents


@dataclass(frozen=True)
class _Job:
    """One artifact to make: everything that its manifest says about where it comes from."""

    output: Path
    source: "Source"
    profile: "DeviceProfile"
    precision: Precision
    target: str
    options: Mapping[str, Any]
    report: Report

    @property
    def place(self) -> Path:
        """Return the folder that the artifact will be."""
        return self.output / self.source.checkpoint.model / self.source.program.name / self.profile.name / self.target

    def run(self) -> Document:
        """Make the artifact beside its place, with fewer blocks while it is over budget; put it there when whole."""
        from exporter.artifact import store
        from exporter.parity import section

        source = self.source
        program = source.program
        with store.staging(self.place) as folder:
            manifest = self._make(source, folder)
            left_out: list[int] = []
            while budgets.over(manifest["budgets"]) and (smaller := budgets.leave_out(source.selection)) is not None:
                block, selection = smaller
                self.report(f"{self.target}: {budgets.explain(manifest['budgets'])}; leaving out block {block}")
                left_out.append(block)
                source = source.of(selection)
                shutil.rmtree(folder)
                folder.mkdir()
                manifest = self._make(source, folder)
            if source.selection is not None:
                agreement = None
                if left_out and program.ranking is not None:
                    scores = [one.scores_with_own_weights(self.source.inputs) for one in (self.source, source)]
                    agreement = section.agreement(program.ranking, *scores)
                manifest["selection"] = {
                    "structure": _digits(source.selection.structure),
                    "chosen": _digits(self.source.selection.structure) if self.source.selection else None,
                    "logits": list(source.selection.logits),
                    "left_out": left_out,
                    "agreement_with_chosen": agreement,
                }
            store.write_manifest(folder, manifest)
        return {**manifest, "artifact": str(self.place)}

    @property
    def _lowering(self) -> growth.Lowering:
        return growth.Lowering(self.target, self.precision, self.options)

    def _make(self, source: "Source", folder: Path) -> Document:
        """Lower, judge and measure the program of `source` in `folder`; return its manifest."""
        from exporter.artifact import store, weights
        from exporter.artifact.manifest import SCHEMA_VERSION
        from exporter.connections import connect, running
        from exporter.measure import figures
        from exporter.pipeline.subjects import parity_of
        from exporter.targets import reading
        from exporter.targets.environment import versions
        from safeio.files import write_new

        target, program = TARGETS[self.target], source.program
        captured = self._lowering.captured(source)
        self.report(f"{self.target}: lowering")
        model_file = target.lower(captured, self.precision, self.options, folder)
        lowered = reading.read(target, model_file)
        data = None if source.external is None else lowered.data
        if source.external is not None and data is None:  # weights that are inputs come from the package itself
            write_new(folder / weights.FILE, weights.to_bytes(source.external))
        store.write_golden(folder, source.inputs, source.outputs)
        self.report(f"{self.target}: running {len(next(iter(source.inputs.values())))} golden cases")
        subject = running.Subject(
            target=target,
            model_file=model_file,
            options=self.options,
            outputs=captured.outputs,
            threads=self.profile.threads,
            data=data,
            connection=connect(*self.profile.connection.chosen()),
        )
        ran = running.run(subject, source.inputs, _WARMUP, _ITERATIONS)
        in_file = {} if data is None else data.tensors
        counted = figures.flops(lowered)
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "model": source.checkpoint.model,
            "program": program.name,
            "target": self.target,
            "profile": self.profile.name,
            "precision": self.precision,
            "options": dict(self.options),
            "threads": self.profile.threads,
            "model_file": model_file.name,
            "files": store.list_files(folder),
            "size_bytes": store.shipped_bytes(folder),
            "parameters": source.parameters,
            "inputs": [row(spec) for spec in source.specs if spec.name not in in_file],
            "outputs": [row(spec) for spec in captured.outputs],
            "ranking": program.ranking,
            "state": dict(program.state),
            "external": None
            if source.external is None
            else {
                "metadata": dict(source.external.metadata),
                "tensors": [row(spec) for spec in source.specs if spec.name in source.external.tensors],
                "data_file": None if data is None else {"name": data.name, "tensors": dict(data.tensors)},
            },
            "history_length": source.checkpoint.history_length,
            "candidates": source.checkpoint.golden["candidate_ids"].shape[1],
            "exchange": _exchange(source),
            "links": [link.model_dump() for link in self.profile.links],
            "source": {
                "checkpoint_sha256": source.checkpoint.sha256,
                "untrained": source.checkpoint.sha256 is None,
                "architecture": dict(source.checkpoint.architecture),
                "versions": versions(target),
            },
            "parity": parity_of(ran, source.outputs, program.ranking, self.precision),
            "flops": {**counted, **figures.per_token(program.state, counted["total"], self._growth(source, counted))},
            "memory": figures.memory(lowered, [spec.name for spec in captured.inputs], ran.result, ran.reason),
            "latency": figures.latency(ran.result, ran.reason, _WARMUP),
        }
        manifest["budgets"] = budgets.section(self.profile.stated_budgets(), manifest)
        return manifest

    def _growth(self, source: "Source", counted: Document) -> Document:
        """Return the line through the FLOPs of a second lowering, for half the history; null lines and a reason."""
        from exporter.measure import figures

        known = source.checkpoint.history_length
        shorter = known // 2
        reason = None
        if "flops_per_token" not in self.profile.stated_budgets():
            reason = "lowering for other lengths takes its time: see `cocorr-export profile`, or state a budget for it"
        elif shorter < 1 or not source.reads_history:
            reason = "no input of this program has the length of the history"
        if reason is not None:
            return {"points": [], "lines": None, "reason": reason}
        half = growth.points(source, self._lowering, (shorter,), None, self.profile.threads, self.report)
        return figures.growth([*half, figures.point(known, counted, {}, {})])


def row(spec: TensorSpec) -> Document:
    """Return an input or output as a manifest has it."""
    return {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}


def _exchange(source: "Source") -> Document:
    """Return the tensors that cross the network with each call, by their way: up to the cloud, down to the device."""
    program = source.program
    external = source.external.tensors if source.external is not None else ()
    here, there = list(program.sends), [*program.receives, *external]
    return {"up": here, "down": there} if program.runs_on == "device" else {"up": there, "down": here}


def _digits(structure: tuple[int, ...]) -> str:
    return "".join(map(str, structure))
