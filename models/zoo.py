"""Where each model's SPEC lives; a model is imported when it is asked for, and no sooner.

Models that ship stand in MODELS. Others come from installed packages, by the entry point group ENTRY_POINTS, or from a
file, FILE.py:SPEC; what they raise is a BadInputError that names their file and line.
"""

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from safeio.errors import BadInputError, CocorrError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from models.listed import ListedModel
    from models.spec import ModelSpec

MODELS: dict[str, str] = {
    "scn": f"{__package__}.scn.programs",
    "ofa": f"{__package__}.forward_ofa.programs",
    **{name: f"{__package__}.baselines.{name}" for name in ("din", "gru4rec", "sasrec", "bert4rec", "mamba4rec")},
    "recbole-sasrec": f"{__package__}.recbole.sasrec",
    "recbole-gru4rec": f"{__package__}.recbole.gru4rec",
}
DEFAULT_PROGRAMS: dict[str, str] = {**dict.fromkeys(MODELS, "rerank"), "ofa": "subnet"}
"""What each SPEC says of its default program, for whoever must know it before torch is imported."""
ENTRY_POINTS = "cocorr_export.models"
_FILE = re.compile(r"(?P<file>.+\.py):(?P<name>[A-Za-z_]\w*)", re.DOTALL)
_WORDS_SHOWN = 200


@cache
def installed() -> "dict[str, EntryPoint]":
    """Return the models of installed packages by name, without importing one; those that ship keep their names."""
    if not _are_any_installed():
        return {}
    from importlib.metadata import entry_points

    from models.checking import MODEL_NAME

    found = entry_points(group=ENTRY_POINTS)
    return {entry.name: entry for entry in found if entry.name not in MODELS and MODEL_NAME.fullmatch(entry.name)}


def _are_any_installed() -> bool:
    """Say whether a package names the group: importing what reads it properly takes a fifth of the time of --help."""
    group = f"[{ENTRY_POINTS}]".encode()
    for place in sys.path:
        try:
            with os.scandir(place or ".") as entries:
                described = [entry.path for entry in entries if entry.name.endswith((".dist-info", ".egg-info"))]
        except OSError:
            continue
        for folder in described:
            try:
                if group in Path(folder, "entry_points.txt").read_bytes():
                    return True
            except OSError:
                continue
    return False


def is_known(name: str) -> bool:
    """Say whether `load_spec` knows where to look for a model; FILE.py:SPEC is always known."""
    return name in MODELS or _FILE.fullmatch(name) is not None or name in installed()


def load_spec(name: str) -> "ModelSpec":
    """Import and return the SPEC of a model: of its name, or FILE.py:SPEC, which runs that file.

    Raises KeyError for a name that is not known, and BadInputError where code from elsewhere cannot be used.
    """
    if not is_known(name):
        raise KeyError(name)
    if name in MODELS:
        shipped: ModelSpec = importlib.import_module(MODELS[name]).SPEC
        return shipped
    file = _FILE.fullmatch(name)
    with foreign(name):
        loaded = installed()[name].load() if file is None else _run(Path(file["file"]), file["name"])
    spec = _checked(name, loaded)
    if file is None and spec.name != name:
        raise BadInputError(f"{name}: its package gives a model that is called {spec.name!r}; make the two names one")
    return spec


def listed(name: str) -> "ListedModel":
    """Return what a model and its programs are; only one that does not ship is imported. Raises as `load_spec`."""
    from models.listed import SHIPPED, ListedModel, ListedProgram

    if name in SHIPPED:
        return SHIPPED[name]
    spec = load_spec(name)
    programs = spec.programs.values()
    return ListedModel(
        spec.description, {program.name: ListedProgram(program.runs_on, program.description) for program in programs}
    )


@contextmanager
def foreign(name: str) -> Iterator[None]:
    """Run code of a model in the body: for one from elsewhere whatever it raises is a BadInputError, with its line.

    What it prints goes to stderr, as stdout may be a document.
    """
    if name in MODELS:
        yield
        return
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (CocorrError, KeyboardInterrupt):
        raise
    except BaseException as error:  # code of others may raise what is no Exception: sys.exit, or a class of its own
        from safeio.traces import line_of, said

        where = line_of(error)
        words = (said(error).strip().splitlines() or [""])[0][:_WORDS_SHOWN]
        raise BadInputError(
            f"{name}{f', {where}' if where else ''}: {type(error).__name__}{f': {words}' if words else ''};"
            " mend the model and start again"
        ) from error


def _run(path: Path, name: str) -> object:
    """Run a file as a module of its own name and return what is called `name` in it; raises what the file raises."""
    if not path.is_file():
        raise BadInputError(f"{path} is no file; give a model as FILE.py:SPEC")
    module_name = f"cocorr_model_{path.stem}"
    described = importlib.util.spec_from_file_location(module_name, path.resolve())
    if described is None or described.loader is None:
        raise BadInputError(f"{path} is no Python file; give a model as FILE.py:SPEC")
    module = importlib.util.module_from_spec(described)
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)  # behind all others: its neighbours can be imported, and hide nothing
    sys.modules[module_name] = module
    described.loader.exec_module(module)
    if not hasattr(module, name):
        raise BadInputError(f"{path} has no {name}; give the name of its ModelSpec: FILE.py:SPEC")
    return getattr(module, name)


def _checked(name: str, spec: object) -> "ModelSpec":
    """Return a ModelSpec; raises BadInputError for what is none, or has parts that cannot be used."""
    from models.checking import check
    from models.spec import ModelSpec

    if not isinstance(spec, ModelSpec):
        raise BadInputError(f"{name} is {type(spec).__name__}, not a ModelSpec; see docs/adding-a-model.md")
    with foreign(name):
        try:
            check(spec)
        except ValueError as error:
            raise BadInputError(f"{name}: {error}") from error
    if spec.name in MODELS:
        raise BadInputError(f"{name}: {spec.name!r} is the name of a model that ships; call yours otherwise")
    return spec
