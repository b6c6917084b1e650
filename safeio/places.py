"""The one place that decides where output may go; asked before the work begins, not after."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from unicodedata import category

from safeio import files, locks, strict_json
from safeio.errors import BadInputError, OutputError, has_controls

MANIFEST = "manifest.json"
"""An artifact has a file of this name that lists all others in it; nothing else may be put there."""
MAX_MANIFEST_BYTES = 16 << 20
_NAME_MAX = 255
_PATH_MAX = 4096 - 512  # what is put there has names of its own
Foreign = Callable[[Path], str | None]
"""Returns the name of something in a folder that is not what would be replaced there, or None."""
Facts = Mapping[str, object]
"""What tells apart what may stand at one place, by its name in messages; None: not known, and not compared."""
_SHOWN_LETTERS = 40


def parse_path(word: str | Path) -> Path:
    """Return the path that a user wrote, or an option's default; raises BadInputError for a word that can be no path.

    All paths of both commands come through here. Runtimes and converters take file names as UTF-8 only.
    """
    text = str(word)
    if not text:
        raise BadInputError("an empty word stands where a path is wanted; give a path, or leave the option out")
    if "\0" in text:
        raise BadInputError(f"{text!r} has a NUL in it and is no path; give another")
    if any(category(sign) == "Cs" for sign in text):  # how Python shows bytes that are not UTF-8
        raise BadInputError(f"{text!r} is not UTF-8, which the runtimes ask of names; rename it or move the files")
    return Path(text)


def check_folder(place: Path, foreign: Foreign, advice: str) -> Path:
    """Return where a folder may be written or replaced, with links in its path resolved; raises OutputError.

    Nothing of `place` needs to be there. `foreign` says what of an existing folder would be lost; what `place` is then
    must be a folder of the kind that is written, or empty.
    """
    real = _resolve(place, advice)
    if real == Path.cwd() or real in Path.cwd().parents:
        raise OutputError(
            f"{place} is or holds the folder that this command runs in, which cannot be replaced; {advice}"
        )
    if os.path.lexists(real):
        if not real.is_dir():
            raise OutputError(f"{place} is no folder; {advice}")
        if real.is_mount():
            raise OutputError(f"{place} is a mount point, which cannot be replaced; give a folder in it")
        try:
            other = foreign(real) if any(real.iterdir()) else None
        except OSError as error:
            raise OutputError(f"{place} cannot be read: {error.strerror}; {advice}") from error
        if other is not None:
            raise OutputError(f"{place} holds {other!r}, which would be lost; {advice} or move it away")
    _check_parent(place, real, advice)
    _try(place, real, advice)
    return real


def check_within(folder: Path, advice: str) -> None:
    """Raise OutputError where nothing can be put below a folder, which need not be there."""
    _check_parent(folder, _resolve(folder / "new", advice), advice)


def check_facts(place: Path, kind: str, held: Facts, facts: Facts) -> None:
    """Raise OutputError where what stands at `place`, an artifact or a checkpoint, differs from what shall go there."""
    differing = [name for name, value in facts.items() if None not in (value, held[name]) and value != held[name]]
    if differing:
        differences = ", ".join(words for name in differing for words in _differences(name, held[name], facts[name]))
        raise OutputError(
            f"{place} holds another {kind}: {differences}; choose another --output, or replace it with --force"
        )


def _differences(name: str, held: object, new: object) -> list[str]:
    """Return in words how two values differ, those of mappings by the keys that do."""
    if not (isinstance(held, Mapping) and isinstance(new, Mapping)):
        return [f"{name} {_shown(held)} and not {_shown(new)}"]
    keys = [key for key in sorted({*held, *new}) if held.get(key) != new.get(key)]
    return [
        words for key in keys for words in _differences(f"{name} {key}", held.get(key, "none"), new.get(key, "none"))
    ]


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]}..."


def check_file(place: Path, advice: str, within: Path | None = None) -> Path:
    """Return where a file may be written or replaced, with links in its path resolved; raises OutputError.

    `within` is an artifact whose own file it is.
    """
    real = _resolve(place, advice, within)
    if os.path.lexists(real) and not real.is_file():
        raise OutputError(f"{place} is a folder, a pipe or a device, and no file to be replaced; {advice}")
    if not real.parent.is_dir():
        raise OutputError(f"cannot write {place}: there is no folder {real.parent}; {advice}")
    _check_parent(place, real, advice)
    _try(place, real, advice)
    return real


def _resolve(place: Path, advice: str, within: Path | None = None) -> Path:
    """Return a place without links in its path; refuse one without a name, in an artifact, or with a bad name."""
    try:
        real = Path(os.path.realpath(place))
    except (OSError, ValueError) as error:
        raise OutputError(f"{place} is no place that can be written; {advice}") from error
    if real.parent == real or not real.name:
        raise OutputError(f"{place} is no name of a place that can be replaced; {advice}")
    # Line breaks and control characters, and bytes that are not UTF-8, which converters do not take.
    bad = next(filter(has_controls, real.parts), None)
    if bad is not None:
        raise OutputError(f"{bad!r} in the path has control characters or is not UTF-8; {advice}")
    if len(os.fsencode(real.name)) + locks.NAME_BYTES > _NAME_MAX:
        raise OutputError(f"{real.name[:40]}... is too long a name; {advice}")
    if len(os.fsencode(real)) > _PATH_MAX or any(len(os.fsencode(part)) > _NAME_MAX for part in real.parts):
        raise OutputError(f"{str(place)[:40]}... is too long a path; {advice}")
    spoilt = next((folder for folder in real.parents if folder != within and _is_artifact(folder)), None)
    if spoilt is not None:
        raise OutputError(f"{place} lies inside the artifact {spoilt}, which would then not be as listed; {advice}")
    return real


def _is_artifact(folder: Path) -> bool:
    """Say whether a folder lists its files in a manifest; other tools have files of that name too."""
    try:
        manifest = strict_json.loads(files.read_file(folder / MANIFEST, MAX_MANIFEST_BYTES))
    except (files.UnreadableError, ValueError):
        return False
    return isinstance(manifest, dict) and isinstance(manifest.get("files"), list) and "schema_version" in manifest


def _check_parent(place: Path, real: Path, advice: str) -> None:
    """Refuse a place below a file, or where nothing may be written."""
    parent = next(path for path in real.parents if os.path.lexists(path))
    if not parent.is_dir():
        raise OutputError(f"cannot write {place}: {parent} is no folder; {advice}")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {place}: no permission to write in {parent}; {advice}")


def _try(place: Path, real: Path, advice: str) -> None:
    """Find out what else the system has against a place: root may do all, but not in /proc.

    If this is killed, whoever writes the place next removes the file.
    """
    if real.parent.is_dir():
        with files.writing(place, advice):
            path, file = locks.new_file(lambda: locks.new_name(real))
            path.unlink()
            file.close()
