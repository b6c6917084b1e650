"""A run request as a job for a page: what it is told, the files that it fetches, and what it sends back, read."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from exporter.connections.agent.folder import PROTOCOL
from exporter.connections.browser.packages import find
from exporter.connections.browser.session import Answer, Work, served
from exporter.connections.response import parse_response, require_success, result_of, text, times_of, unusable
from exporter.connections.run_folder import cases_of, check_request, require_models
from exporter.core.errors import ArtifactError, RuntimeMissingError
from exporter.core.types import Arrays, DataFile, PairedTimes, RunRequest, RunResult, WebRuntime
from safeio import files

_NO_MEMORY = "a browser does not tell the resident set of a page"
_NO_HEAP = "; nor is the memory of its WebAssembly to be seen here"


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file of inputs, in which all its cases follow each other from `offset` on, `bytes` each."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    bytes: int

    def told(self) -> dict[str, Any]:
        """Return it as the page reads it."""
        return {"name": self.name, "dtype": self.dtype, "shape": self.shape, "offset": self.offset, "bytes": self.bytes}


def web_runtime(request: RunRequest) -> WebRuntime:
    """Return what runs the request's target in a browser; raises RuntimeMissingError where nothing does."""
    runtime = request.target.runtime
    if runtime.web is None:
        raise RuntimeMissingError(f"no build of {runtime.name} runs in a browser; choose another connection")
    return runtime.web


def make_work(folder: Path, request: RunRequest, rival: RunRequest | None, job: int, starts_itself: bool) -> Work:
    """Write the files of a job into `folder` and return it; `job` is its number.

    A `rival` is the other artifact of a comparison. Raises RuntimeMissingError where no browser runs a target or its
    packages are not installed, BadInputError for a request that no runtime could serve, and ArtifactError.
    """
    requests = [one for one in (request, rival) if one is not None]
    require_models(*requests)
    outputs, output_bytes = _outputs(request)
    told, found = [], {}
    for at, one in enumerate(requests):
        web = web_runtime(one)
        for path, file in find(web.packages).items():
            found[f"npm/{path}"] = served(file)
        found[f"{one.target.name}.js"] = served(web.loader)
        entry, own = _artifact(folder, one, web, f"job/{job}/{at}")
        told.append(entry)
        found |= own
    runtimes = dict.fromkeys(f"{entry['title']} {entry['version']}" for entry in told)
    timed = f", then {request.iterations} timed samples" if request.iterations else ""
    cases = cases_of(request.inputs)
    return Work(
        told={
            "protocol": PROTOCOL,
            "number": job,
            "starts_itself": starts_itself,
            "what": " and ".join(_what(one) for one in requests),
            "runtime": " and ".join(runtimes),
            "todo": (
                f"{cases} {'case' if cases == 1 else 'cases'}{timed}"
                if rival is None
                else f"both in turn, {request.iterations} timed samples each"
            ),
            "cases": cases,
            "warmup": request.warmup,
            "iterations": request.iterations,
            "threads": request.threads,
            "artifacts": told,
            "outputs": [output.told() for output in outputs],
            "output_bytes": output_bytes,
        },
        files=found,
        output_bytes=None if rival is not None else output_bytes,
    )


def _what(request: RunRequest) -> str:
    size = request.model_file.stat().st_size
    return f"{request.label or request.model_file.name} ({request.target.name}, {size / 1e6:.2f} MB)"


def _artifact(folder: Path, request: RunRequest, web: WebRuntime, place: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the page is told of an artifact, and its files by the names below `place` that it fetches them by."""
    check_request(request)
    data = request.data
    in_file = {} if data is None else data.tensors
    weights = {name: array for name, array in request.inputs.items() if name in in_file}
    inputs = {name: array for name, array in request.inputs.items() if name not in weights}
    stored = {name: array.astype(in_file[name][1]) for name, array in weights.items()}
    path = folder / f"{place.replace('/', '-')}.inputs"
    tensors = _write(path, {**inputs, **stored})
    found = {f"{place}/model": request.model_file, f"{place}/inputs": path}
    beside = None
    if data is not None:
        found[f"{place}/data"] = _data_file(request.model_file, data)
        places = [{**tensor.told(), "place": in_file[tensor.name][0]} for tensor in tensors[len(inputs) :]]
        beside = {"name": data.name, "file": f"{place}/data", "tensors": places}
    trivial = request.target.runtime.trivial
    if trivial is not None:
        found[f"{place}/trivial"] = trivial
    entry = {
        "title": web.name,
        "version": web.packages[0].version,
        "runtime": f"{request.target.name}.js",
        "model": f"{place}/model",
        "inputs": {"file": f"{place}/inputs", "tensors": [tensor.told() for tensor in tensors[: len(inputs)]]},
        "data": beside,
        "trivial": None if trivial is None else f"{place}/trivial",
    }
    return entry, {name: served(file) for name, file in found.items()}


def _data_file(model_file: Path, data: DataFile) -> Path:
    """Return the data file beside a model; raises ArtifactError where it cannot be read."""
    path = model_file.with_name(data.name)
    try:
        files.open_file(path).close()
    except files.UnreadableError as error:
        raise ArtifactError(f"{path} {error}; export the artifact again") from error
    return path


def _write(path: Path, arrays: Arrays) -> list[Tensor]:
    """Write all cases of arrays, [cases, *shape] each, one array after the other; return where each lies."""
    tensors = []
    with path.open("wb") as file:
        for name, array in arrays.items():
            content = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            file.write(bytes(-file.tell() % 8))
            size = content[0].nbytes
            tensors.append(Tensor(name, array.dtype.name, array.shape[1:], file.tell(), size))
            file.write(content.data if content.nbytes else b"")
    return tensors


def _outputs(request: RunRequest) -> tuple[list[Tensor], int]:
    """Return where the page writes each output, all its cases one after the other, and the bytes of all."""
    tensors, place, cases = [], 0, cases_of(request.inputs)
    for spec in request.outputs:
        size = math.prod(spec.shape) * np.dtype(spec.dtype).itemsize
        tensors.append(Tensor(spec.name, spec.dtype, spec.shape, place, size))
        place += cases * size
    return tensors, place


def read_result(answer: Answer, request: RunRequest, job: int) -> RunResult:
    """Read what a page sent for a request; raises the error that it reports, RuntimeCrashError for what is unusable."""
    response = _checked(answer, request, job)
    outputs, size = _outputs(request)
    content = answer.outputs
    if content is None or len(content) != size:
        unusable("the outputs did not come")
    cases = cases_of(request.inputs)
    arrays = {
        tensor.name: np.frombuffer(content, np.dtype(tensor.dtype), cases * math.prod(tensor.shape), tensor.offset)
        .reshape(cases, *tensor.shape)
        .copy()
        for tensor in outputs
    }
    result = result_of(response, arrays, request, cases)
    reason = _NO_MEMORY if result.wasm_heap_bytes is not None else _NO_MEMORY + _NO_HEAP
    return replace(result, peak_rss_bytes=None, baseline_rss_bytes=None, memory_reason=reason)


def read_times(answer: Answer, request: RunRequest, job: int) -> PairedTimes:
    """Read what a page sent for a request and its rival; raises as `read_result` does."""
    return times_of(_checked(answer, request, job), request)


def _checked(answer: Answer, request: RunRequest, job: int) -> Mapping[str, Any]:
    response = parse_response(answer.response)
    if response.get("number") != job:
        unusable("it is that of another job")
    stack = text(response, "stack").strip() if isinstance(response.get("stack"), str) else ""
    require_success(response, request, f" [{stack[:300]}]" if stack else "")
    return response
