"""What a configuration of the gate asks for, one job for each artifact: its name, what it is made of, and its key."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.connections import connect
from exporter.core.errors import BadInputError, CheckpointError, ConfigError, OutputError, UnknownNameError
from exporter.pipeline import cache
from exporter.pipeline.lengths import Report
from exporter.pipeline.listing import require_model
from exporter.pipeline.request import ProgramChoice, SavedProgram
from exporter.targets import TARGETS
from models import checkpoint_files, zoo

if TYPE_CHECKING:
    from exporter.core.precision import Precision
    from exporter.gate.config import Config, Entry
    from exporter.profiles import DeviceProfile

_SHIPPED = Path(__file__).resolve().parents[2] / "models" / "pretrained"


@dataclass(frozen=True)
class Job:
    """One artifact that is to be checked.

    `name` is what the baseline knows it by, `stem` the part of it before the precision, and `place` the file and
    line of its entry; jobs with one `group` differ by their targets alone. `precision` is what is asked of the
    export, None for the profile's, and `source` the SHA-256 of the checkpoint, or of a .pt2 and its golden inputs.
    """

    entry: "Entry"
    choice: ProgramChoice | SavedProgram
    target: str
    profile: "DeviceProfile"
    profile_word: str
    precision: "Precision | None"
    group: tuple[int, str, str | None]
    place: str
    stem: str
    name: str
    source: str
    key: str


def jobs_of(config: "Config", report: Report) -> tuple[list[Job], dict[str, str]]:
    """Return the jobs of a configuration, and the versions of all packages that make their artifacts.

    Raises ConfigError with the line of the key that names what is not known.
    """
    from exporter.targets.environment import versions

    jobs = [job for at, entry in enumerate(config.entries) for job in _jobs(config.path, at, entry, report)]
    names = [job.name for job in jobs]
    for job in jobs:
        if names.count(job.name) > 1:
            raise ConfigError(f"{job.place}: two artifacts are called {job.name!r}; give one entry a 'name'")
    made_by = {name: version for job in jobs for name, version in versions(TARGETS[job.target]).items()}
    return jobs, made_by


@contextmanager
def at_line(path: Path, entry: "Entry", key: str = "") -> Iterator[None]:
    """Put file, line and key of an entry before what is wrong with it in the body; raises ConfigError."""
    try:
        yield
    except (OutputError, ConfigError):
        raise
    except BadInputError as error:
        named = f" {key}:" if key in entry.lines else ""
        raise ConfigError(f"{path}:{entry.lines.get(key, entry.line)}:{named} {error}") from error


def _jobs(path: Path, at: int, entry: "Entry", report: Report) -> Iterator[Job]:
    """Yield the jobs of one entry."""
    from exporter import profiles
    from exporter.pipeline.export import known_passes

    with at_line(path, entry, "targets"):
        unknown = next((name for name in entry.targets if name not in TARGETS), None)
        if unknown is not None:
            raise UnknownNameError("target", unknown, TARGETS)
    with at_line(path, entry, "profiles"):
        loaded = [(word, profiles.load(word)) for word in entry.profiles]
        for word, profile in loaded:
            try:
                connect(*profile.connection.chosen()).check()
            except BadInputError as error:
                raise BadInputError(f"{word}: {error}") from error
    with at_line(path, entry, "without_passes"):
        known_passes(entry.without_passes)
    with at_line(path, entry, "model"):
        choice, program, checkpoint = _choice(entry)
    with at_line(path, entry, "checkpoint" if entry.file is None else "file"):
        source = _source_of(entry, checkpoint)
    for word, profile in loaded:
        for precision in entry.precisions:
            with at_line(path, entry):
                content = _content(choice, word, precision, report)
            for target in entry.targets:
                stem = f"{entry.title}{program} {target} {profile.name} "
                yield Job(
                    entry=entry,
                    choice=choice,
                    target=target,
                    profile=profile,
                    profile_word=word,
                    precision=precision,
                    group=(at, word, precision),
                    place=f"{path}:{entry.line}",
                    stem=stem,
                    name=f"{stem}{precision or profile.precision}",
                    source=source,
                    key=_key(entry, choice, target, profile, precision, [source, content]),
                )


def _choice(entry: "Entry") -> tuple[ProgramChoice | SavedProgram, str, Path | None]:
    """Return what an entry exports, what its name says of the program, and the checkpoint of its weights."""
    if entry.file is not None and entry.inputs is not None:
        return SavedProgram(entry.file, entry.inputs, entry.ranking, entry.outputs), "", None
    model = str(entry.model)
    require_model(model)
    choice = ProgramChoice(
        model=model,
        program=entry.program,
        checkpoint=entry.checkpoint,
        history=entry.history,
        structure=entry.structure,
        embeddings=entry.embeddings,
    )
    program = entry.program or zoo.DEFAULT_PROGRAMS.get(model)
    checkpoint = entry.checkpoint or (_SHIPPED / model if model in zoo.MODELS else None)
    if checkpoint is None:
        raise BadInputError(f"{model} does not ship with weights; name its 'checkpoint'")
    return choice, "" if program is None else f"/{program}", checkpoint


def _source_of(entry: "Entry", checkpoint: Path | None) -> str:
    """Return the SHA-256 of what an entry's weights come from; raises BadInputError where that is not there."""
    if entry.file is not None and entry.inputs is not None:
        digests = [cache.digest(path) for path in (entry.file, entry.inputs)]
        for path, digest in zip((entry.file, entry.inputs), digests, strict=True):
            if not digest:
                raise BadInputError(f"{path} does not exist; give a program and its golden inputs")
        return cache.key_of_text(digests)
    sha256 = None if checkpoint is None else checkpoint_files.sha256_of(checkpoint)
    if sha256 is None:
        listed = ", ".join(checkpoint_files.FILES)
        raise CheckpointError(f"{checkpoint} is no checkpoint: it needs {listed}; give the folder of one")
    return sha256


