"""Code that calls an ExecuTorch program: Python, Kotlin and Swift, each by positions."""

from dataclasses import replace

from exporter.core.calling import Calling, Snippet
from exporter.targets import snippets as shared

_PYTHON = """
method = Runtime.get().load_program(folder / "{model_file}").load_method("forward")


def run(inputs):
    outputs = method.execute([torch.from_numpy(inputs[name]) for name in ({inputs},)])
    return {{name: value.numpy() for name, value in zip(({outputs},), outputs)}}
"""

_PYTHON_DATA = """
program = _load_for_executorch(str(folder / "{model_file}"), str(folder / "{data_file}"))


def run(inputs):
    outputs = program.forward([torch.from_numpy(inputs[name]) for name in ({inputs},)])
    return {{name: value.numpy() for name, value in zip(({outputs},), outputs)}}
"""

_KOTLIN = """
/** {title}; `modelFile` is {model_file}, copied out of the app's assets. */
class {class_name}(modelFile: File) {{
    private val module = Module.load(modelFile.path)

    /** {signature} */
    fun run({parameters}): Outputs {{
        val outputs = module.forward(
            {inputs}
        )
        return Outputs(
            {outputs}
        )
    }}
}}
"""

_SWIFT = """
/// {title}; `modelPath` is where {model_file} lies{beside}.
final class {class_name} {{
    private let module: Module

    init({constructor}) {{
        module = Module(filePath: modelPath{data})
    }}

    /// {signature}
    func run({parameters}) throws -> Outputs {{
        let outputs: [Value] = try module.forward([
            {inputs}
        ])
        {results}
        return Outputs({outputs})
    }}
}}
"""

_NO_DATA_FILES = "ExecuTorch's Java API takes a program alone, and this one has {data_file} beside it: call it from C++"


# The only language that a delegate has a system for.
_ONLY = {"coreml": "swift", "vulkan": "kotlin"}


def snippets(call: Calling) -> tuple[Snippet, ...]:
    """Return them for one program."""
    delegate = str(call.options["delegate"])
    only, note = _ONLY.get(delegate), f"The {delegate} delegate does not run there."
    found = _python(call), _kotlin(call), _swift(call)
    return tuple(one if only in (None, one.language) else replace(one, code=None, note=note) for one in found)


def _python(call: Calling) -> Snippet:
    inputs, outputs = (", ".join(f'"{one.name}"' for one in side) for side in (call.inputs, call.outputs))
    if call.data_file is None:
        load = _PYTHON.format(model_file=call.model_file, inputs=inputs, outputs=outputs)
        imports = ["import torch", "from executorch.runtime import Runtime"]
    else:
        names = {"model_file": call.model_file, "data_file": call.data_file}
        load = _PYTHON_DATA.format(**names, inputs=inputs, outputs=outputs)
        imports = ["import torch", "from executorch.extension.pybindings.portable_lib import _load_for_executorch"]
    return Snippet("python", "ExecuTorch", "pip install executorch", shared.python(call, imports, load))


def _kotlin(call: Calling) -> Snippet:
    needs = 'implementation("org.pytorch:executorch-android:VERSION")'
    if call.data_file is not None:
        return Snippet("kotlin", "ExecuTorch", needs, None, _NO_DATA_FILES.format(data_file=call.data_file))
    results = [
        f"{one.identifier} = outputs[{at}].toTensor().dataAs{'Int' if one.dtype == 'int32' else 'Float'}Array,"
        for at, one in enumerate(call.outputs)
    ]
    body = _KOTLIN.format(
        title=call.title,
        model_file=call.model_file,
        class_name=call.class_name,
        signature=shared.signature(call),
        parameters=shared.kotlin_parameters(call),
        inputs=shared.each(call.inputs, "EValue.from(Tensor.fromBlob({identifier}, longArrayOf({shape}))),", 12),
        outputs=("\n" + " " * 12).join(results),
    )
    names = ("java.io.File", *(f"org.pytorch.executorch.{name}" for name in ("EValue", "Module", "Tensor")))
    return Snippet("kotlin", "ExecuTorch", needs, shared.kotlin(call, {f"import {name}" for name in names}, body))


def _swift(call: Calling) -> Snippet:
    inputs = [f"Tensor<{shared.swift_type(one)}>({one.identifier}, shape: {list(one.shape)})," for one in call.inputs]
    results = [
        f"let {one.identifier}: Tensor<{shared.swift_type(one)}> = outputs[{at}].tensor()!"
        for at, one in enumerate(call.outputs)
    ]
    body = _SWIFT.format(
        title=call.title,
        model_file=call.model_file,
        beside=f", `dataPath` where {call.data_file} does" if call.data_file else "",
        class_name=call.class_name,
        constructor="modelPath: String, dataPath: String" if call.data_file else "modelPath: String",
        data=", dataFilePaths: [dataPath]" if call.data_file else "",
        signature=shared.signature(call),
        parameters=shared.swift_parameters(call),
        inputs=("\n" + " " * 12).join(inputs),
        results=("\n" + " " * 8).join(results),
        outputs=", ".join(f"{one.identifier}: {one.identifier}.scalars()" for one in call.outputs),
    )
    delegate = str(call.options["delegate"])
    parts = ("executorch", *([] if delegate == "portable" else [f"backend_{delegate}"]), "kernels_optimized")
    needs = f"the Swift package of ExecuTorch's repository, branch swiftpm-VERSION: {', '.join(parts)}"
    return Snippet("swift", "ExecuTorch", needs, shared.swift(call, ["import ExecuTorch", "import Foundation"], body))
