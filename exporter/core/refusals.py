"""Why a converter refused a program, in one short line: what was wrong, which operation, whose line, what to do.

Converters answer in their own words, with advice for those who write converters. What is kept of them is the sentence
that says what was wrong; the operation is looked for in the captured graph, whose nodes know the lines that they come
from.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from exporter.core.types import Captured
from safeio.errors import one_line
from safeio.traces import line_in, line_of, said

_WORDS_SHOWN = 200
# What converters say before and after what was wrong.
_BEFORE = re.compile(r".*## Exception summary\s*|<class '[\w.]+'>: |\x1b\[[\d;]*m", re.DOTALL)
_AFTER = re.compile(
    r"There are a few things to try|While executing|[Ss]tack trace: |Failure message: |Original traceback|See https?:"
    r"|\(unhinted: |consider using data-dependent|For more information|Did you accidentally|\(https?://"
)
# How they name an operation: by its ATen name, or by that of the node.
_NAMED = re.compile(
    r"(?:aten|prims)(?:\.|::)(\w+)|fx node (\w+)|\bnode (\w+) \(|lowering for Torch `(\w+)`|Layer \"(\w+)\"|%(\w+) :"
)
_VALUES = "data-dependent"


def explain(error: BaseException, captured: Captured | None) -> str:
    """Return why an error of a converter, or of torch.export where nothing is captured yet, says no."""
    text = said(error)
    words = _words(text) or type(error).__name__
    if captured is None:
        line = line_of(error) or line_in(text)
        if _VALUES in text:
            words = "an `if`, a loop or an index depends on values of tensors"
            advice = "write it for all values alike, as torch.where does"
        else:
            advice = "write that part with plain operations on tensors"
        return f"{words}{f', in {line}' if line else ''}; {advice}"
    operation, line = None, None
    with suppress(Exception):  # what torch makes of the program for converters may be what fails
        operation, line = _operation(text, captured)
    line = line or line_in(text)
    where = f"; {operation or 'an operation'} in {line}" if line else f"; {operation}" if operation else ""
    return f"{words}{where}; write that part with other operations, or choose another target"


def _words(text: str) -> str:
    """Return the sentence of a converter's message that says what was wrong."""
    kept = _BEFORE.sub("", text)
    kept = one_line(_AFTER.split(kept)[0]).strip(' ."')
    return kept if len(kept) <= _WORDS_SHOWN else f"{kept[:_WORDS_SHOWN]}..."


def _operation(text: str, captured: Captured) -> tuple[str | None, str | None]:
    """Return the first operation that a message names and the graph has, and the line of the source it comes from."""
    named = [_plain(next(filter(None, found.groups()))) for found in _NAMED.finditer(text)]
    if not named:
        return None, None
    for node in _nodes(captured):
        operation = str(node.target).rpartition(".")[0]  # aten.add of aten.add.Tensor
        if _plain(node.name) in named or (operation and _plain(operation.rpartition(".")[2]) in named):
            return operation or None, line_in(str(node.meta.get("stack_trace", "")))
    return None, None


def _plain(name: str) -> str:
    """Return a name without underscores: what is aten.erfinv for torch is prims.erf_inv for a converter."""
    return name.replace("_", "")


def _nodes(captured: Captured) -> Iterator[Any]:
    """Yield the operations of the program as it was captured, then of what torch makes of it for converters."""
    plain = captured.plain if captured.plain is not None else captured.exported
    for exported in (lambda: plain, lambda: plain.run_decompositions({}), plain.run_decompositions):
        yield from (node for node in exported().graph.nodes if node.op == "call_function")