def _content(choice: ProgramChoice | SavedProgram, profile: str, precision: "Precision | None", report: Report) -> str:
    """Return one SHA-256 over what torch makes of a model that does not ship: its program and its golden cases.

    Its code may import anything and read anything, so that its files do not say whether it is the same.
    """
    if isinstance(choice, SavedProgram) or choice.model in zoo.MODELS:
        return ""
    from exporter.pipeline.content import digest_of

    return digest_of(choice, profile, precision, report)


def _key(
    entry: "Entry",
    choice: ProgramChoice | SavedProgram,
    target: str,
    profile: "DeviceProfile",
    precision: "Precision | None",
    content: list[str],
) -> str:
    from exporter.targets.environment import versions

    facts: dict[str, object] = {
        "target": target,
        "profile": profile.model_dump(mode="json"),
        "precision": precision or profile.precision,
        "fold": entry.fold,
        "without": sorted(entry.without_passes),
        "versions": versions(TARGETS[target]),
        "machine": [platform.system(), platform.machine()],
        "content": content,
    }
    if isinstance(choice, SavedProgram):
        return cache.key_of({**facts, "ranking": choice.ranking, "outputs": choice.outputs})
    # Whether it is a file or ids is decided where it is read; what it says counts here in any case.
    history = None if choice.history is None else [choice.history, _said_by(choice.history)]
    facts |= {
        "model": choice.model.rpartition(":")[2],
        "program": choice.program,
        "history": history,
        "structure": choice.structure,
        "embeddings": choice.embeddings,
    }
    return cache.key_of(facts)


def _said_by(history: str) -> str:
    """Return the digest of a file of clicks, "" for clicks that stand in the configuration itself."""
    return cache.digest(Path(history)) if os.path.isfile(history) else ""  # noqa: PTH113 - false for what is no path
