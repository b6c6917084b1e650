"""How the values inside a Core ML program are seen: the reference interpreter gives them."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from exporter.core.explanation import TracedValue
from exporter.core.precision import Precision
from exporter.core.types import Arrays, Captured, Options
from exporter.targets.coreml import lowered
from exporter.targets.depending import depending

_ADDED = re.compile(r"(_cast_fp16|_cast_fp32|_to_fp16|_to_fp32|_promoted)+$")  # by coremltools' passes


class CoreMLTracing:
    """Values have names, which begin with those of torch's nodes where coremltools kept them."""

    method = "all values of the reference interpreter, which computes the file itself; on a phone Core ML does"

    def lower(self, captured: Captured, precision: Precision, options: Options, folder: Path) -> Path | None:
        """Return None: the file itself is looked into."""
        return None

    def load(self, model_file: Path) -> Callable[[Arrays], Sequence[TracedValue]]:
        """Load the program into the interpreter."""
        from exporter import mil

        makers = depending(lowered(model_file))
        program = mil.load(model_file)

        def values(case: Arrays) -> list[TracedValue]:
            done = program.execute(case, intermediates=True)
            arrays = {**done.intermediates, **done.outputs}
            return [
                TracedValue(name, maker.native, maker.kind, _ADDED.sub("", name), arrays[name])
                for name, maker in makers.items()
                if name in arrays and arrays[name].dtype.kind == "f"
            ]

        return values
