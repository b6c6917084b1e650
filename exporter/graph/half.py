"""The pass `half`: all that a program computes in 16-bit floats, with its inputs and outputs unchanged."""

from exporter.graph.editing import Editor
from exporter.graph.rewriting import Pass


def half(editor: Editor) -> int:
    """Turn all that is fp32 inside into fp16; inputs and outputs stay as they are."""
    import torch

    graph, convert = editor.graph, torch.ops.aten.to.dtype
    for node in graph.nodes:
        # dtypes that the graph names, as in aten.arange(dtype=) and aten.to.dtype(x, dtype)
        node.args = tuple(torch.float16 if value is torch.float32 else value for value in node.args)
        node.kwargs = {key: torch.float16 if value is torch.float32 else value for key, value in node.kwargs.items()}
    editor.graph_module.half()
    inputs = list(graph.find_nodes(op="placeholder"))
    first = next(node for node in graph.nodes if node.op not in ("placeholder", "get_attr"))
    with graph.inserting_before(first):
        for node in inputs:
            if editor.dtype(node) == torch.float32:
                users = list(node.users)
                halved = graph.call_function(convert, (node, torch.float16))
                for user in users:
                    user.replace_input_with(node, halved)
    end = graph.output_node()
    with graph.inserting_before(end):
        for value in end.all_input_nodes:
            if editor.dtype(value) == torch.float32:
                end.replace_input_with(value, graph.call_function(convert, (value, torch.float32)))
    return 1


PASS = Pass("half", "compute in 16-bit floats", frozenset({"half"}), half)
