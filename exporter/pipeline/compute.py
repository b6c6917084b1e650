"""An artifact computes cases that somebody gives it, in its own runtime on this machine."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.core.errors import BadInputError
from exporter.pipeline.arrays import fits_int32, plain
from exporter.pipeline.opening import open_known, require_unchanged

if TYPE_CHECKING:
    import numpy as np

    from exporter.core.types import TensorSpec


def compute(folder: Path, inputs: "Mapping[str, np.ndarray]") -> "dict[str, np.ndarray]":
    """Return the outputs of an artifact, [cases, *shape] by name, for inputs that are [cases, *shape] by name.

    Weights that it reads from a file of its own are those that ship. Raises ArtifactError for a folder that is not as
    it was exported, BadInputError for inputs that do not fit, RuntimeFailureError and RuntimeMissingError.
    """
    from exporter.connections import running
    from exporter.pipeline.subjects import subject_of

    opened = open_known(folder)
    require_unchanged(opened)
    specs = [tensor.spec for tensor in opened.manifest.inputs]
    cases = _fitting(specs, plain(inputs))
    ran = running.run(subject_of(opened.folder, opened.manifest), cases, 0, 0)
    return dict(ran.required(folder).outputs)


def _fitting(specs: "list[TensorSpec]", inputs: "Mapping[str, np.ndarray]") -> "dict[str, np.ndarray]":
    """Return the inputs in a program's order and types; raises BadInputError where one does not fit."""
    import numpy as np

    names = [spec.name for spec in specs]
    wrong = [f"there is no {name!r}" for name in names if name not in inputs]
    wrong += [f"{name!r} is no input" for name in inputs if name not in names]
    if wrong:
        raise BadInputError(f"{wrong[0]}; this artifact takes {', '.join(names)}")
    fitting = {}
    for spec in specs:
        given = array = inputs[spec.name]
        if spec.dtype == "int32" and array.dtype.kind in "iu" and fits_int32(array):
            array = array.astype(np.int32)
        if array.shape[1:] != spec.shape or array.dtype.name != spec.dtype:
            shape = ", ".join(map(str, ("cases", *spec.shape)))
            raise BadInputError(
                f"{spec.name!r} is {given.dtype} {list(given.shape)}; this artifact takes {spec.dtype} [{shape}]"
            )
        fitting[spec.name] = array
    counts = {len(array) for array in fitting.values()}
    if len(counts) != 1:
        raise BadInputError(f"the inputs have {', '.join(map(str, sorted(counts)))} cases; give as many of each")
    return fitting
