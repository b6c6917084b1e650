"""Programs that torch.export.save wrote, read as untrusted files.

torch.export.load is not used: it unpickles sample inputs and some tensors, evaluates the sizes of dynamic axes as
Python, takes operators by any dotted name below `torch`, and compiles guards. Here the archive is opened by `archive`,
its graph is held to what a program needs by `checks`, its tensors are made of their bytes by `tensors`, and only the
last step, which builds the graph from values that were checked, is torch's own. No pickle is loaded.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.core.errors import CocorrError, ProgramError
from exporter.core.extras import without_noise
from exporter.graph.pt2 import archive, checks, tensors

_WORDS_SHOWN = 160


@dataclass(frozen=True)
class Saved:
    """A program from a file: torch's ExportedProgram, its dynamic axes (value, axis), and the file's SHA-256.

    In `exported` a dynamic axis has the size that it had when the program was exported, and inputs and outputs are in
    a row; `outputs` is the form that the outputs had, as torch's pytree writes it.
    """

    exported: Any
    dynamic: frozenset[tuple[str, int]]
    outputs: str
    sha256: str


def read(path: Path) -> Saved:
    """Read a .pt2; raises ProgramError, whatever is wrong with it."""
    try:
        with without_noise():
            opened = archive.read(path)
            program, dynamic, outputs = checks.graph(opened.graph)
            state, constants = tensors.read(opened)
            built = _built(program, state, constants)
            return Saved(built, dynamic, outputs, hashlib.sha256(opened.data).hexdigest())
    except ProgramError as error:
        raise ProgramError(f"{path} {error}") from error
    except CocorrError:
        raise
    except Exception as error:  # zipfile, json, torch and sympy raise a dozen kinds for what is damaged
        why = (str(error).strip().splitlines() or [""])[0][:_WORDS_SHOWN]
        raise ProgramError(
            f"{path} is damaged, or was not written by torch.export.save ({type(error).__name__}: {why}); save it again"
        ) from error


def _built(program: Any, state: Any, constants: Any) -> Any:
    """Return the ExportedProgram of a graph that was checked and its tensors by name."""
    from torch._export.serde.serialize import ExportedProgramDeserializer

    return ExportedProgramDeserializer().deserialize(program, state, constants, None)
