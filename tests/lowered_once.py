"""One program is lowered once in a session, whichever test or test process asks first; all others get its files.

Converters take most of the time that the tests need, and many tests begin with the same artifact. What is kept is what
the target itself wrote; a program, weights, options or precision that differ are lowered anew, and so is everything
that the installed command lowers.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

from exporter.core.types import Captured
from exporter.targets import TARGETS

Lower = Callable[[Captured, str, Mapping[str, Any], Path], Path]


def digest(target: str, captured: Captured, precision: str, options: Mapping[str, Any]) -> str:
    """Return a hash of all that a target sees: the graph with its shapes, the weights, and what is asked for."""
    exported, external = captured.exported, captured.external
    words = [target, precision, dict(options), captured.model, captured.program, str(exported)]
    words += [[repr(spec) for spec in (*captured.inputs, *captured.outputs)]]
    words += [None if external is None else dict(external.metadata), asdict(captured.about)]
    known = hashlib.sha256(json.dumps(words, sort_keys=True).encode())
    tensors = {**exported.state_dict, **exported.constants}
    arrays = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    for group in (arrays, captured.examples, {} if external is None else external.tensors):
        for name, array in group.items():
            known.update(f"{name} {array.dtype} {array.shape}".encode())
            known.update(np.ascontiguousarray(array).tobytes())
    return known.hexdigest()


def once(target: str, lower: Lower, kept: Path) -> Lower:
    """Return `lower` of a target, which copies from `kept` what was lowered before."""

    def lower_or_copy(captured: Captured, precision: str, options: Mapping[str, Any], folder: Path) -> Path:
        place = kept / digest(target, captured, precision, options)
        with FileLock(f"{place}.lock"):
            name, files = place / "name", place / "files"
            if not name.exists():
                before = set(folder.iterdir())
                model_file = lower(captured, precision, options, folder)
                shutil.rmtree(place, ignore_errors=True)
                files.mkdir(parents=True)
                for path in set(folder.iterdir()) - before:
                    copy(path, files / path.name)
                name.write_text(model_file.name)
                return model_file
        if any((folder / path.name).exists() for path in files.iterdir()):  # the target says what it says of that
            return lower(captured, precision, options, folder)
        for path in files.iterdir():
            copy(path, folder / path.name)
        return folder / name.read_text()

    return lower_or_copy


def copy(path: Path, place: Path) -> None:
    """Copy a file or a folder."""
    if path.is_dir():
        shutil.copytree(path, place)
    else:
        shutil.copyfile(path, place)


@contextmanager
def kept_in(folder: Path) -> Iterator[None]:
    """Let every target lower a program once in the body and keep it in `folder`."""
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        for name, target in TARGETS.items():
            patch.setattr(type(target), "lower", staticmethod(once(name, target.lower, folder)))
        yield
