"""Code that calls a Core ML program: Python and Swift."""

from exporter.core.calling import Calling, Snippet
from exporter.targets import snippets as shared

_PYTHON = """
model = coremltools.models.MLModel(str(folder / "{model_file}"))


def run(inputs):
    found = model.predict(inputs)
    return {{name: found[name] for name in ({outputs},)}}
"""

_SWIFT = """
/// {title}. Xcode compiles {model_file}, or MLModel.compileModel(at:) does so on the device; `compiledModel` is the
/// folder that comes out.
final class {class_name} {{
    private let model: MLModel
{weights}
    init({constructor}) throws {{
        let configuration = MLModelConfiguration()
        configuration.computeUnits = .{units}
        model = try MLModel(contentsOf: compiledModel, configuration: configuration){read}
    }}

    /// {signature}
    func run({parameters}) throws -> Outputs {{
        let inputs: [String: MLMultiArray] = [
            {inputs}
        ]
        let found = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: inputs))
        {results}
        return Outputs({outputs})
    }}
}}
"""

_WEIGHTS = """    /// The weights of a user; for another one, read another package.
    var weights: [String: [Float]]
"""
_UNITS = {"ALL": "all", "CPU_ONLY": "cpuOnly", "CPU_AND_GPU": "cpuAndGPU", "CPU_AND_NE": "cpuAndNeuralEngine"}


def snippets(call: Calling) -> tuple[Snippet, ...]:
    """Return them for one program."""
    return _python(call), _swift(call)


def _python(call: Calling) -> Snippet:
    outputs = ", ".join(f'"{one.name}"' for one in call.outputs)
    load = _PYTHON.format(model_file=call.model_file, outputs=outputs)
    packages = "coremltools safetensors" if call.weights else "coremltools"
    note = "Core ML runs on macOS only; elsewhere `cocorr-export run` computes the package in a reference interpreter."
    proved = "The tests of cocorr-export run such code with that interpreter in Core ML's place, and not with Core ML."
    code = shared.python(call, ["import coremltools"], load)
    return Snippet("python", "Core ML", f"pip install {packages}", code, note, proved)


def _swift(call: Calling) -> Snippet:
    def array(kind: str, scalars: str, shape: tuple[int, ...]) -> str:
        return f"MLMultiArray(MLShapedArray<{kind}>(scalars: {scalars}, shape: {list(shape)}))"

    inputs = [f'"{one.name}": {array(shared.swift_type(one), one.identifier, one.shape)},' for one in call.inputs] + [
        f'"{one.name}": {array("Float", f"""weights["{one.name}"]!""", one.shape)},' for one in call.weights
    ]
    results = [
        f'let {one.identifier} = MLShapedArray<{shared.swift_type(one)}>(found.featureValue(for: "{one.name}")!'
        ".multiArrayValue!)"
        for one in call.outputs
    ]
    body = _SWIFT.format(
        title=call.title,
        model_file=call.model_file,
        class_name=call.class_name,
        weights=_WEIGHTS if call.weights else "",
        constructor="compiledModel: URL, weightsFile: URL" if call.weights else "compiledModel: URL",
        units=_UNITS[str(call.options["compute_units"])],
        read="\n        weights = try readWeights(weightsFile)" if call.weights else "",
        signature=shared.signature(call),
        parameters=shared.swift_parameters(call),
        inputs=("\n" + " " * 12).join(inputs),
        results=("\n" + " " * 8).join(results),
        outputs=", ".join(f"{one.identifier}: {one.identifier}.scalars" for one in call.outputs),
    )
    code = shared.swift(
        call, ["import CoreML", "import Foundation"], body, shared.SWIFT_WEIGHTS if call.weights else ""
    )
    return Snippet("swift", "Core ML", "iOS 15 or macOS 12", code)
