"""How the agent loads an ExecuTorch program: with the runtime of its wheel, or the ARM64 bundle's native runner."""

from __future__ import annotations

import ctypes
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from exporter.connections.agent.contract import (
    OUT_OF_MEMORY,
    Input,
    Model,
    RefusalError,
    Runtime,
    only_one,
    version_of,
)

# torch's ScalarType numbers, which ExecuTorch uses in a method's metadata.
_DTYPES = {
    0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64", 11: "bool",
}  # fmt: skip


def start(threads: int, options: dict[str, Any]) -> Runtime:  # noqa: ARG001 - who computes is written into the program
    """Start ExecuTorch's runtime; its inputs and outputs have positions, not names.

    In the ARM64 bundle, which sets COCORR_EXECUTORCH to its version, a runner of our own does without torch.
    """
    version = os.environ.get("COCORR_EXECUTORCH")
    return _with_torch(threads) if not version else _NativeRunner(threads).runtime(version)


def _with_torch(threads: int) -> Runtime:
    """Start the runtime of the wheel.

    The extension module is imported by itself: executorch.runtime would import the exporter with it, 5 s and 140 MB
    that are not the artifact's. It needs torch's libraries loaded first.
    """
    import torch
    from executorch.extension.pybindings import _portable_lib as lib

    torch.set_num_threads(threads)
    lib._unsafe_reset_threadpool(threads)

    def load(path: Path, data: Path | None) -> Model:
        program, weights = _contents(path, data)
        check = lib.Verification.InternalConsistency
        module = lib._load_for_executorch_from_buffer(
            program, weights, enable_etdump=False, debug_buffer_size=0, program_verification=check
        )
        name = only_one("method", module.method_names())
        metadata = module.method_meta(name)
        inputs = []
        for index in range(metadata.num_inputs()):
            tensor = metadata.input_tensor_meta(index)
            dtype = _DTYPES.get(tensor.dtype(), f"ScalarType {tensor.dtype()}")
            inputs.append(Input(None, list(tensor.sizes()), dtype))
        return Model(
            inputs,
            None,
            lambda arrays: [torch.from_numpy(array) for array in arrays.values()],
            lambda values: module.run_method(name, values, False),
            lambda result: [value.numpy().copy() for value in result],  # they lie where the next call writes
            (program, weights),  # the module reads its weights out of them and keeps neither
        )

    return Runtime(f"ExecuTorch {version_of('executorch')}", lib._threadpool_get_thread_count(), load)


def _contents(path: Path, data: Path | None) -> tuple[bytes, bytes | None]:
    return path.read_bytes(), None if data is None else data.read_bytes()


class _Owner:
    """Stands for the memory of a native model, which is freed when it is."""


class _NativeRunner:
    """The C interface of runner.cpp to ExecuTorch's runtime; the libraries are the bundle's."""

    def __init__(self, threads: int) -> None:
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
        self._lib = lib
        self._threads = lib.cocorr_start(threads)

    def runtime(self, version: str) -> Runtime:
        """Return it as the agent takes it."""
        return Runtime(f"ExecuTorch {version} (native runner)", self._threads, self._load)

    def _load(self, path: Path, data: Path | None) -> Model:
        program, weights = _contents(path, data)
        model = self._lib.cocorr_load(program, len(program), weights, len(weights or b""))
        if not model:
            words = self._lib.cocorr_last_error().decode()
            raise RefusalError("memory" if OUT_OF_MEMORY.search(words) else "runtime", words)
        weakref.finalize(owner := _Owner(), self._lib.cocorr_free, model)
        outputs = self._describe(model, outputs=True)
        check, execute, execute_marked = self._check, self._lib.cocorr_execute, self._lib.cocorr_execute_marked
        return Model(
            self._describe(model, outputs=False),
            None,
            lambda arrays: self._set_inputs(model, list(arrays.values())),
            lambda _: check(execute(model)),
            lambda _: [self._output(model, index, output) for index, output in enumerate(outputs)],
            owner,
            lambda _: check(execute_marked(model)),
        )

    def _check(self, failed: int) -> None:
        if failed:
            raise RefusalError("runtime", self._lib.cocorr_last_error().decode())

    def _describe(self, model: int, outputs: bool) -> list[Input]:
        """Return the inputs or outputs of a model; refuses what is no tensor."""
        entries = []
        for index in range(self._lib.cocorr_count(model, outputs)):
            dtype, sizes = ctypes.c_int32(), (ctypes.c_int64 * 16)()
            rank = self._lib.cocorr_tensor(model, outputs, index, ctypes.byref(dtype), sizes)
            name = _DTYPES.get(dtype.value)
            if rank < 0 or name is None:
                side = "output" if outputs else "input"
                words = f"{side} {index} is no tensor of a known type (ScalarType {dtype.value})"
                raise RefusalError("signature", words)
            entries.append(Input(None, list(sizes[:rank]), name))
        return entries

    def _set_inputs(self, model: int, arrays: list[np.ndarray]) -> list[np.ndarray]:
        """Hand over the inputs and return them: the runner reads them where they lie."""
        for index, array in enumerate(arrays):
            self._check(self._lib.cocorr_set_input(model, index, array.ctypes.data, array.nbytes))
        return arrays

    def _output(self, model: int, index: int, output: Input) -> np.ndarray:
        count = ctypes.c_size_t()
        start_address = self._lib.cocorr_output(model, index, ctypes.byref(count))
        shape = [extent for extent in output.shape if extent is not None]
        return np.frombuffer(ctypes.string_at(start_address, count.value), output.dtype).reshape(shape)
