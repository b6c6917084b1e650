"""The agent: loads one artifact in a process of its own, runs it and times it; started as `python agent.py FOLDER`.

This file is copied as it is to boards, phones and emulators, so it imports nothing of the project and needs only
Python 3.9, numpy and the runtime of the artifact. FOLDER holds `request.json` and `inputs.npz`; `response.json` and
`outputs.npz` are written there, each renamed into place when whole. Arrays travel as arr_0, arr_1, ... in the order of
the names in the request, so that no name can clash with a file or an argument.

Time is taken round the runtime's own call on inputs that are ready in the runtime's own containers; making those and
copying results out is not in it. Memory is the resident set of this process, in bytes.

A request with a `rival` compares two artifacts: both are loaded into this process and called in turn, so that what
slows the machine slows both; its inputs are in `rival.npz`, and no outputs are written.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib.metadata
import json
import math
import os
import platform
import re
import shutil
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PROTOCOL = 3

# log.txt is where the other side may send what the runtime prints.
EXCHANGED = (
    *("request.json", "inputs.npz", "rival.npz", "response.json", "response.json.part"),
    *("outputs.npz", "outputs.npz.part", "log.txt"),
)

# The folder for a data file with the weights of one case; it has the name that the model knows the file by.
SWAPPED = "swapped"

# The runtimes report a failed allocation in words, not as MemoryError; 0x21 is ExecuTorch's MemoryAllocationFailed.
OUT_OF_MEMORY = re.compile(
    r"bad_alloc|(failed|unable|not enough memory) to allocate|out of memory|error:? 0x:?21\b", re.I
)

# What the system says where a disk, a quota or a limit leaves no room for a file.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# The process group that nobody has, by which `mark` is known.
MARKER = 0x5CA1AB1E

ONNX_DTYPES = {"float": "float32", "double": "float64", "bool": "bool"}
# torch's ScalarType numbers, which ExecuTorch uses in a method's metadata.
EXECUTORCH_DTYPES = {
    0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64", 11: "bool",
}  # fmt: skip


class RefusalError(Exception):
    """Why the agent does not run the request; `kind` tells the other side which error to raise."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Input:
    """One input of a model, without the cases axis; a size of None is free, and so is a name where inputs have none."""

    name: str | None
    shape: list[int | None]
    dtype: str


@dataclass(frozen=True)
class Model:
    """A loaded artifact: `prepare` makes the runtime's own inputs, `run` is what is timed, `collect` copies out.

    `outputs` names what `collect` returns, in its order, or is None where the runtime's outputs have no names; `owner`
    is what must live as long as the model. `run_marked` runs between its own markers, see `run_between_markers`.
    """

    inputs: list[Input]
    outputs: list[str] | None
    prepare: Callable[[dict[str, np.ndarray]], Any]
    run: Callable[[Any], Any]
    collect: Callable[[Any], list[np.ndarray]]
    owner: Any = None
    run_marked: Callable[[Any], Any] | None = None


class Owner:
    """Stands for memory that is freed when it is."""


@dataclass(frozen=True)
class DataFile:
    """The file from which a model reads weights: where each tensor begins in it, and its dtype."""

    path: Path
    tensors: dict[str, tuple[int, str]]

    @classmethod
    def of(cls, folder: Path, request: dict[str, Any]) -> DataFile | None:
        """The data file of a request, beside its model file, or None."""
        entry = request["data"]
        return entry and cls((folder / request["model_file"]).with_name(entry["name"]), entry["tensors"])

    def write(self, weights: dict[str, np.ndarray], folder: Path) -> Path:
        """Write a copy of the file in `folder` with these weights in it."""
        content = bytearray(self.path.read_bytes())
        for name, (offset, dtype) in self.tensors.items():
            tensor = weights[name].astype(dtype).tobytes()
            content[offset : offset + len(tensor)] = tensor
        changed = folder / SWAPPED / self.path.name
        changed.parent.mkdir(exist_ok=True)
        # Unlinked and made anew: a runtime may still have the last one mapped into memory.
        changed.unlink(missing_ok=True)
        changed.write_bytes(content)
        return changed


