"""Toy files: the captured graph as text, and the program for torch to run. The smallest target there can be."""

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from exporter.core.calling import Calling, Snippet
from exporter.core.extras import converting, require
from exporter.core.precision import Precision
from exporter.core.protocols import Target
from exporter.core.types import Captured, DeviceRuntime, GraphForm, Lowered, MemoryPlan, Operation, Options
from safeio.files import write_new

if TYPE_CHECKING:
    from pydantic import BaseModel


class ToyTarget:
    """`.json` files with a line for each operation."""

    name = "toy"
    extra = "toy"
    packages: Mapping[str, str] = {"torch": "torch"}
    precisions: tuple[Precision, ...] = ("fp32",)
    external_weights: Literal["inputs", "parameters"] = "inputs"
    system: str | None = None
    runtime = DeviceRuntime("Toy", "torch", ("torch",), Path(__file__).with_name("loader.py"))
    model_file: str = "model.json"
    read_beside: tuple[str, ...] = ()
    passes = ("select_early",)
    any_batch = False

    def options_model(self) -> "type[BaseModel]":
        """Return ToyOptions."""
        from exporter.targets.toy.options import ToyOptions

        return ToyOptions

    def fp16_form(self, options: Options) -> GraphForm:
        """It takes any graph."""
        return "half"

    def refusal(self, precision: Precision, options: Options) -> str | None:
        """Return None: its options say nothing of precision."""
        return None

    def unverifiable(self, options: Options) -> str | None:
        """Return None: torch runs whatever is lowered here."""
        return None

    def lower(self, captured: Captured, precision: Precision, options: Options, folder: Path) -> Path:
        """Write model.json."""
        with converting(f"torch could not store {captured.model}/{captured.program}"):
            torch = require("torch", self.extra)
            stored = io.BytesIO()
            torch.export.save(captured.exported, stored)
            document = {
                "inputs": [{"name": spec.name, "shape": spec.shape, "dtype": spec.dtype} for spec in captured.inputs],
                "outputs": [spec.name for spec in captured.outputs],
                "graph": [[node.name, str(node.target)] for node in captured.exported.graph.nodes],
                "program": base64.b64encode(stored.getvalue()).decode("ascii"),
            }
        path = folder / self.model_file
        write_new(path, json.dumps(document).encode("ascii"))
        return path

    def snippets(self, call: Calling) -> tuple[Snippet, ...]:
        """Return none: nobody calls a toy."""
        return ()

    def read(self, model_file: Path) -> Lowered:
        """Read the operations, of no kind that anybody counts, and the inputs."""
        document = json.loads(model_file.read_text(encoding="ascii"))
        return Lowered(
            operations=tuple(
                Operation(name, native, None, (), ()) for name, native in document["graph"] if native.startswith("aten")
            ),
            constants=(),
            inputs=tuple((entry["name"], entry["name"]) for entry in document["inputs"]),
            memory_plan=MemoryPlan(None, None, "", "a toy has no plan"),
        )

    def tracing(self) -> None:
        """Return None: nobody looks into a toy."""


TARGET: Target = ToyTarget()
