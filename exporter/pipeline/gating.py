"""What a configuration of the gate asks for, one job for each artifact: its name, what it is made of, and its key."""

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.core.errors import BadInputError, ConfigError, UnknownNameError
from exporter.pipeline import cache
from exporter.pipeline.listing import require_model
from exporter.pipeline.request import ProgramChoice, SavedProgram
from exporter.targets import TARGETS
from models import zoo

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
    export, None for the profile's.
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
    key: str
    checkpoint: Path | None


def jobs_of(config: "Config") -> tuple[list[Job], dict[str, str]]:
    """Return the jobs of a configuration, and the versions of all packages that make their artifacts.

    Raises ConfigError with the line of an entry that names what is not known.
    """
    from exporter.targets.environment import versions

    jobs = [job for at, entry in enumerate(config.entries) for job in _jobs(config.path, at, entry)]
    names = [job.name for job in jobs]
    for job in jobs:
        if names.count(job.name) > 1:
            raise ConfigError(f"{job.place}: two artifacts are called {job.name!r}; give one entry a 'name'")
    made_by = {name: version for job in jobs for name, version in versions(TARGETS[job.target]).items()}
    return jobs, made_by


def _jobs(path: Path, at: int, entry: "Entry") -> Iterator[Job]:
    """Yield the jobs of one entry."""
    from exporter import profiles

    try:
        for name in entry.targets:
            if name not in TARGETS:
                raise UnknownNameError("target", name, TARGETS)
        choice, program, checkpoint = _choice(entry)
        loaded = [(word, profiles.load(word)) for word in entry.profiles]
    except BadInputError as error:
        raise ConfigError(f"{path}:{entry.line}: {error}") from error
    for word, profile in loaded:
        for precision in entry.precisions:
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
                    key=_key(entry, choice, target, profile, precision, checkpoint),
                    checkpoint=checkpoint,
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
    shipped = _SHIPPED / model if model in zoo.MODELS else None
    return choice, "" if program is None else f"/{program}", entry.checkpoint or shipped


def _key(
    entry: "Entry",
    choice: ProgramChoice | SavedProgram,
    target: str,
    profile: "DeviceProfile",
    precision: "Precision | None",
    checkpoint: Path | None,
) -> str:
    from exporter.targets.environment import versions

    facts: dict[str, object] = {
        "target": target,
        "profile": profile.model_dump(mode="json"),
        "precision": precision,
        "fold": entry.fold,
        "without": sorted(entry.without_passes),
        "versions": versions(TARGETS[target]),
        "machine": [platform.system(), platform.machine()],
    }
    if isinstance(choice, SavedProgram):
        return cache.key_of(
            {**facts, "ranking": choice.ranking, "outputs": choice.outputs}, [choice.file, choice.inputs]
        )
    history = Path(choice.history) if choice.history is not None and Path(choice.history).is_file() else None
    own_code = Path(choice.model.rpartition(":")[0]) if ".py:" in choice.model else None
    installed = zoo.installed().get(choice.model)
    distribution = None if installed is None or installed.dist is None else installed.dist.version
    facts |= {
        "model": choice.model.rpartition(":")[2],
        "distribution": distribution,
        "program": choice.program,
        "history": choice.history if history is None else None,
        "structure": choice.structure,
        "embeddings": choice.embeddings,
    }
    content = [path for path in (checkpoint, history, own_code) if path is not None]
    return cache.key_of(facts, content)