@dataclass(frozen=True)
class Runtime:
    """An imported runtime: what it is called, the threads it uses (None where it chooses them) and how it loads.

    `load` takes the model file, and the data file where the model reads weights from one.
    """

    name: str
    threads: int | None
    load: Callable[[Path, Path | None], Model]


def onnx_runtime(threads: int, _options: dict[str, Any]) -> Runtime:
    """ONNX Runtime on its CPU execution provider."""
    # From 1.29 on it reports to its maker from the import on, from a thread of its own; only this variable prevents it.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # fatal only: errors come as exceptions

    def load(path: Path, data: Path | None) -> Model:
        source: str | bytes = str(path)
        if data is not None:  # a model given as bytes finds its data file, by name, in the folder of this setting
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(data.parent))
            source = path.read_bytes()
        session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        inputs = []
        for value in session.get_inputs():
            element = re.sub(r"^tensor\((.*)\)$", r"\1", value.type)
            shape = [size if isinstance(size, int) else None for size in value.shape]
            inputs.append(Input(value.name, shape, ONNX_DTYPES.get(element, element)))
        names = [output.name for output in session.get_outputs()]
        return Model(inputs, names, lambda arrays: arrays, lambda feed: session.run(names, feed), list)

    return Runtime(f"ONNX Runtime {onnxruntime.__version__} (CPUExecutionProvider)", threads, load)


def litert(threads: int, _options: dict[str, Any]) -> Runtime:
    """LiteRT's interpreter with its default delegate, fed by name through the model's one signature."""
    from ai_edge_litert.interpreter import Interpreter

    def load(path: Path, data: Path | None) -> Model:  # noqa: ARG001 - external weights are inputs here
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        try:
            interpreter.allocate_tensors()
        except RuntimeError as error:
            if not str(error):  # what it says, or rather does not say, when the arena cannot be had
                largest = max(
                    int(np.prod(t["shape"])) * np.dtype(t["dtype"]).itemsize for t in interpreter.get_tensor_details()
                )
                message = f"LiteRT could not allocate its tensors and gave no reason; the largest has {largest} bytes"
                raise RefusalError("memory" if largest > data_limit() else "runtime", message) from error
            raise
        signature = only_one("signature", interpreter.get_signature_list())
        runner = interpreter.get_signature_runner(signature)
        inputs = []
        for name, detail in runner.get_input_details().items():
            shape = [int(size) if size >= 0 else None for size in detail["shape_signature"]]
            inputs.append(Input(name, shape, np.dtype(detail["dtype"]).name))
        names = list(runner.get_output_details())
        return Model(
            inputs,
            names,
            lambda arrays: arrays,
            lambda feed: runner(**feed),
            lambda result: [result[name] for name in names],
        )

    return Runtime(f"LiteRT {version_of('ai-edge-litert')}", threads, load)


def executorch(threads: int, _options: dict[str, Any]) -> Runtime:
    """ExecuTorch's runtime; its inputs and outputs have positions, not names.

    The extension module is imported by itself: executorch.runtime would import the exporter with it, 5 s and 140 MB
    that are not the artifact's. It needs torch's libraries loaded first. In the ARM64 bundle, which sets
    COCORR_EXECUTORCH to its version, a runner of our own does without torch.
    """
    native = os.environ.get("COCORR_EXECUTORCH")
    if native:
        return native_executorch(threads, native)
    import torch
    from executorch.extension.pybindings import _portable_lib as lib

    torch.set_num_threads(threads)
    lib._unsafe_reset_threadpool(threads)

    def load(path: Path, data: Path | None) -> Model:
        program, weights = path.read_bytes(), data.read_bytes() if data is not None else None
        check = lib.Verification.InternalConsistency
        module = lib._load_for_executorch_from_buffer(
            program, weights, enable_etdump=False, debug_buffer_size=0, program_verification=check
        )
        name = only_one("method", module.method_names())
        metadata = module.method_meta(name)
        inputs = []
        for index in range(metadata.num_inputs()):
            tensor = metadata.input_tensor_meta(index)
            dtype = EXECUTORCH_DTYPES.get(tensor.dtype(), f"ScalarType {tensor.dtype()}")
            inputs.append(Input(None, list(tensor.sizes()), dtype))
        return Model(
            inputs,
            None,
            lambda arrays: [torch.from_numpy(array) for array in arrays.values()],
            lambda values: module.run_method(name, values),
            lambda result: [value.numpy() for value in result],
            (program, weights),  # the module reads its weights out of them and keeps neither
        )

    return Runtime(f"ExecuTorch {version_of('executorch')}", lib._threadpool_get_thread_count(), load)


