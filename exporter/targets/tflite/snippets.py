"""Code that calls a TFLite model: Python, Kotlin and JavaScript, each with LiteRT and by the names of its signature."""

from exporter.core.calling import Calling, Snippet
from exporter.targets import snippets as shared

SIGNATURE = "serving_default"
_ON_A_LINE = 4

_PYTHON = """
runner = Interpreter(model_path=str(folder / "{model_file}")).get_signature_runner("{signature}")


def run(inputs):
    return runner(**inputs)
"""

_JAVASCRIPT = """
// The runtime's own files, node_modules/@litertjs/core/wasm/, must be served beside the model as wasm/.
await loadLiteRt(new URL("wasm/", import.meta.url).href);
const model = await loadAndCompile(await bytes("{model_file}"), {{ accelerator: "wasm" }});
const tensor = (values, shape) => new Tensor(values, shape);
const run = async (inputs) => {{
  const outputs = await model.run(inputs);
  const found = {{}};
  for (const [name, value] of Object.entries(outputs)) found[name] = Array.from(value.toTypedArray());
  for (const value of [...Object.values(inputs), ...Object.values(outputs)]) value.delete();
  return found;
}};
"""

_KOTLIN = """
/** {title}; `modelFile` is {model_file}. Its inputs are fed by name: their order differs from runtime to runtime. */
class {class_name}({constructor}) : AutoCloseable {{
    private val model = CompiledModel.create(modelFile.path, CompiledModel.Options(Accelerator.CPU))
    private val inputs = listOf({inputs}).associateWith {{ model.createInputBuffer(it, "{signature}") }}
    private val outputs = listOf({outputs}).associateWith {{ model.createOutputBuffer(it, "{signature}") }}
{weights}
    /** {shapes} */
    fun run({parameters}): Outputs {{
        {writes}
        model.run(inputs, outputs, "{signature}")
        return Outputs(
            {reads}
        )
    }}

    override fun close() {{
        (inputs.values + outputs.values).forEach {{ it.close() }}
        model.close()
    }}
}}
"""

_KOTLIN_SWAP = """
    init {
        swap(weightsFile)
    }

    /** Takes the weights of a user from a weights package; they stay until others come. */
    fun swap(weightsFile: File) =
        readWeights(weightsFile).forEach { (name, numbers) -> inputs.getValue(name).writeFloat(numbers) }
"""


def snippets(call: Calling) -> tuple[Snippet, ...]:
    """Return them for one program."""
    return _python(call), _kotlin(call), _javascript(call)


def _python(call: Calling) -> Snippet:
    load = _PYTHON.format(model_file=call.model_file, signature=SIGNATURE)
    code = shared.python(call, ["from ai_edge_litert.interpreter import Interpreter"], load)
    packages = "ai-edge-litert numpy safetensors" if call.weights else "ai-edge-litert numpy"
    return Snippet("python", "LiteRT", f"pip install {packages}", code)


def _javascript(call: Calling) -> Snippet:
    imports = ['import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";']
    code = shared.javascript(call, imports, _JAVASCRIPT.format(model_file=call.model_file))
    return Snippet("javascript", "LiteRT.js", "npm install @litertjs/core", code)


def _kotlin(call: Calling) -> Snippet:
    kinds = {"int32": "Int", "float32": "Float"}
    writes = [f'inputs.getValue("{one.name}").write{kinds[one.dtype]}({one.identifier})' for one in call.inputs]
    reads = [f'{one.identifier} = outputs.getValue("{one.name}").read{kinds[one.dtype]}(),' for one in call.outputs]
    body = _KOTLIN.format(
        title=call.title,
        model_file=call.model_file,
        class_name=call.class_name,
        constructor="modelFile: File, weightsFile: File" if call.weights else "modelFile: File",
        inputs=_quoted(*(one.name for one in (*call.inputs, *call.weights))),
        outputs=_quoted(*(one.name for one in call.outputs)),
        signature=SIGNATURE,
        weights=_KOTLIN_SWAP if call.weights else "",
        shapes=shared.signature(call),
        parameters=shared.kotlin_parameters(call),
        writes=("\n" + " " * 8).join(writes),
        reads=("\n" + " " * 12).join(reads),
    )
    imports = {
        "import com.google.ai.edge.litert.Accelerator",
        "import com.google.ai.edge.litert.CompiledModel",
        "import java.io.File",
    }
    if call.weights:
        imports |= {"import java.nio.ByteBuffer", "import java.nio.ByteOrder", "import org.json.JSONObject"}
    code = shared.kotlin(call, imports, body, shared.KOTLIN_WEIGHTS if call.weights else "")
    return Snippet("kotlin", "LiteRT", 'implementation("com.google.ai.edge.litert:litert:VERSION")', code)


def _quoted(*names: str) -> str:
    quoted = [f'"{name}"' for name in names]
    if len(quoted) <= _ON_A_LINE:
        return ", ".join(quoted)
    return "".join(f"\n        {name}," for name in quoted) + "\n    "
