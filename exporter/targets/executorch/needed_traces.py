"""torch's decompositions, but those alone that have something to decompose; and no compiler that nothing uses.

To lower a program for XNNPACK, ExecuTorch has torch decompose it three times, and each time torch traces it anew:
with an empty table, which makes it functional; with a table without what XNNPACK wants to see whole; and, when that has
other names, with all. A functional program comes out of the first as it went in, and one in which nothing is left to
decompose out of the third. Without these two the file has the same bytes.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from safeio import process

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_POST_GRAD = "torch._inductor.fx_passes.post_grad"
_FOR_COMPILER = ("auto_functionalized", "control_deps")
"""What the one function looks for, by parts of names of operations."""


@contextmanager
def needed_decompositions() -> Iterator[None]:
    """Let torch leave out, in the body, the decompositions of a program that would give it back as it is."""
    from torch.export import ExportedProgram

    every = ExportedProgram.run_decompositions
    decomposed = None

    def needed(program: "ExportedProgram", decomp_table: Any = None, **settings: Any) -> Any:
        nonlocal decomposed
        if decomp_table is not None and not settings and _changes_nothing(program, decomp_table, program is decomposed):
            return program
        decomposed = every(program, decomp_table, **settings)
        return decomposed

    ExportedProgram.run_decompositions = needed
    try:
        yield
    finally:
        ExportedProgram.run_decompositions = every


def _changes_nothing(program: "ExportedProgram", table: Mapping[Any, Any], is_decomposed: bool) -> bool:
    """Say whether a program has nothing to decompose by a table; `is_decomposed`: it came out of a decomposition.

    What torch decomposes without being asked, as a reshape into a view, is in no table: an empty one leaves that to the
    next decomposition.
    """
    calls = [node.target for node in _nodes(program) if node.op == "call_function"]
    if len(table) == 0:
        return not any(getattr(getattr(target, "_schema", None), "is_mutable", False) for target in calls)
    return is_decomposed and not any(target in table for target in calls)


def _nodes(program: "ExportedProgram") -> Iterator[Any]:
    """Yield the nodes of a program, those of its branches and loops among them."""
    for module in program.graph_module.modules():
        if hasattr(module, "graph"):
            yield from module.graph.nodes


@contextmanager
def without_compiler() -> Iterator[None]:
    """Import ExecuTorch in the body, in a process of our own, without the compiler of torch.compile.

    It takes one function of it, for programs with an operation that changes its inputs; one that has none comes out as
    it went in, and another brings the compiler in then. So does whatever else is asked of the stand-in.
    """
    if not process.is_alone() or _POST_GRAD in sys.modules:
        yield
        return

    def real() -> ModuleType:
        import importlib

        if sys.modules.get(_POST_GRAD) is stand_in:
            del sys.modules[_POST_GRAD]
        return importlib.import_module(_POST_GRAD)

    def decompose_auto_functionalized(graph: Any) -> None:
        if any(name in str(node.target) for node in graph.nodes for name in _FOR_COMPILER):
            real().decompose_auto_functionalized(graph)

    def other(name: str) -> Any:
        if name.startswith("__"):  # as Python asks whether it is a package
            raise AttributeError(name)
        return getattr(real(), name)

    stand_in = ModuleType(_POST_GRAD)
    vars(stand_in).update(decompose_auto_functionalized=decompose_auto_functionalized, __getattr__=other)
    sys.modules[_POST_GRAD] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(_POST_GRAD) is stand_in:
            del sys.modules[_POST_GRAD]
