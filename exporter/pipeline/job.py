"""One artifact to make: lower, run, judge and measure a program, and keep to the budgets of the device."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from exporter.core.precision import weights_of
from exporter.pipeline import budgets, lengths, places
from exporter.pipeline.explaining import explain, interface
from exporter.targets import TARGETS

if TYPE_CHECKING:
    from exporter.artifact.manifest import Manifest
    from exporter.artifact.results import Result
    from exporter.artifact.store import Golden
    from exporter.core.precision import FewerBits
    from exporter.core.sections import Exchange, External, Flops, Scheme, Tensor
    from exporter.core.types import Captured, DataFile, Lowered, TensorSpec
    from exporter.pipeline.exportable import Exportable
    from exporter.pipeline.lengths import Report
    from exporter.profiles import DeviceProfile
    from safeio.places import Facts

WARMUP, ITERATIONS = 20, 200


def place_of(output: Path, model: str, program: str, profile: "DeviceProfile", lowering: lengths.Lowering) -> Path:
    """Return the folder that an artifact will be."""
    return output / model / program / profile.name / lowering.target


@dataclass(frozen=True)
class Job:
    """One artifact to make: everything that its manifest says about where it comes from."""

    output: Path
    source: "Exportable"
    profile: "DeviceProfile"
    lowering: lengths.Lowering
    report: "Report"
    force: bool

    def check_place(self) -> None:
        """Raise OutputError where another artifact stands at the place."""
        places.check(self.place, self.facts, self.force)

    @property
    def place(self) -> Path:
        """Return the folder that the artifact will be."""
        return place_of(self.output, self.source.name, self.source.program.name, self.profile, self.lowering)

    @property
    def facts(self) -> "Facts":
        """Return what tells this artifact from others at its place."""
        return {**self.source.facts, **self.lowering.facts, "target": self.lowering.target}

    def run(self) -> "Result":
        """Make the artifact beside its place, with less while it is over budget; put it there when whole."""
        from exporter.artifact import store
        from exporter.artifact.results import Result
        from safeio.staging import empty

        source = self.source
        with store.staging(self.place) as folder:
            manifest = self._fitted(source, folder)
            while budgets.over(manifest.budgets or ()) and (smaller := source.smaller()) is not None:
                step, source = smaller
                why = budgets.explain(manifest.budgets or ())
                self.report(f"{self.lowering.target}: {why}; {step}")
                empty(folder)
                manifest = self._fitted(source, folder)
            took = None if manifest.latency is None else manifest.latency.p50_us
            manifest = explain(folder, replace(manifest, selection=source.selected(self.source, took)))
            store.write_manifest(folder, manifest)
            self.check_place()  # another command may have been quicker, with another artifact
        return Result(manifest, str(self.place))

    def _fitted(self, source: "Exportable", folder: Path) -> "Manifest":
        """Make the artifact of `source`, in the scheme that was asked for or the mildest that fits."""
        from exporter.core.sections import PassedOver
        from safeio.staging import empty

        if not self.lowering.is_mildest:
            return self._less_folded(source, folder)
        passed_over: list[PassedOver] = []
        for lowering in self.lowering.milder_first(source):
            if passed_over:
                last = passed_over[-1]
                self.report(f"{lowering.target}: {last.precision} is {last.reason}; trying {lowering.precision}")
                empty(folder)
            source = source.storing(weights_of(lowering.precision))
            manifest = replace(self, lowering=lowering)._less_folded(source, folder)
            too_large, failed = budgets.is_too_large(manifest), manifest.parity.verdict == "fail"
            if not too_large and not (failed and passed_over):  # what fails in fp32 is not the scheme's fault
                break
            why = budgets.explain(manifest.budgets or ()) if too_large else "failing its parity"
            passed_over.append(PassedOver(lowering.precision, why))
        else:
            passed_over.pop()  # the last there is, which stays
        return replace(manifest, passed_over=tuple(passed_over))

    def _less_folded(self, source: "Exportable", folder: Path) -> "Manifest":
        """Make the artifact of `source` in `folder`, with less folded while it is too large; return its manifest."""
        from exporter.core.types import Folding
        from safeio.staging import empty

        job, manifest = self, self._make(source, folder)
        while (fold := budgets.milder_fold(manifest)) is not None:
            why = budgets.explain(manifest.budgets or ())
            self.report(f"{self.lowering.target}: {why}; folding rows with {fold}")
            empty(folder)
            job = replace(self, lowering=replace(self.lowering, fold=fold))
            made = job._make(source, folder)
            manifest = replace(made, fold=Folding(self.lowering.fold, fold))
        return manifest

    def _make(self, source: "Exportable", folder: Path) -> "Manifest":
        """Lower, judge and measure the program of `source` in `folder`; return its manifest."""
        from exporter.artifact import store
        from exporter.core.sections import Parity
        from exporter.targets import reading
        from safeio import catalogue
        from safeio.files import write_new

        target = TARGETS[self.lowering.target]
        self.lowering.twin(source)  # where nothing is to be stored otherwise, nothing is lowered
        self.report(f"{target.name}: lowering")
        captured, model_file, lowering = lengths.lower(source, self.lowering, folder, self.report)
        lowered = reading.read(target, model_file)
        data = None if source.external is None else lowered.data
        _write_weights(source, data, folder)
        strange = _strange_weights(source, data, folder)
        golden, scheme = _golden(source, lowering)
        store.write_golden(folder, golden)
        if source.items_file is not None:
            write_new(folder / catalogue.FILE, source.items_file)
        manifest = self._judged(source, captured, lowered, model_file, data, golden, scheme)
        return manifest if strange is None else replace(manifest, parity=Parity(verdict="fail", reason=strange))

    def _judged(
        self,
        source: "Exportable",
        captured: "Captured",
        lowered: "Lowered",
        model_file: Path,
        data: "DataFile | None",
        golden: "Golden",
        scheme: "Scheme | None",
    ) -> "Manifest":
        """Run the golden cases of what was lowered, judge and measure it; return its manifest."""
        from exporter.artifact import store
        from exporter.artifact.manifest import Manifest
        from exporter.connections import connect, running
        from exporter.core.sections import Link
        from exporter.core.types import Folding
        from exporter.measure import figures
        from exporter.pipeline.subjects import in_one_call, parity_of
        from exporter.pipeline.telling import tell_device
        from exporter.targets.environment import versions

        program, profile = source.program, self.profile
        target, precision = TARGETS[self.lowering.target], self.lowering.precision
        self.report(f"{target.name}: running {len(next(iter(source.inputs.values())))} golden cases")
        subject = running.Subject(
            target=target,
            model_file=model_file,
            options=self.lowering.options,
            outputs=captured.outputs,
            threads=profile.threads,
            connection=connect(*profile.connection.chosen()),
            data=data,
            label=f"{source.name}/{program.name}",
        )
        ran = running.run(subject, source.inputs, WARMUP, ITERATIONS)
        parity = parity_of(ran, golden, program.ranking, precision, program.ranked, scheme, source.origin.untrained)
        if captured.any_batch:
            parity = in_one_call(parity, subject, golden, program.ranking, precision, program.ranked)
        latency = figures.latency(ran.result, ran.reason, WARMUP)
        tell_device(subject.connection, parity, latency)
        in_file = {} if data is None else data.tensors
        inputs = tuple(_tensor(spec) for spec in source.specs if spec.name not in in_file)
        manifest = Manifest(
            model=source.name,
            program=program.name,
            target=target.name,
            profile=profile.name,
            precision=precision,
            options=dict(self.lowering.options),
            threads=profile.threads,
            model_file=model_file.name,
            files=store.list_files(model_file.parent),
            size_bytes=store.shipped_bytes(model_file.parent),
            parameters=source.parameters,
            inputs=inputs,
            outputs=tuple(map(_tensor, captured.outputs)),
            ranking=program.ranking,
            ranked=program.ranked,
            state=dict(program.state),
            external=_external(source, data),
            history_length=source.history_length,
            candidates=source.candidates,
            batch=source.batch if source.batch > 1 else None,
            any_batch=True if captured.any_batch else None,
            drawn=source.drawn,
            exchange=_exchange(source),
            passes=captured.passes,
            fold=Folding(self.lowering.fold, self.lowering.fold),
            scheme=scheme,
            links=tuple(Link(**link.model_dump()) for link in profile.links),
            interface=interface(source, lowered, inputs),
            source=replace(source.origin, versions=versions(target)),
            parity=parity,
            flops=self._flops(source, lowered),
            memory=figures.memory(lowered, [spec.name for spec in captured.inputs], ran.result, ran.reason),
            latency=latency,
        )
        return replace(manifest, budgets=budgets.section(profile.stated_budgets(), manifest))

    def _flops(self, source: "Exportable", lowered: "Lowered") -> "Flops":
        """Count what was lowered; with a budget for it also per click, from a second lowering: for half the history.

        For twice of it, where a program takes no half.
        """
        from exporter.core.calling import clicks_per_call
        from exporter.core.sections import Growth, Latency, Memory
        from exporter.measure import figures, flops

        counted = flops.count(lowered.operations)
        length = source.history_length
        reason = None
        if length is None:
            reason = lengths.ONE_LENGTH
        elif source.program.state or "flops_per_token" not in self.profile.stated_budgets():
            reason = "lowering for other lengths takes its time: see `cocorr-export profile`, or state a budget for it"
        elif length < 2 or not source.reads_history:
            reason = lengths.NO_HISTORY
        per_click = Growth(reason=reason)
        if length is not None and reason is None:
            other = length // 2 if source.takes_history(length // 2) else 2 * length
            points = lengths.points(source, self.lowering, (other,), None, self.profile.threads, self.report)
            per_click = figures.growth([*points, figures.point(length, counted, Memory(), Latency())])
        clicks = clicks_per_call(source.program.state, source.specs)
        return figures.flops(lowered, counted, figures.per_token(clicks, counted, per_click))


def _golden(source: "Exportable", lowering: lengths.Lowering) -> "tuple[Golden, Scheme | None]":
    """Return the golden cases that what was lowered is held to, and how its tables are stored, if otherwise."""
    from exporter.artifact.store import Golden
    from exporter.core.precision import body_of, tables_of
    from exporter.core.sections import Scheme

    twin = lowering.twin(source)
    if twin is None:
        return Golden(source.inputs, source.outputs), None
    precision = lowering.precision
    scheme = Scheme(cast("FewerBits", tables_of(precision)), body_of(precision), twin.stored)
    further_fp32, further_outputs = source.further_outputs(twin)
    golden = Golden(source.inputs, twin.outputs, source.outputs, source.positive, further_outputs, further_fp32)
    return golden, scheme


def _write_weights(source: "Exportable", data: "DataFile | None", folder: Path) -> None:
    """Write external weights beside the program as a weights package, unless the target wrote them into a data file."""
    from exporter.artifact import weights
    from safeio.files import write_new

    if source.package is not None and data is None:
        write_new(folder / weights.FILE, source.package.to_bytes())


def _strange_weights(source: "Exportable", data: "DataFile | None", folder: Path) -> str | None:
    """Say which weights that lie beside the program are not those with which torch computed; None where all are."""
    import numpy as np

    from exporter.artifact import weights

    package = source.package
    if package is None:
        return None
    shapes = {name: tensor.shape for name, tensor in package.tensors.items()}
    beside = weights.beside(folder, data, shapes, package.metadata)
    dtypes = {} if data is None else {name: dtype for name, (_, dtype) in data.tensors.items()}
    for name, tensor in package.tensors.items():
        if not np.array_equal(beside[name], tensor.astype(dtypes.get(name, "float32")).astype(np.float32)):
            return f"the weights {name!r} that ship are not those with which torch computed"
    return None


def _tensor(spec: "TensorSpec") -> "Tensor":
    from exporter.core.sections import Tensor

    return Tensor(spec.name, spec.shape, spec.dtype)  # type: ignore[arg-type]  # int32 and float32 alone cross a border


def _external(source: "Exportable", data: "DataFile | None") -> "External | None":
    """Return what the manifest says of weights outside, or None where there are none."""
    from exporter.core.sections import External, WeightsFile

    if source.external is None:
        return None
    return External(
        metadata=dict(source.external.metadata),
        tensors=tuple(_tensor(spec) for spec in source.specs if spec.name in source.external.tensors),
        data_file=None if data is None else WeightsFile(data.name, dict(data.tensors)),  # type: ignore[arg-type]
        stored=source.weights,
    )


def _exchange(source: "Exportable") -> "Exchange":
    """Return the tensors that cross the network with each call, by their way: up to the cloud, down to the device."""
    from exporter.core.sections import Exchange

    program = source.program
    external = source.external.tensors if source.external is not None else ()
    here, there = tuple(program.sends), (*program.receives, *external)
    return Exchange(here, there) if program.runs_on == "device" else Exchange(there, here)
