"""Run every case of an artifact once and case 0 again for the time, or two artifacts in turn."""

from __future__ import annotations

import gc
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from exporter.connections.agent.conditions import conditions, forget_peak, hottest, pin, resident_bytes
from exporter.connections.agent.contract import Loader, Model, RefusalError, Runtime
from exporter.connections.agent.folder import DataFile, read_inputs
from exporter.connections.agent.marker import instrument, run_between_markers
from exporter.connections.agent.signature import check_inputs, keep_case, output_order


@dataclass
class Artifact:
    """One artifact of a request: inputs and the weights of its cases by name, [cases, *shape], and its model if loaded.

    Loading a second time frees the first model only when the second is there.
    """

    folder: Path
    model_file: Path
    data: DataFile | None
    inputs: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    cases: int
    model: Model = field(init=False)

    @classmethod
    def read(cls, folder: Path, entry: dict[str, Any], file: str) -> Artifact:
        """Return the artifact that an entry of the request describes, with the inputs in `file`."""
        arrays, cases = read_inputs(folder / file, entry)
        data = DataFile.of(folder, entry)
        outside = data.tensors if data is not None else {}
        weights = {name: arrays.pop(name) for name in list(arrays) if name in outside}
        return cls(folder, folder / entry["model_file"], data, arrays, weights, cases)

    def load(self, runtime: Runtime, case: int | None = None) -> float:
        """Load the model, with the weights of `case` in its data file or that as it is; return the milliseconds."""
        start = time.perf_counter_ns()
        data = None if self.data is None else self.data.path
        if self.data is not None and case is not None:
            data = self.data.write({name: array[case] for name, array in self.weights.items()}, self.folder)
        self.model = runtime.load(self.model_file, data)
        return (time.perf_counter_ns() - start) / 1e6

    def feed(self, case: int) -> Any:
        """Return the inputs of a case in the runtime's own containers."""
        return self.model.prepare({name: array[case] for name, array in self.inputs.items()})


def start_runtime(
    loaders: Mapping[str, Loader], target: str, threads: int, options: dict[str, Any] | None = None
) -> Runtime:
    """Import the runtime of a target; a package that is not installed becomes a refusal that names it.

    `options` are the target's.
    """
    if target not in loaders:
        raise RefusalError("request", f"unknown target {target!r}; this agent knows {sorted(loaders)}")
    loader = loaders[target]
    gc.disable()  # looks for garbage in what is imported are half a second of torch's import, and find nothing
    try:
        return loader.start(threads, options or {})
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in loader.packages:
            raise RefusalError("missing_package", loader.distribution) from error
        raise
    finally:
        gc.freeze()
        gc.enable()


