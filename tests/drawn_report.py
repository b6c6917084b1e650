"""A report that has everything a report can show, its figures drawn and each of its names what `name` says."""

from dataclasses import replace

import numpy as np

from exporter.artifact.manifest import Manifest
from exporter.artifact.results import Checked, Report
from exporter.core.checks import Evidence, LimitCheck
from exporter.core.explanation import Located, OffValue
from exporter.core.sections import (
    Budget,
    Flops,
    Growth,
    GrowthLine,
    GrowthLines,
    GrowthPoint,
    Latency,
    Link,
    Memory,
    Network,
    Parity,
    Source,
    Tensor,
    Tolerance,
    Transfer,
    Uncounted,
)


def drawn_report(name: str) -> Report:
    """Return a report with an artifact that is as it was, and one for each way in which one is not."""
    fine = Checked(
        name=f"{name} 1", place=name, manifest=manifest(name), limits=limits(name)[:2], evidence=evidence(name), line=2
    )
    unverified = replace(manifest(name).parity, verdict="unverified", reason=name)
    return Report(
        artifacts=(
            fine,
            replace(fine, name=f"{name} 2", limits=limits(name), is_cached=True, evidence=Evidence(reason=name)),
            replace(fine, name=f"{name} 3", manifest=replace(manifest(name), parity=unverified), limits=()),
            Checked(name=f"{name} 4", place=None, manifest=None, error=name, line=9),
        ),
        config=name,
        lock=name,
        versions={name: (None, name), "torch": ("2.13.0", "2.13.1")},
        gone=(name,),
    )


def limits(name: str) -> tuple[LimitCheck, ...]:
    kept = LimitCheck(
        figure="size",
        unit="B",
        limit="+2%",
        line=3,
        baseline=3_200_000,
        value=3_200_100,
        change=100 / 3_200_000,
        outcome="kept",
    )
    return (
        kept,
        replace(kept, figure="flops", unit="FLOPs", limit="0", baseline=1_127_000, value=900, change=-0.9992),
        replace(kept, figure="memory", baseline=50_000, value=70_000, change=0.4, outcome="broken", reason=name),
        replace(kept, figure="checkpoint", unit="", baseline=name, value=name, change=None, outcome="broken"),
        replace(kept, figure="latency", value=None, change=None, outcome="unknown", reason=name, line=None),
    )


def manifest(name: str) -> Manifest:
    line = GrowthLine(6.0, 10.0, 1.0, 0.0, (6.0, 6.0))
    points = tuple(GrowthPoint(n, 10 + 6 * n, 5 + 3 * n, 1000 * n, None, 50.0 + n, None) for n in (10, 20, 40))
    return Manifest(
        model=name,
        program=name,
        target=name,
        profile=name,
        precision="fp32",
        options={},
        threads=1,
        model_file="model.onnx",
        files=(),
        size_bytes=3_200_100,
        parameters=800_000,
        inputs=(Tensor("item_ids", (1, 10), "int32"),),
        outputs=(Tensor("scores", (1, 100), "float32"),),
        ranking="scores",
        history_length=10,
        candidates=100,
        links=(Link(name, 1e6, 1e7, 50.0),),
        source=Source(versions={name: name}),
        parity=Parity(
            verdict="pass",
            reason=name,
            executed_on=name,
            cases=256,
            max_abs_error=3.8e-6,
            max_rel_error=1.5e-5,
            top10_overlap=1.0,
            kendall_tau=1.0,
            flip_margin=2.6e-5,
            twice_max_error=7.6e-6,
            could_flip=0,
            tolerance=Tolerance({"scores": 1e-4}, 1.0),
        ),
        flops=Flops(
            unit=name,
            total=1_127_000,
            macs=526_016,
            moved_bytes=4_000_000,
            uncounted=(Uncounted(name, 2),),
            by_kind={name: 1_127_000},
            delegates=(),
            per_token=6.0,
            per_token_method=name,
            per_token_reason=None,
        ),
        memory=Memory(
            constant_bytes=3_220_000,
            embedding_bytes=3_100_000,
            body_bytes=100_000,
            head_bytes=20_000,
            planned_activation_bytes=51_460,
            plan_method=name,
            reason=name,
        ),
        latency=Latency(
            connection=name,
            threads=1,
            warmup=100,
            iterations=1000,
            load_ms=3.0,
            first_us=90.0,
            p50_us=40.0,
            p90_us=45.0,
            p99_us=60.0,
            conditions={name: name},
        ),
        budgets=(Budget("size_bytes", 4e6, 3.2e6, True, None),),
        growth=Growth(method=name, points=points, lines=GrowthLines(line, line, line, None, line)),
        network=Network(
            method=name,
            up={name: 40},
            down={name: 400},
            up_bytes=40,
            down_bytes=400,
            device_us=40.0,
            links=(Transfer(name, 0.3, 0.3, 50.0, 50.6, 1265.0),),
        ),
    )


def evidence(name: str) -> Evidence:
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, 500)
    value = OffValue(
        module=name,
        operation="linear",
        node=name,
        own_name=name,
        own_operation=name,
        matched_by="name",
        shape=(1, 10),
        max_abs_error=1e-5,
        relative_rms=1e-6,
        bound=1e-4,
        not_finite=0,
        is_beyond=False,
        growth=1.0,
    )
    return Evidence(
        torch=tuple(scores),
        artifact=tuple(scores + rng.normal(0, 1e-6, 500)),
        sampling=name,
        samples_us=tuple(40 + rng.gamma(2, 3, 400)),
        executed_on=name,
        located=Located(method=name, executed_on=name, values=(value, replace(value, is_beyond=True)), first_beyond=1),
    )
