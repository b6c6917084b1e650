"""A composite action, run step by step as GitHub's runner does it, and what the runner takes from what steps print."""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from exporter.core.types import Row

EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}")
SHELL = ("bash", "--noprofile", "--norc", "-eo", "pipefail")


@dataclass
class Job:
    """A job with one step, which is the action in `action`: what its steps did, and left.

    `used` has the actions that it used with their inputs, `hits` says for which of them a cache is there.
    """

    action: Path
    folder: Path
    inputs: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    hits: tuple[str, ...] = ()
    steps: dict[str, Row] = field(default_factory=dict)
    used: list[tuple[str, Row]] = field(default_factory=list)
    printed: str = ""
    failed: bool = False

    @property
    def workspace(self) -> Path:
        return self.folder / "work"

    @property
    def summary(self) -> str:
        return (self.folder / "summary.md").read_text()

    def run(self) -> "Job":
        """Run all steps whose condition holds; raises KeyError for an expression that nobody defines."""
        document = yaml.safe_load((self.action / "action.yml").read_text())
        defaults = {name: about.get("default", "") for name, about in document["inputs"].items()}
        self.inputs = {**defaults, **self.inputs}
        self.workspace.mkdir(parents=True, exist_ok=True)
        (self.folder / "temp").mkdir()
        (self.folder / "summary.md").touch()
        for number, step in enumerate(document["runs"]["steps"]):
            name = step.get("id", str(number))
            self.steps[name] = {"outputs": {}, "outcome": "skipped"}
            if not self._holds(step.get("if", "")):
                continue
            values = {key: self._filled(value) for key, value in step.get("with", {}).items()}
            if "uses" in step:
                self.used.append((step["uses"], values))
                hit = step["uses"] in self.hits
                outputs = {"cache-hit": str(hit).lower(), "cache-primary-key": values.get("key")}
                self.steps[name] = {"outputs": outputs, "outcome": "success"}
            else:
                self._run(name, step)
        return self

    def _holds(self, condition: str) -> bool:
        text = condition.strip().removeprefix("${{").removesuffix("}}").strip()
        if "cancelled()" not in text and self.failed:
            return False
        return all(self._value(term) not in (False, "") for term in text.split(" && ")) if text else True

    def _filled(self, value: object) -> str:
        return EXPRESSION.sub(lambda found: str(self._value(found[1])), str(value))

    def _value(self, text: str) -> Any:
        text = text.strip()
        for sign in ("==", "!="):
            if sign in text:
                left, right = map(self._value, text.split(sign))
                return (left == right) == (sign == "==")
        if text == "!cancelled()":
            return True
        if text.startswith("'"):
            return text.strip("'")
        if text.startswith("hashFiles("):
            return "hashed"
        contexts = {
            "inputs": self.inputs,
            "steps": self.steps,
            "runner": {"os": "Linux", "arch": "X64"},
            "github": {"job": "gate"},
            "strategy": {"job-index": "0"},
        }
        value: Any = contexts
        for key in text.split("."):
            value = value[key]
        return value

    def _run(self, name: str, step: Row) -> None:
        assert step["shell"] == "bash"
        outputs = self.folder / f"outputs-{name}"
        outputs.touch()
        script = self.folder / "script.sh"
        script.write_text(step["run"])
        own = {
            "GITHUB_ACTION_PATH": self.action,
            "GITHUB_OUTPUT": outputs,
            "GITHUB_STEP_SUMMARY": self.folder / "summary.md",
            "GITHUB_WORKSPACE": self.workspace,
            "RUNNER_TEMP": self.folder / "temp",
            "RUNNER_OS": "Linux",
            "HOME": self.folder / "home",
        }
        done = subprocess.run(
            [*SHELL, script],
            cwd=self.workspace,
            env={
                **os.environ,
                **{key: str(value) for key, value in own.items()},
                **self.environment,
                **{key: self._filled(value) for key, value in step.get("env", {}).items()},
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.printed += done.stdout
        self.failed |= done.returncode != 0
        pairs = dict(line.split("=", 1) for line in outputs.read_text().splitlines())
        outcome = "success" if done.returncode == 0 else "failure"
        self.steps[name] = {"outputs": pairs, "outcome": outcome, "code": done.returncode}


def obeyed(printed: str) -> Iterator[str]:
    """Yield the lines that the runner takes for commands: `::NAME::` at a line's start, `##[NAME]` anywhere in it."""
    token = None
    for line in printed.splitlines():
        if token is not None:
            if line.strip() == f"::{token}::":
                token = None
        elif line.strip().startswith("::stop-commands::"):
            token = line.strip().removeprefix("::stop-commands::")
        elif re.match(r"\s*::[\w-]+.*::", line) or re.search(r"##\[[\w-]+.*\]", line):
            yield line