def execute(
    folder: Path, request: dict[str, Any], loaders: Mapping[str, Loader]
) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Run every case once and case 0 again for the time; the response and the outputs, each [cases, *shape]."""
    artifact = Artifact.read(folder, request, "inputs.npz")
    expected = request["outputs"]
    # Written to now, so that their pages are in the baseline and not in the artifact's peak.
    outputs = [np.full((artifact.cases, *entry["shape"]), 0, entry["dtype"]) for entry in expected]
    # Before the runtime starts its threads, which then stay there too.
    cores = pin(request["threads"]) if request["pin"] else None
    runtime = start_runtime(loaders, request["target"], request["threads"], request["options"])
    gc.collect()
    forget_peak()
    baseline = resident_bytes("VmRSS")

    load_ms = artifact.load(runtime)
    check_inputs(artifact.model.inputs, artifact.inputs)
    first_us, swap_ms = run_cases(artifact, runtime, expected, outputs)
    if artifact.weights:
        artifact.load(runtime)
    feed = artifact.feed(0)
    hottest_before = hottest()
    (samples_us,) = time_in_turn([(artifact.model.run, feed)], request["warmup"], request["iterations"])
    peak = resident_bytes("VmHWM")
    if request["mark"]:
        if request["instrument"]:
            instrument()
        run_between_markers(artifact.model, feed)
    call_us, call_reason = time_a_call(folder, runtime, loaders[request["target"]].trivial, request)
    response = {
        "executed_on": place_of(runtime),
        "load_ms": load_ms,
        "first_us": first_us,
        "samples_us": samples_us,
        "call_samples_us": call_us,
        "call_reason": call_reason,
        "swap_ms": swap_ms,
        "peak_rss_bytes": peak,
        "baseline_rss_bytes": baseline,
        "threads": runtime.threads,
        "reason": reason(runtime, baseline, peak),
        "conditions": conditions(cores, hottest_before),
    }
    return response, outputs


def run_cases(
    artifact: Artifact, runtime: Runtime, expected: list[dict[str, Any]], outputs: list[np.ndarray]
) -> tuple[float, list[float]]:
    """Compute every case into `outputs`, each [cases, *shape], with its own weights where cases have some.

    Return the microseconds of the first call, and the milliseconds that each case took to swap its weights, if it did.
    """
    order = output_order(artifact.model.outputs, expected)
    swap_ms, first_us = [], 0.0
    for case in range(artifact.cases):
        if artifact.weights:
            swap_ms.append(artifact.load(runtime, case))
        feed = artifact.feed(case)
        start = time.perf_counter_ns()
        result = artifact.model.run(feed)
        if case == 0:
            first_us = (time.perf_counter_ns() - start) / 1e3
        keep_case(artifact.model.collect(result), order, expected, outputs, case)
    return first_us, swap_ms


def time_in_turn(calls: list[tuple[Callable[[Any], Any], Any]], warmup: int, iterations: int) -> list[list[float]]:
    """Make each of the calls, a function and its argument, in turn; return the microseconds of all measured ones."""
    gc.collect()
    gc.disable()  # a collection in the middle of a call would be counted as the runtime's time
    for _ in range(warmup):
        for run, feed in calls:
            run(feed)
    samples_us: list[list[float]] = [[] for _ in calls]
    for _ in range(iterations):
        for (run, feed), samples in zip(calls, samples_us):  # noqa: B905 - Python 3.9
            start = time.perf_counter_ns()
            run(feed)
            samples.append((time.perf_counter_ns() - start) / 1e3)
    return samples_us


def time_a_call(
    folder: Path, runtime: Runtime, trivial: bytes | None, request: dict[str, Any]
) -> tuple[list[float], str | None]:
    """Return the microseconds of calls of a program that does next to nothing, as often as the artifact was called.

    They are what a call of the runtime costs beside the graph. Without them the reason: there is no such program, or
    this version of the runtime does not take it.
    """
    if not request["iterations"]:
        return [], None
    if trivial is None:
        return [], "there is no program by which a call of this runtime could be timed"
    file = folder / "trivial"
    try:
        file.write_bytes(trivial)
        model = runtime.load(file, None)
        feed = model.prepare({model.inputs[0].name or "x": np.zeros(1, np.int32)})
        (samples_us,) = time_in_turn([(model.run, feed)], request["warmup"], request["iterations"])
    except Exception as error:  # whatever a runtime raises; the artifact itself has run
        words = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return [], f"the program by which a call is timed does not run here: {words[:200]}"
    finally:
        file.unlink(missing_ok=True)
    return samples_us, None


def place_of(runtime: Runtime) -> str:
    """Return what executed an artifact, and on what machine and system."""
    return f"{runtime.name} on {platform.machine()} {platform.system()}"


def reason(runtime: Runtime, baseline: int | None, peak: int | None) -> str | None:
    """Return why threads or memory are not known, or None where they are."""
    reasons = ["the runtime chooses its own threads"] if runtime.threads is None else []
    if baseline is None or peak is None:
        reasons.append("this system does not tell the resident set of a process")
    return "; ".join(reasons) or None


def compare(folder: Path, request: dict[str, Any], loaders: Mapping[str, Loader]) -> dict[str, Any]:
    """Call the request's artifact and its rival in turn on their case 0; the response has a time of each per turn."""
    artifacts, runtimes = [], []
    for entry, file in ((request, "inputs.npz"), (request["rival"], "rival.npz")):
        artifact = Artifact.read(folder, entry, file)
        runtime = start_runtime(loaders, entry["target"], request["threads"], entry["options"])
        artifact.load(runtime)
        check_inputs(artifact.model.inputs, artifact.inputs)
        artifacts.append(artifact)
        runtimes.append(runtime)
    calls = [(artifact.model.run, artifact.feed(0)) for artifact in artifacts]
    samples_us, rival_samples_us = time_in_turn(calls, request["warmup"], request["iterations"])
    return {
        "executed_on": place_of(runtimes[0]),
        "rival_executed_on": place_of(runtimes[1]),
        "samples_us": samples_us,
        "rival_samples_us": rival_samples_us,
        "threads": runtimes[0].threads,
        "rival_threads": runtimes[1].threads,
    }
