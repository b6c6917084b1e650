"""What a command says of an artifact: its manifest and where it lies, with what only this command knows."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from exporter.artifact.manifest import Manifest, as_json
from exporter.core.checks import Evidence, LimitCheck
from exporter.core.explanation import Located, Losses
from exporter.core.sections import Comparison, OperationCost

_VERDICT_CODES = {"pass": 0, "fail": 1, "unverified": 3}
_BUDGET_CODES = {True: 0, False: 1, None: 3}


@dataclass(frozen=True)
class Result:
    """An artifact as a command leaves it: `place` is its folder as the user named it.

    `samples_us` are the raw times and `comparison` is with another artifact, where they were asked for. `added` are the
    names of files in its folder that are no part of it and were left out.
    """

    manifest: Manifest
    place: str
    samples_us: tuple[float, ...] | None = None
    comparison: Comparison | None = None
    added: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """Return 0 for pass, 1 for fail or over budget, 3 for unverified; a failure outweighs what is unverified.

        A budget that could not be measured is no more kept than an artifact that could not be run is verified.
        """
        codes = {_VERDICT_CODES[self.manifest.parity.verdict]}
        codes |= {_BUDGET_CODES[budget.within] for budget in self.manifest.budgets or ()}
        return 1 if 1 in codes else max(codes)

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` prints: the manifest, `artifact`, what was asked for, `added_files`."""
        document = {**self.manifest.to_json(), "artifact": self.place}
        if self.samples_us is not None:
            document["samples_us"] = list(self.samples_us)
        if self.comparison is not None:
            document["comparison"] = as_json(self.comparison)
        if self.added:
            document["added_files"] = list(self.added)
        return document


@dataclass(frozen=True)
class Refusal:
    """A program that a target's converter refused, with its words."""

    model: str
    program: str
    target: str
    error: str
    exit_code: ClassVar[int] = 1

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` prints in an artifact's place."""
        return asdict(self)


@dataclass(frozen=True)
class Unread:
    """An artifact that could not be judged beside others, with the words why and the exit code that it has alone."""

    place: str
    error: str
    exit_code: int

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` prints in an artifact's place."""
        return {"artifact": self.place, "error": self.error}


@dataclass(frozen=True)
class Ranked:
    """A candidate: its id as users know it, its row of the item table, and its score."""

    id: str
    row: int
    score: float