def native_executorch(threads: int, version: str) -> Runtime:
    """ExecuTorch's runtime behind the C interface of runner.cpp; the libraries are the bundle's."""
    import ctypes

    process = ctypes.CDLL(None)
    process.dlopen.restype = ctypes.c_void_p
    # ctypes itself would bind every symbol at once, and those of torch are not there.
    if not process.dlopen(b"libexecutorch.so", os.RTLD_LAZY | os.RTLD_GLOBAL):
        process.dlerror.restype = ctypes.c_char_p
        raise RefusalError("runtime", f"ExecuTorch cannot be loaded: {process.dlerror().decode()}")
    lib = ctypes.CDLL("libcocorr_executorch.so")
    size, pointer = ctypes.c_size_t, ctypes.c_void_p
    lib.cocorr_last_error.restype = ctypes.c_char_p
    lib.cocorr_load.argtypes, lib.cocorr_load.restype = [ctypes.c_char_p, size] * 2, pointer
    lib.cocorr_free.argtypes = [pointer]
    lib.cocorr_count.argtypes, lib.cocorr_count.restype = [pointer, ctypes.c_int], size
    lib.cocorr_tensor.argtypes = [pointer, ctypes.c_int, size, pointer, pointer]
    lib.cocorr_set_input.argtypes = [pointer, size, pointer, size]
    lib.cocorr_execute.argtypes = lib.cocorr_execute_marked.argtypes = [pointer]
    lib.cocorr_output.argtypes, lib.cocorr_output.restype = [pointer, size, ctypes.POINTER(size)], pointer
    used = lib.cocorr_start(threads)

    def check(failed: int) -> None:
        if failed:
            raise RefusalError("runtime", lib.cocorr_last_error().decode())

    def describe(model: int, outputs: bool) -> list[Input]:
        found = []
        for index in range(lib.cocorr_count(model, outputs)):
            dtype, sizes = ctypes.c_int32(), (ctypes.c_int64 * 16)()
            rank = lib.cocorr_tensor(model, outputs, index, ctypes.byref(dtype), sizes)
            name = EXECUTORCH_DTYPES.get(dtype.value)
            if rank < 0 or name is None:
                side = "output" if outputs else "input"
                raise RefusalError(
                    "signature", f"{side} {index} is no tensor of a known type (ScalarType {dtype.value})"
                )
            found.append(Input(None, list(sizes[:rank]), name))
        return found

    def load(path: Path, data: Path | None) -> Model:
        program, weights = path.read_bytes(), data.read_bytes() if data is not None else None
        model = lib.cocorr_load(program, len(program), weights, len(weights or b""))
        if not model:
            words = lib.cocorr_last_error().decode()
            raise RefusalError("memory" if OUT_OF_MEMORY.search(words) else "runtime", words)
        weakref.finalize(owner := Owner(), lib.cocorr_free, model)
        outputs = describe(model, True)

        def prepare(arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
            given = list(arrays.values())
            for index, array in enumerate(given):
                check(lib.cocorr_set_input(model, index, array.ctypes.data, array.nbytes))
            return given  # the runner reads inputs where they lie

        def collect(_: Any) -> list[np.ndarray]:
            arrays = []
            for index, output in enumerate(outputs):
                count = size()
                start = lib.cocorr_output(model, index, ctypes.byref(count))
                shape = [extent for extent in output.shape if extent is not None]
                arrays.append(np.frombuffer(ctypes.string_at(start, count.value), output.dtype).reshape(shape))
            return arrays

        return Model(
            describe(model, False),
            None,
            prepare,
            lambda _: check(lib.cocorr_execute(model)),
            collect,
            owner,
            lambda _: check(lib.cocorr_execute_marked(model)),
        )

    return Runtime(f"ExecuTorch {version} (native runner)", used, load)


def core_ml(threads: int, options: dict[str, Any]) -> Runtime:  # noqa: ARG001 - Core ML offers no such setting
    """Core ML through coremltools, on macOS; it chooses threads by itself, and a processor among those allowed."""
    if platform.system() != "Darwin":
        raise RefusalError("no_runtime", f"Core ML runs on macOS only, this is {platform.system()}")
    import coremltools

    compute_units = options.get("compute_units", "ALL")

    def load(path: Path, data: Path | None) -> Model:  # noqa: ARG001 - external weights are inputs here
        model = coremltools.models.MLModel(str(path), compute_units=coremltools.ComputeUnit[compute_units])
        description = model.get_spec().description
        inputs = []
        for value in description.input:
            tensor = value.type.multiArrayType
            inputs.append(Input(value.name, list(tensor.shape), tensor.ArrayDataType.Name(tensor.dataType).lower()))
        names = [output.name for output in description.output]
        return Model(
            inputs,
            names,
            lambda arrays: arrays,
            lambda feed: model.predict(dict(feed)),  # a copy: predict replaces values of what it is given
            lambda result: [np.asarray(result[name]) for name in names],
        )

    return Runtime(f"Core ML (coremltools {coremltools.__version__}, compute units {compute_units})", None, load)


# target -> how to start its runtime, and the package that a user installs to have it
RUNTIMES: dict[str, tuple[Callable[..., Runtime], str]] = {
    "onnx": (onnx_runtime, "onnxruntime"),
    "tflite": (litert, "ai-edge-litert"),
    "executorch": (executorch, "executorch"),
    "coreml": (core_ml, "coremltools"),
}


def only_one(what: str, names: Iterable[str]) -> str:
    """The one name there is; refuses a model with none or several."""
    found = sorted(names)
    if len(found) != 1:
        raise RefusalError("signature", f"the model has {len(found)} {what}s {found}, exactly one is expected")
    return found[0]


def version_of(package: str) -> str:
    """The installed version of a distribution."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def start_runtime(target: str, threads: int, options: dict[str, Any] | None = None) -> Runtime:
    """Import the runtime of a target; a package that is not installed becomes a refusal that names it.

    `options` are the target's.
    """
    if target not in RUNTIMES:
        raise RefusalError("request", f"unknown target {target!r}; this agent knows {sorted(RUNTIMES)}")
    start, package = RUNTIMES[target]
    try:
        return start(threads, options or {})
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing in (package.replace("-", "_"), "torch"):
            raise RefusalError("missing_package", package) from error
        raise


def check_inputs(wanted: list[Input], given: dict[str, np.ndarray]) -> None:
    """Refuse inputs whose names, dtypes or shapes (without the cases axis) are not the model's own.

    It cannot be left to the runtimes: LiteRT resizes the model to what it gets and takes an input of another rank.
    """
    if len(wanted) != len(given):
        raise RefusalError("signature", f"the model takes {len(wanted)} inputs, the request gives {list(given)}")
    for position, name in enumerate(given):
        by_name = [entry for entry in wanted if entry.name == name]
        entry = wanted[position] if wanted[position].name is None else by_name[0] if by_name else None
        if entry is None:
            names = sorted(str(entry.name) for entry in wanted)
            raise RefusalError("signature", f"the model has no input {name!r}; its inputs are {names}")
        dtype, shape = given[name].dtype.name, given[name].shape[1:]
        if dtype != entry.dtype:
            raise RefusalError("signature", f"input {name!r} is {entry.dtype} in the model, {dtype} in the request")
        if len(shape) != len(entry.shape) or any(
            size not in (None, given_size)
            for size, given_size in zip(entry.shape, shape)  # noqa: B905 - Python 3.9
        ):
            sizes = ["any" if size is None else size for size in entry.shape]
            raise RefusalError("signature", f"input {name!r} is {sizes} in the model, {list(shape)} in the request")


def output_order(names: list[str] | None, wanted: list[dict[str, Any]]) -> list[int]:
    """Where each wanted output stands among the model's; without names (None) they are in order already."""
    expected = [entry["name"] for entry in wanted]
    if names is None:
        return list(range(len(expected)))
    if sorted(names) != sorted(expected):
        raise RefusalError("signature", f"the model's outputs are {sorted(names)}, not {sorted(expected)}")
    return [names.index(name) for name in expected]


def mark() -> None:
    """Make a system call that does nothing; an emulator that counts instructions stops at it."""
    with contextlib.suppress(OSError):
        os.getpgid(MARKER)


def run_between_markers(model: Model, feed: Any) -> None:
    """Make three markers: nothing lies between the first two, a call of the model between the last two."""
    if model.run_marked is not None:
        model.run_marked(feed)
        return
    mark()
    mark()
    model.run(feed)
    mark()


def keep_case(
    results: list[np.ndarray], order: list[int], wanted: list[dict[str, Any]], kept: list[np.ndarray], case: int
) -> None:
    """Copy the results of one case into `kept`; refuses another number, shape or dtype than the request states."""
    if len(results) != len(wanted):
        raise RefusalError("signature", f"the model gave {len(results)} outputs, not {len(wanted)}")
    for position, entry, array in zip(order, wanted, kept):  # noqa: B905 - Python 3.9
        value = results[position]
        if value.dtype != array.dtype or value.shape != array.shape[1:]:
            came, stated = f"{value.dtype.name} {list(value.shape)}", f"{entry['dtype']} {entry['shape']}"
            raise RefusalError("signature", f"output {entry['name']!r} came as {came}, not as the stated {stated}")
        array[case] = value


def resident_bytes(field: str) -> int | None:
    """VmRSS (now) or VmHWM (peak) of this process in bytes; where there is no /proc, the peak by getrusage for both.

    getrusage is second choice because Linux carries the peak of the process that started this one across exec.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(rf"^{field}:\s+(\d+) kB", status.read_text(), re.M)
        return int(found.group(1)) * 1024 if found else None
    if platform.system() != "Darwin":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def forget_peak() -> None:
    """Start the peak of the resident set anew, so that what importing the runtime took for a moment is not in it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def guard(folder: Path, request: dict[str, Any]) -> None:
    """Bound time and memory from inside, which still holds when the other side is gone.

    The alarm ends the process even while a runtime hangs in native code. RLIMIT_DATA counts private writable memory,
    so libraries and mapped weights are not in it. A machine that runs out of memory shall end this process first.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, request["time_limit_s"])
    if request["memory_limit_bytes"] is not None:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = request["memory_limit_bytes"]
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    with contextlib.suppress(OSError):  # not Linux, or not allowed: the limits above still hold
        Path("/proc/self/oom_score_adj").write_text("1000")
    if request["watch_stdin"]:
        threading.Thread(target=end_with_stdin, args=(folder,), daemon=True).start()


def hold(path: Path) -> Any:
    """Lock a file until this process ends, so that two runs do not take each other's time; refuses where one does."""
    import fcntl

    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        message = "another run is at work on the device; start this one again when it has ended"
        raise RefusalError("busy", message) from error
    return file


def data_limit() -> float:
    """The private memory that this process may have, in bytes."""
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return math.inf if soft == resource.RLIM_INFINITY else soft


def end_with_stdin(folder: Path) -> None:
    """End this process when whoever started it closes its standard input or dies.

    Nobody is left then to tidy up: the files of the exchange go, and the folder too if it holds nothing else.
    """
    while os.read(0, 4096):
        pass
    for name in EXCHANGED:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / SWAPPED, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
    os._exit(3)


def pin(threads: int) -> list[int] | None:
    """Keep this process on as many cores as it has threads, the fastest there are; the cores it has then, if known.

    Phones have fast and slow cores, and where a thread lands would decide its time. Linux says how fast a core is, in
    cpu_capacity or as its highest frequency.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))

    def speed(core: int) -> int:
        folder = Path(f"/sys/devices/system/cpu/cpu{core}")
        found = (read_line(folder / name) for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"))
        return next((int(value) for value in found if value is not None and value.isdigit()), 0)

    fastest = sorted(allowed, key=speed, reverse=True)[:threads]
    with contextlib.suppress(OSError):  # some devices keep that to themselves
        os.sched_setaffinity(0, fastest)
    return sorted(os.sched_getaffinity(0))


def read_line(path: Path) -> str | None:
    """The first line of a file of the system's, or None where it does not let itself be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[0].strip()[:80]
    except (OSError, IndexError):
        return None


def governors(cores: list[int]) -> str | None:
    """The names of the governors that set the frequencies of these cores."""
    paths = [Path(f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor") for core in cores]
    return ", ".join(sorted({name for name in map(read_line, paths) if name})) or None


def hottest() -> float | None:
    """The highest temperature of the thermal zones that can be read, in degrees Celsius."""
    found = [read_line(zone / "temp") for zone in Path("/sys/class/thermal").glob("thermal_zone*")]
    # Zones that are switched off tell nonsense.
    degrees = [int(value) / 1000 for value in found if value is not None and re.fullmatch(r"-?\d{1,9}", value)]
    return max((value for value in degrees if 0 < value < 150), default=None)


def conditions(cores: list[int] | None, before: float | None) -> dict[str, str]:
    """What the times were taken under, as far as it is known: cores, their governor, temperatures before and after."""
    told: dict[str, str] = {}
    if cores is not None:
        told["cores"] = f"{', '.join(map(str, cores))} of {os.cpu_count()}"
        governor = governors(cores)
        if governor is not None:
            told["governor"] = governor
    after = hottest()
    if before is not None and after is not None:
        told["hottest_c"] = f"{before:.1f} before, {after:.1f} after"
    return told


def read_inputs(path: Path, request: dict[str, Any]) -> tuple[dict[str, np.ndarray], int]:
    """The input arrays by name, in the order of the request, and the number of cases they all have."""
    with np.load(path, allow_pickle=False) as stored:
        inputs = {name: np.ascontiguousarray(stored[f"arr_{i}"]) for i, name in enumerate(request["inputs"])}
    cases = {array.shape[0] if array.ndim else 0 for array in inputs.values()}
    if len(cases) != 1 or 0 in cases:
        shapes = {name: list(array.shape) for name, array in inputs.items()}
        raise RefusalError("request", f"the inputs must share one number of cases of at least 1 on axis 0: {shapes}")
    return inputs, cases.pop()


def execute(folder: Path, request: dict[str, Any]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Run every case once and case 0 again for the time; the response and the outputs, each [cases, *shape]."""
    inputs, cases = read_inputs(folder / "inputs.npz", request)
    wanted = request["outputs"]
    data = DataFile.of(folder, request)
    weights = {name: inputs.pop(name) for name in list(inputs) if data and name in data.tensors}
    # Written to now, so that their pages are in the baseline and not in the artifact's peak.
    kept = [np.full((cases, *entry["shape"]), 0, entry["dtype"]) for entry in wanted]
    # Before the runtime starts its threads, which then stay there too.
    cores = pin(request["threads"]) if request["pin"] else None
    runtime = start_runtime(request["target"], request["threads"], request["options"])
    gc.collect()
    forget_peak()
    baseline = resident_bytes("VmRSS")

    start = time.perf_counter_ns()
    in_place = None if data is None else data.path
    model = runtime.load(folder / request["model_file"], in_place)
    load_ms = (time.perf_counter_ns() - start) / 1e6

    check_inputs(model.inputs, inputs)
    order = output_order(model.outputs, wanted)
    first_us = None
    swap_ms = []
    for case in range(cases):
        if data is not None and weights:
            start = time.perf_counter_ns()
            changed = data.write({name: array[case] for name, array in weights.items()}, folder)
            model = runtime.load(folder / request["model_file"], changed)
            swap_ms.append((time.perf_counter_ns() - start) / 1e6)
        feed = model.prepare({name: array[case] for name, array in inputs.items()})
        start = time.perf_counter_ns()
        result = model.run(feed)
        if first_us is None:
            first_us = (time.perf_counter_ns() - start) / 1e3
        keep_case(model.collect(result), order, wanted, kept, case)

    if weights:
        model = runtime.load(folder / request["model_file"], in_place)
    feed = model.prepare({name: array[0] for name, array in inputs.items()})
    gc.collect()
    gc.disable()  # a collection in the middle of a call would be counted as the runtime's time
    before = hottest()
    samples_us = []
    for _ in range(request["warmup"]):
        model.run(feed)
    for _ in range(request["iterations"]):
        start = time.perf_counter_ns()
        model.run(feed)
        samples_us.append((time.perf_counter_ns() - start) / 1e3)

    peak = resident_bytes("VmHWM")
    if request["mark"]:
        run_between_markers(model, feed)
    reasons = ["the runtime chooses its own threads"] if runtime.threads is None else []
    if baseline is None or peak is None:
        reasons.append("this system does not tell the resident set of a process")
    response = {
        "executed_on": f"{runtime.name} on {platform.machine()} {platform.system()}",
        "load_ms": load_ms,
        "first_us": first_us,
        "samples_us": samples_us,
        "swap_ms": swap_ms,
        "peak_rss_bytes": peak,
        "baseline_rss_bytes": baseline,
        "threads": runtime.threads,
        "reason": "; ".join(reasons) or None,
        "conditions": conditions(cores, before),
    }
    return response, kept


def compare(folder: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Call the request's artifact and its rival in turn on their case 0; the response has a time of each per turn."""
    names, calls, threads = [], [], []
    for one, file in ((request, "inputs.npz"), (request["rival"], "rival.npz")):
        inputs, _ = read_inputs(folder / file, one)
        data = DataFile.of(folder, one)
        runtime = start_runtime(one["target"], request["threads"], one["options"])
        model = runtime.load(folder / one["model_file"], None if data is None else data.path)
        inputs = {name: array for name, array in inputs.items() if data is None or name not in data.tensors}
        check_inputs(model.inputs, inputs)
        names.append(f"{runtime.name} on {platform.machine()} {platform.system()}")
        calls.append((model.run, model.prepare({name: array[0] for name, array in inputs.items()}), model))
        threads.append(runtime.threads)
    gc.collect()
    gc.disable()  # a collection in the middle of a call would be counted as the runtime's time
    for _ in range(request["warmup"]):
        for run, feed, _model in calls:
            run(feed)
    samples_us: list[list[float]] = [[], []]
    for _ in range(request["iterations"]):
        for (run, feed, _model), samples in zip(calls, samples_us):  # noqa: B905 - Python 3.9
            start = time.perf_counter_ns()
            run(feed)
            samples.append((time.perf_counter_ns() - start) / 1e3)
    return {
        "executed_on": names[0],
        "rival_executed_on": names[1],
        "samples_us": samples_us[0],
        "rival_samples_us": samples_us[1],
        "threads": threads[0],
        "rival_threads": threads[1],
    }


def respond(folder: Path, response: dict[str, Any]) -> None:
    """Write response.json so that nobody ever reads half of it."""
    partial = folder / "response.json.part"
    partial.write_text(json.dumps({**response, "protocol": PROTOCOL}, allow_nan=False), encoding="utf-8")
    partial.replace(folder / "response.json")


def refusal_of(error: Exception) -> dict[str, Any]:
    """The response that tells of an error: its kind and its words."""
    words = str(error) or type(error).__name__
    if isinstance(error, RefusalError):
        kind = error.kind
    elif isinstance(error, OSError) and error.errno in NO_ROOM:
        kind = "room"
    elif isinstance(error, MemoryError) or OUT_OF_MEMORY.search(words):
        kind = "memory"
    else:
        kind = "runtime"
    return {"status": "error", "kind": kind, "message": words[:2000]}


def main(folder: Path) -> int:
    """Serve the request in `folder`; the exit status is 0 with outputs and 1 with an error in response.json."""
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    try:
        if request.get("protocol") != PROTOCOL:
            given = request.get("protocol")
            raise RefusalError("protocol", f"the agent speaks protocol {PROTOCOL}, the request {given!r}")
        guard(folder, request)
        held = None if request["lock"] is None else hold(folder / request["lock"])  # noqa: F841 - until the end
        if request["rival"] is not None:
            answer = compare(folder, request)
        else:
            answer, outputs = execute(folder, request)
            partial = folder / "outputs.npz.part"
            with partial.open("wb") as file:
                np.savez(file, *outputs)
            partial.replace(folder / "outputs.npz")
        respond(folder, {"status": "ok", **answer})
    except Exception as error:
        for name in ("inputs.npz", "rival.npz", "outputs.npz.part", "outputs.npz"):  # the answer may need their room
            (folder / name).unlink(missing_ok=True)
        shutil.rmtree(folder / SWAPPED, ignore_errors=True)
        respond(folder, refusal_of(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
