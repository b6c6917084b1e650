"""How the values inside a .tflite file are seen: LiteRT keeps all tensors where no delegate takes their operators."""

from collections.abc import Callable, Sequence
from pathlib import Path

from exporter.core.explanation import TracedValue
from exporter.core.extras import require
from exporter.core.precision import Precision
from exporter.core.types import Arrays, Captured, Options
from exporter.targets.depending import depending
from exporter.targets.tflite import file as tflite_file


class TFLiteTracing:
    """Only outputs have names, those of the signature: the converter keeps none of torch's nodes."""

    method = "LiteRT's own kernels, which keep all tensors, in place of those of its XNNPACK delegate"

    def lower(self, captured: Captured, precision: Precision, options: Options, folder: Path) -> Path | None:
        """Return None: the file itself is looked into."""
        return None

    def load(self, model_file: Path) -> Callable[[Arrays], Sequence[TracedValue]]:
        """Load the file without delegates."""
        litert = require("ai_edge_litert.interpreter", "tflite")
        makers = depending(tflite_file.read(model_file))
        interpreter = litert.Interpreter(
            model_path=str(model_file),
            num_threads=1,
            experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        interpreter.allocate_tensors()
        (signature,) = interpreter.get_signature_list()
        runner = interpreter.get_signature_runner(signature)
        places = {name: detail["index"] for name, detail in runner.get_input_details().items()}
        named = {detail["index"]: name for name, detail in runner.get_output_details().items()}
        del runner  # the interpreter runs only while nothing has it

        def values(case: Arrays) -> list[TracedValue]:
            for name, array in case.items():
                interpreter.set_tensor(places[name], array)
            interpreter.invoke()
            found = []
            for name, maker in makers.items():
                index = int(name.removeprefix("t"))
                array = interpreter.get_tensor(index)
                if array.dtype.kind == "f":
                    found.append(TracedValue(maker.name, maker.native, maker.kind, named.get(index), array))
            return found

        return values