@dataclass(frozen=True)
class Ranking:
    """The best of some candidates for a history, the best first.

    `ids` says whether ids are those of the data or rows. `history` are the clicks that the program saw, oldest first;
    so many older ones were left out. `candidates` were scored in all, on the machine that `executed_on` names.
    `unsettled` is as in a parity section.
    """

    place: str
    manifest: Manifest
    ids: Literal["raw", "rows"]
    history: tuple[str, ...]
    left_out: int
    candidates: int
    executed_on: str
    unsettled: tuple[str, ...]
    ranked: tuple[Ranked, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` prints."""
        made = {name: getattr(self.manifest, name) for name in ("model", "program", "target", "precision")}
        return {
            "schema_version": 1,
            "artifact": self.place,
            **made,
            "executed_on": self.executed_on,
            "unsettled": list(self.unsettled),
            "ids": self.ids,
            "history": list(self.history),
            "left_out": self.left_out,
            "candidates": self.candidates,
            "ranking": [asdict(item) for item in self.ranked],
        }


FleetDocument = Mapping[str, Any]
"""A document of a fleet's run, or a part of one, as JSON has it: its plan.json, which is read, or its summary.json."""


@dataclass(frozen=True)
class FleetResult:
    """All users of a file of clicks, judged: `place` is the folder of the run, `document` its summary.json."""

    place: str
    document: FleetDocument

    @property
    def exit_code(self) -> int:
        """Return 0 for pass, 1 for fail, 3 for unverified."""
        return _VERDICT_CODES[self.document["verdict"]]

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` prints."""
        return {**self.document, "output": self.place}


@dataclass(frozen=True)
class Compared:
    """Artifacts of one program side by side, by their places; `best` is the index of the one that `rule` names."""

    places: tuple[str, ...]
    manifests: tuple[Manifest, ...]
    best: int | None
    rule: str

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` prints."""
        documents = [
            {**manifest.to_json(), "artifact": place}
            for place, manifest in zip(self.places, self.manifests, strict=True)
        ]
        best = None if self.best is None else self.places[self.best]
        return {"schema_version": 1, "artifacts": documents, "recommended": best, "rule": self.rule}


@dataclass(frozen=True, kw_only=True)
class Explained:
    """Where the error of an artifact comes from, on its first golden cases; `operations` are the costliest of its file.

    `place` is its folder as the user named it, `added` the names of files there that are no part of it.
    """

    place: str
    manifest: Manifest
    cases: int
    losses: Losses
    located: Located
    operations: tuple[OperationCost, ...]
    added: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the document that `--json` prints."""
        made = {name: getattr(self.manifest, name) for name in ("model", "program", "target", "precision")}
        document = {
            "schema_version": 1,
            "artifact": self.place,
            **made,
            "verdict": self.manifest.parity.verdict,
            "cases": self.cases,
            "losses": as_json(self.losses),
            "located": as_json(self.located),
            "operations": as_json(self.operations),
        }
        return {**document, "added_files": list(self.added)} if self.added else document


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One artifact in front of the gate, or in a report: `name` says which, as in `scn/rerank onnx generic fp32`.

    `place` is its folder and `manifest` what it says, None where none could be made, for which `error` has the words.
    `line` is that of its entry in the configuration. `is_cached` says that it was not made in this run, but judged and
    counted again. `evidence` is there where a report was asked for that shows it.
    """

    name: str
    place: str | None
    manifest: Manifest | None
    limits: tuple[LimitCheck, ...] = ()
    error: str | None = None
    line: int | None = None
    is_cached: bool = False
    comparison: Comparison | None = None
    evidence: Evidence | None = None

    @property
    def exit_code(self) -> int:
        """Return 1 where there is no artifact, it fails, or it breaks a limit; 3 where it is unverified; else 0."""
        if self.manifest is None or any(limit.outcome == "broken" for limit in self.limits):
            return 1
        return Result(self.manifest, str(self.place)).exit_code

    def to_json(self) -> dict[str, Any]:
        """Return what `--json` prints of it: its figures are those of its manifest."""
        verdict = None if self.manifest is None else self.manifest.parity.verdict
        return {
            "name": self.name,
            "artifact": self.place,
            "verdict": verdict,
            "error": self.error,
            "cached": self.is_cached,
            "limits": as_json(self.limits),
            "comparison": None if self.comparison is None else as_json(self.comparison),
        }


@dataclass(frozen=True, kw_only=True)
class Report:
    """All that a report shows: artifacts, and where a gate judged them its files and what moved beside the figures.

    `config` and `lock` are paths as the user named them, None where artifacts alone are reported. `versions` has
    packages whose version is not the baseline's, as (then, now); `gone` are names in the baseline that are not checked
    any more.
    """

    artifacts: tuple[Checked, ...]
    config: str | None = None
    lock: str | None = None
    versions: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)
    gone: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """Return 1 where anything failed or is gone, else the largest exit code of the artifacts."""
        codes = {checked.exit_code for checked in self.artifacts}
        return 1 if 1 in codes or self.gone else max(codes, default=0)

    def to_json(self) -> dict[str, Any]:
        """Return the document that `check --json` prints."""
        return {
            "schema_version": 1,
            "config": self.config,
            "lock": self.lock,
            "exit_code": self.exit_code,
            "artifacts": [checked.to_json() for checked in self.artifacts],
            "versions": as_json(self.versions),
            "gone": list(self.gone),
        }
