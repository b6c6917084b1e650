"""The Python API: a torch module or program to an artifact, and what an artifact can be asked.

Everything is done by `exporter.pipeline`, as for the commands; nothing is printed, and what is wrong is raised.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from exporter import pipeline
from exporter.core.errors import BadInputError, LoweringError, UnknownNameError
from exporter.core.precision import Asked
from exporter.targets import TARGETS
from safeio.places import parse_path

if TYPE_CHECKING:
    import numpy as np

    from exporter.artifact.manifest import Manifest
    from exporter.core.sections import Parity


@dataclass(frozen=True)
class Artifact:
    """A program lowered for one target: a folder with the model file, its manifest and its golden cases."""

    folder: Path

    def __post_init__(self) -> None:
        _require("folder", self.folder, Path)

    @property
    def manifest(self) -> "Manifest":
        """Return the typed truth about it, read anew; raises ArtifactError where the folder holds no artifact."""
        return pipeline.read_manifest(self.folder)

    def run(self, inputs: "Mapping[str, np.ndarray]") -> "dict[str, np.ndarray]":
        """Compute the outputs of cases, [cases, *shape] by name, in the artifact's own runtime on this machine.

        Inputs are those of the manifest, [cases, *shape] each; ids may be of any whole-number type. Raises
        BadInputError for inputs that do not fit, RuntimeFailureError where the runtime fails, and RuntimeMissingError
        where there is none here.
        """
        return pipeline.compute(self.folder, inputs)

    def parity(self, connection: str = "host") -> "Parity":
        """Run the golden cases again and judge them; `verdict` is pass, fail or unverified.

        `connection` is host, emulator, or a device profile whose device runs them.
        """
        _require("connection", connection, str)
        return pipeline.parity(self.folder, _silent, connection).manifest.parity

    def profile(self, iterations: int = 200, connection: str = "host") -> "Manifest":
        """Count, measure and time it; the figures go into its manifest.json and are returned with it.

        `iterations` are the calls to time, 1 to 1,000,000.
        """
        _require("iterations", iterations, int)
        if not 1 <= iterations <= pipeline.MOST_ITERATIONS:
            raise BadInputError(f"iterations is {iterations}; give 1 to {pipeline.MOST_ITERATIONS}")
        _require("connection", connection, str)
        request = pipeline.ProfileRequest(self.folder, iterations, connection=connection)
        return pipeline.profile(request, _silent).manifest


def load(folder: str | Path) -> Artifact:
    """Return the artifact in a folder; raises ArtifactError where none is there, or one that is not known here."""
    _require("folder", folder, str, Path)
    artifact = Artifact(parse_path(folder))
    pipeline.read_manifest(artifact.folder)
    return artifact


def export(
    module: Any,
    inputs: "Mapping[str, np.ndarray]",
    target: str,
    *,
    name: str | None = None,
    ranking: str | None = None,
    outputs: list[str] | tuple[str, ...] | None = None,
    profile: str = "generic",
    precision: Asked | None = None,
    output: str | Path = "artifacts",
    force: bool = False,
) -> Artifact:
    """Lower a torch module or ExportedProgram for a target, run its golden cases there and judge them.

    `inputs` are the golden inputs by the names that forward gives them, [cases, *shape] each: torch computes from them
    what the artifact has to say. Ids may be int64, as torch has them; they are int32 in the artifact. `ranking` names
    the output whose order parity keeps, `outputs` all of them in order: without it a dict's keys are their names, or
    `output`, or `output_0` and so on. The artifact is put below `output`, by `name` (the module's class), the profile
    and the target; another artifact that is there is replaced with `force` only. A failed verdict is no error: see
    `artifact.manifest.parity`.

    Raises LoweringError where torch or the converter refuses the program, and BadInputError for what does not fit.
    """
    from exporter.artifact.results import Refusal

    _require("target", target, str)
    _require("name", name, str, None)
    _require("ranking", ranking, str, None)
    _require("profile", profile, str)
    _require("output", output, str, Path)
    _require("force", force, bool)
    _require("outputs", outputs, list, tuple, None)
    for one in outputs or ():
        _require("a name in outputs", one, str)
    _require("precision", precision, str, None)
    if precision is not None and precision not in get_args(Asked):
        raise UnknownNameError("precision", precision, get_args(Asked))
    if target not in TARGETS:
        raise UnknownNameError("target", target, TARGETS)
    choice = pipeline.GivenModule(
        name=type(module).__name__ if name is None else name,
        module=module,
        inputs=inputs,
        ranking=ranking,
        outputs=None if outputs is None else tuple(outputs),
    )
    request = pipeline.ExportRequest(choice, target, parse_path(output), profile, precision, force)
    (result,) = pipeline.export(request, _silent)
    if isinstance(result, Refusal):
        raise LoweringError(result.error)
    return Artifact(Path(result.place))


def _require(name: str, value: object, *kinds: type | None) -> None:
    """Raise BadInputError where an argument is of none of these types; what is true or false is no number."""
    known = tuple(type(None) if kind is None else kind for kind in kinds)
    if not isinstance(value, known) or (isinstance(value, bool) and bool not in known):
        wanted = " or ".join("None" if kind is None else kind.__name__ for kind in kinds)
        raise BadInputError(f"{name} is {type(value).__name__}; give {wanted}")


def _silent(_message: str) -> None:
    """Take what a command would show of its progress."""
