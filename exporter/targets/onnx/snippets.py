"""Code that calls an ONNX model: Python, Kotlin and JavaScript, each with ONNX Runtime."""

from exporter.core.calling import Argument, Calling, Snippet
from exporter.targets import snippets as shared

_PYTHON = """
session = onnxruntime.InferenceSession(str(folder / "{model_file}"), providers=["CPUExecutionProvider"])


def run(inputs):
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs)))
"""

_JAVASCRIPT = """
const session = await ort.InferenceSession.create(await bytes("{model_file}"){options});
const tensor = (values, shape) => new ort.Tensor(values instanceof Int32Array ? "int32" : "float32", values, shape);
const run = async (inputs) => {{
  const outputs = await session.run(inputs);
  return Object.fromEntries(Object.entries(outputs).map(([name, value]) => [name, Array.from(value.data)]));
}};
"""

_KOTLIN = """
/** {title}; `modelFile` is {model_file}{beside}. */
class {class_name}(modelFile: File) : AutoCloseable {{
    private val environment = OrtEnvironment.getEnvironment()
    private val session = environment.createSession(modelFile.path)

    /** {signature} */
    fun run({parameters}): Outputs {{
        val inputs = mapOf(
            {inputs}
        )
        try {{
            session.run(inputs).use {{ result ->
                return Outputs(
                    {outputs}
                )
            }}
        }} finally {{
            inputs.values.forEach {{ it.close() }}
        }}
    }}

    override fun close() = session.close()
}}
"""


def snippets(call: Calling) -> tuple[Snippet, ...]:
    """Return them for one program."""
    return _python(call), _kotlin(call), _javascript(call)


def _python(call: Calling) -> Snippet:
    code = shared.python(call, ["import onnxruntime"], _PYTHON.format(model_file=call.model_file))
    return Snippet("python", "ONNX Runtime", "pip install onnxruntime numpy", code)


def _javascript(call: Calling) -> Snippet:
    name = call.data_file
    options = f', {{\n  externalData: [{{ path: "{name}", data: await bytes("{name}") }}],\n}}' if name else ""
    load = _JAVASCRIPT.format(model_file=call.model_file, options=options)
    code = shared.javascript(call, ['import * as ort from "onnxruntime-web";'], load)
    return Snippet("javascript", "onnxruntime-web", "npm install onnxruntime-web", code)


def _kotlin(call: Calling) -> Snippet:
    tensors = [
        f'"{one.name}" to OnnxTensor.createTensor(environment, {_buffer(one.dtype)}.wrap({one.identifier}),'
        f" longArrayOf({', '.join(map(str, one.shape))})),"
        for one in call.inputs
    ]
    results = [f"{one.identifier} = {_read(one)}," for one in call.outputs]
    body = _KOTLIN.format(
        title=call.title,
        model_file=call.model_file,
        beside=f", with {call.data_file} beside it" if call.data_file else "",
        class_name=call.class_name,
        signature=shared.signature(call),
        parameters=shared.kotlin_parameters(call),
        inputs=("\n" + " " * 12).join(tensors),
        outputs=("\n" + " " * 20).join(results),
    )
    buffers = {f"import java.nio.{_buffer(one.dtype)}" for one in call.inputs}
    imports = {"import ai.onnxruntime.OnnxTensor", "import ai.onnxruntime.OrtEnvironment", "import java.io.File"}
    code = shared.kotlin(call, imports | buffers, body)
    needs = 'implementation("com.microsoft.onnxruntime:onnxruntime-android:VERSION")'
    return Snippet("kotlin", "ONNX Runtime", needs, code)


def _read(output: Argument) -> str:
    array, buffer = ("IntArray", "intBuffer") if output.dtype == "int32" else ("FloatArray", "floatBuffer")
    value = f'(result["{output.name}"].get() as OnnxTensor)'
    return f"{array}({output.count}).also {{ {value}.{buffer}.get(it) }}"


def _buffer(dtype: str) -> str:
    return "IntBuffer" if dtype == "int32" else "FloatBuffer"
