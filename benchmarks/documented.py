"""Lower a torch module as each vendor's own documentation says, with its default options and nothing else.

Sources: "Export a PyTorch model to ONNX" of PyTorch's tutorials; "Model Export and Lowering" of ExecuTorch's manual,
with the backend that it names for CPUs, XNNPACK; the README of litert-torch.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import measuring
import torch
from torch import Tensor, nn

from exporter.core.extras import without_noise
from exporter.core.types import Arrays, TensorSpec

Names = tuple[Sequence[str], Sequence[str]]
"""Of the inputs and the outputs in the file."""


def onnx(module: nn.Module, inputs: Mapping[str, Tensor], path: Path) -> Names:
    """Write what torch.onnx.export gives."""
    program = torch.onnx.export(module, tuple(inputs.values()), dynamo=True)
    assert program is not None
    program.save(path)
    graph = program.model_proto.graph
    return [value.name for value in graph.input], [value.name for value in graph.output]


def executorch(module: nn.Module, inputs: Mapping[str, Tensor], path: Path) -> Names:
    """Write what to_edge_transform_and_lower gives with the partitioner of XNNPACK; inputs have places, not names."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    exported = torch.export.export(module, tuple(inputs.values()))
    program = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch()
    path.write_bytes(program.buffer)
    return list(inputs), [f"output_{place}" for place, _ in enumerate(exported.graph_signature.user_outputs)]


def tflite(module: nn.Module, inputs: Mapping[str, Tensor], path: Path) -> Names:
    """Write what litert_torch.convert gives."""
    import litert_torch
    from ai_edge_litert.interpreter import Interpreter

    litert_torch.convert(module, tuple(inputs.values())).export(str(path))
    (signature,) = Interpreter(str(path)).get_signature_list().values()
    return signature["inputs"], signature["outputs"]


CALLS: Mapping[str, Callable[[nn.Module, Mapping[str, Tensor], Path], Names]] = {
    "onnx": onnx,
    "executorch": executorch,
    "tflite": tflite,
}


def lower(target: str, module: nn.Module, inputs: Arrays, path: Path) -> measuring.Lowered:
    """Lower a module through its vendor's call; `inputs` [1, *shape] by name are those of one call."""
    module.eval()
    # A copy: an axis that numpy added has stride 0, which ExecuTorch refuses, and no tensor of torch's own has it.
    tensors = {name: torch.from_numpy(array[0].copy()) for name, array in inputs.items()}
    with torch.no_grad():
        results = module(*tensors.values())
    values = results if isinstance(results, tuple) else (results,)
    with without_noise(r"."):
        taken, given = CALLS[target](module, tensors, path)
    specs = [TensorSpec(name, tuple(v.shape), "float32") for name, v in zip(given, values, strict=True)]
    named = dict(zip(taken, inputs.values(), strict=True))
    return measuring.callable_program(target, path, named, tuple(specs))
