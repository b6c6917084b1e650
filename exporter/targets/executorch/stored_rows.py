"""Rows of tables in 8 bits, turned into fp32 by XNNPACK.

ExecuTorch's own kernel for that cast takes some 40 instructions a number, more than all else of a small model. To
XNNPACK a tensor of int8 with a scale of 1 is the same numbers, which it dequantises with vector instructions.
"""

from typing import Any

_NAMESPACE = "quantized_decomposed"


def dequantised(graph_module: Any) -> Any:
    """Write casts from int8 to fp32 as a dequantisation with the scale 1, in the graph of an edge program."""
    import torch
    from executorch.exir.dialects._ops import ops
    from torch.fx.passes.infra.pass_base import PassResult

    operation = ops.edge.quantized_decomposed.dequantize_per_tensor.default
    casts = (ops.edge.dim_order_ops._to_dim_order_copy.default, ops.edge.aten._to_copy.default)
    changed = False
    for node in list(graph_module.graph.nodes):
        if node.target not in casts or node.meta["val"].dtype != torch.float32:
            continue
        (stored,) = node.all_input_nodes
        if stored.meta["val"].dtype == torch.int8:
            with graph_module.graph.inserting_before(node):
                number = graph_module.graph.call_function(operation, (stored, 1.0, 0, -128, 127, torch.int8))
            number.meta = dict(node.meta)
            node.replace_all_uses_with(number)
            graph_module.graph.erase_node(node)
            changed = True
    graph_module.recompile()
    return PassResult(graph_module, changed)


def is_outside(edge: Any) -> bool:
    """Say whether a dequantisation is left outside of the delegates, where the runtime may have no kernel for it."""
    return any(_NAMESPACE in str(node.target) for node in edge.exported_program().graph.nodes)
