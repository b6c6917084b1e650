"""`cocorr-export check --init`: a first configuration for the checkpoints at hand, which a person then edits."""

import os
from pathlib import Path

from exporter.core.errors import CheckpointError, OutputError
from exporter.targets import TARGETS
from models import zoo
from models.checkpoint_files import CONFIG, FILES, MAX_BYTES
from safeio import files, strict_json
from safeio.errors import has_controls
from safeio.places import check_file

_MOST_FOLDERS = 1_000
_DEPTH = 3
_ADVICE = "choose another place"


def start_config(path: Path, checkpoint: Path | None) -> list[str]:
    """Write a configuration for a checkpoint, else for those below its folder, else for the shipped SCN; return lines
    that say what it has.

    Raises OutputError where one is there already, and CheckpointError where `checkpoint` is none.
    """
    from exporter.gate import config

    if os.path.lexists(path):
        raise OutputError(f"{path} is there already; remove it to begin anew, or edit it")
    check_file(path, _ADVICE)
    found = _below(path.parent) if checkpoint is None else [(_model_of(checkpoint), checkpoint)]
    targets = [name for name in TARGETS if _can_lower(name)] or list(TARGETS)
    text = config.first_text([(model, _relative(folder, path)) for model, folder in found], targets)
    files.replace_file(path, text.encode(), _ADVICE)
    what = [f"{model} of {folder}" for model, folder in found] or ["scn, as it ships: no checkpoint lies here"]
    listed = f"{path}: {', '.join(what)}; on {', '.join(targets)}"
    return [listed, "next: look at it, then cocorr-export check --update, and commit both files"]


def _below(folder: Path) -> list[tuple[str, Path]]:
    """Return model and folder of the checkpoints a few levels below a folder, none that a link leads to."""
    found, waiting, seen = [], [(folder, 0)], 0
    while waiting and seen < _MOST_FOLDERS:
        here, depth = waiting.pop(0)
        seen += 1
        try:
            with os.scandir(here) as entries:
                folders = sorted(e.name for e in entries if e.is_dir(follow_symlinks=False) and e.name[0] != ".")
        except OSError:
            continue
        if all((here / name).is_file() for name in FILES):
            try:
                found.append((_model_of(here), here))
            except CheckpointError:  # another tool has files of these names
                continue
        elif depth < _DEPTH:
            waiting += [(here / name, depth + 1) for name in folders]
    return found


def _model_of(checkpoint: Path) -> str:
    """Return the model that a checkpoint says it is of; raises CheckpointError."""
    advice = "give a folder that cocorr-train or import wrote"
    try:
        document = strict_json.loads(files.read_file(checkpoint / CONFIG, MAX_BYTES[CONFIG]))
    except (files.UnreadableError, ValueError) as error:
        raise CheckpointError(f"{checkpoint} is no checkpoint: {error}; {advice}") from error
    model = document.get("model") if isinstance(document, dict) else None
    if not isinstance(model, str) or not (model in zoo.MODELS or model in zoo.installed()):
        raise CheckpointError(f"{checkpoint} is of no model that is known by its name; write its entry by hand")
    return model


def _relative(folder: Path, config: Path) -> str:
    """Return the path of a checkpoint as the configuration has it: relative to its own folder."""
    relative = Path(os.path.relpath(folder, config.parent)).as_posix()
    if has_controls(relative):
        raise CheckpointError(f"{folder}: its path has signs that do not print; give it another name")
    return relative


def _can_lower(target: str) -> bool:
    from exporter.targets.environment import left_out

    return left_out(TARGETS[target]) is None
