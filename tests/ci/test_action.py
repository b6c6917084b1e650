"""The GitHub Action and the GitLab template, run as their runners would: in a clean folder, step by step."""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from ci_runner import EXPRESSION, SHELL, Job, obeyed
from commands import COMMAND

from exporter.core.types import Row
from exporter.gate import config as gate
from exporter.gate import limits

ROOT = Path(__file__).resolve().parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
TEMPLATE = yaml.safe_load((ROOT / "ci" / "gitlab.yml").read_text())[".cocorr-check"]
CONFIG = "artifacts:\n- model: scn\n  targets: [onnx]\n"

# Installs nothing and writes down what it was asked for; is the Python of the tests otherwise.
PYTHON = """#!/bin/sh
case "$*" in
*"pip install"*) printf '%s|%s\\n' "$*" "$PIP_EXTRA_INDEX_URL" >> "$SAID" ;;
*) exec {python} "$@" ;;
esac
"""
# Stands for the command: writes what it is asked for, and prints what a hostile model could.
CHECK = """#!{python}
import json, os, sys
from pathlib import Path

words = sys.argv[1:]
with open(os.environ["SAID"], "a") as said:
    said.write(json.dumps(words) + "\\n")
if words[0] == "check":
    for option in ("--junit", "--markdown", "--html"):
        Path(words[words.index(option) + 1]).write_text("report of " + option + "\\n")
    for stream in (sys.stdout, sys.stderr):
        print("::add-mask::pass\\nscn ##[add-path]/tmp\\n::stop-commands::x\\n::x::\\n::add-mask::pass", file=stream)
    if "--annotations" in words:
        commands = "::error file=cocorr.yaml,line=3,title=scn::size is 5 B\\n::warning ::scn\\n"
        Path(words[words.index("--annotations") + 1]).write_text(commands)
sys.exit(int(os.environ["CODE"]))
"""


@pytest.fixture
def tools(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine whose python and cocorr-export are the stand-ins above."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name, text in (("python", PYTHON), ("cocorr-export", CHECK)):
        (folder / name).write_text(text.format(python=sys.executable))
        (folder / name).chmod(0o755)
    path = os.pathsep.join([str(folder), os.environ["PATH"]])
    return {"PATH": path, "SAID": str(tmp_path / "said"), "CODE": "0"}


def said(tools: dict[str, str]) -> list[str]:
    return Path(tools["SAID"]).read_text().splitlines()


def job(
    tmp_path: Path, tools: dict[str, str], code: int = 0, inputs: dict[str, str] | None = None, hit: str = ""
) -> Job:
    return Job(ROOT, tmp_path, inputs or {}, {**tools, "CODE": str(code)}, (hit,)).run()


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_the_steps_end_as_the_command_ends(tmp_path: Path, tools: dict[str, str], code: int) -> None:
    done = job(tmp_path, tools, code)
    assert done.steps["check"]["code"] == code
    report = tmp_path / "temp" / "cocorr-report"
    assert {path.name for path in report.iterdir()} == {"junit.xml", "report.md", "report.html"}
    assert done.summary == "report of --markdown\n"
    assert dict(done.used)["actions/upload-artifact@v4"]["path"] == str(report)
    kept = dict(done.used)
    assert kept["actions/cache/save@v4"] == {name: kept["actions/cache/restore@v4"][name] for name in ("path", "key")}


def test_nothing_but_annotations_is_a_command(tmp_path: Path, tools: dict[str, str]) -> None:
    done = job(tmp_path, tools, 1)
    assert list(obeyed(done.printed)) == ["::error file=cocorr.yaml,line=3,title=scn::size is 5 B", "::warning ::scn"]
    assert done.printed.count("::add-mask::pass") == 4  # shown, all the same


def test_what_is_installed(tmp_path: Path, tools: dict[str, str]) -> None:
    done = job(tmp_path, tools, inputs={"extras": "onnx,lower", "emulator": "true", "browser": "true"})
    pip, emulator, browser, check = said(tools)
    assert pip.endswith(f"--constraint {ROOT}/constraints.txt {ROOT}[onnx,lower]|https://download.pytorch.org/whl/cpu")
    assert json.loads(emulator) == ["emulator", "install"]
    assert json.loads(browser) == ["browser", "install"]
    assert json.loads(check)[:2] == ["check", "cocorr.yaml"]
    assert [name for name, _ in done.used].count("actions/cache@v4") == 3


def test_an_index_of_ones_own_stays(tmp_path: Path, tools: dict[str, str]) -> None:
    done = job(tmp_path, {**tools, "PIP_EXTRA_INDEX_URL": "https://pypi.example"}, inputs={"python-version": ""})
    assert said(tools)[0].endswith("|https://pypi.example")
    assert next(name for name, _ in done.used) == "actions/cache@v4"  # the Python of an earlier step


def test_caches_follow_what_they_are_made_of(tmp_path: Path, tools: dict[str, str]) -> None:
    keys = []
    for number, (config, lock) in enumerate((("a", None), ("a", "{}"), ("b", "{}"), ("b", "{}"))):
        folder = tmp_path / str(number)
        (folder / "work" / "ml").mkdir(parents=True)
        (folder / "work" / "ml" / "gate.yaml").write_text(config)
        if lock:
            (folder / "work" / "ml" / "gate.lock.json").write_text(lock)
        used = dict(job(folder, tools, inputs={"config": "ml/gate.yaml"}).used)
        exports = used["actions/cache/restore@v4"]
        assert (exports["path"], exports["key"].startswith(exports["restore-keys"])) == ("ml/.cocorr", True)
        keys.append(exports["key"])
    assert len(set(keys)) == 3 and keys[2] == keys[3]
    done = job(tmp_path / "again", tools, hit="actions/cache/restore@v4")
    assert "actions/cache/save@v4" not in dict(done.used)


HOSTILE = "-x\"; touch owned; $(touch owned) `touch owned` '\n::add-mask::x\nreport=/etc"


def test_inputs_are_data(tmp_path: Path, tools: dict[str, str]) -> None:
    done = job(tmp_path, tools, inputs={"config": HOSTILE, "extras": HOSTILE})
    assert not list(tmp_path.rglob("owned"))
    assert json.loads(said(tools)[-1])[1] == HOSTILE
    assert done.steps["places"]["outputs"]["report"] == str(tmp_path / "temp" / "cocorr-report")


def test_expressions_stand_where_they_are_data() -> None:
    for step in ACTION["runs"]["steps"]:
        assert not EXPRESSION.search(step.get("run", ""))
        assert re.fullmatch(r"actions/[a-z/-]+@v\d+", step.get("uses", "actions/x@v1"))


def test_every_input_is_documented() -> None:
    page = (ROOT / "docs" / "ci.md").read_text()
    for name in [*ACTION["inputs"], *TEMPLATE["variables"], *ACTION["outputs"]]:
        assert f"`{name}`" in page, name
    for about in ACTION["inputs"].values():
        assert about["description"] and isinstance(about["default"], str)


def test_what_the_page_shows_uses_what_there_is(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "ci.md").read_text()
    blocks = re.findall(r"^```yaml\n(.*?)^```$|END'\n(.*?) +END", page, re.S | re.M)
    documents = [yaml.safe_load(textwrap.dedent(one or other)) for one, other in blocks]
    (configuration,) = (document for document in documents if "artifacts" in document)
    (tmp_path / "cocorr.yaml").write_text(yaml.safe_dump(configuration))
    assert gate.load(tmp_path / "cocorr.yaml").entries
    documented = set(re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", page, re.M))
    named = {word for row in documented for word in re.findall(r"\w+", row)}
    assert {*limits.names(), *(field.name for field in fields(gate.Entry))} - {"title", "line", "lines"} <= named
    workflow, written_out, template = (document for document in documents if document is not configuration)
    assert workflow["permissions"] == {"contents": "read"} and "pull_request" in workflow[True]
    for document in (workflow, written_out):
        (step,) = [step for step in document["jobs"]["recommenders"]["steps"] if step["uses"].startswith("OWNER/")]
        assert step.get("with", {}).keys() <= ACTION["inputs"].keys()
    assert template["include"][0]["file"] == "ci/gitlab.yml"
    assert template["recommenders"]["extends"] == ".cocorr-check"
    assert template["recommenders"]["variables"].keys() <= TEMPLATE["variables"].keys()


def gitlab(folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the job's script as GitLab's runner does: its lines as one script, its variables put in beforehand."""
    variables = {"CI_PROJECT_DIR": str(folder), **TEMPLATE["variables"], **environment}
    variables = {name: text.replace("$CI_PROJECT_DIR", str(folder)) for name, text in variables.items()}
    return subprocess.run(
        [*SHELL, "-c", "\n".join(TEMPLATE["script"])],
        cwd=folder,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("code", [0, 1, 3])
def test_gitlab_runs_the_same_command(tmp_path: Path, tools: dict[str, str], code: int) -> None:
    done = gitlab(tmp_path, {**tools, "CODE": str(code), "COCORR_PACKAGE": "./a.whl[lower]"})
    assert done.returncode == code
    pip, check = said(tools)
    assert pip.endswith(" ./a.whl[lower]|https://download.pytorch.org/whl/cpu")
    words = json.loads(check)
    assert words[:2] == ["check", "cocorr.yaml"] and (tmp_path / TEMPLATE["artifacts"]["reports"]["junit"]).exists()
    assert {Path(word).parent.name for word in words if word.startswith("cocorr-report")} == {"cocorr-report"}


def test_gitlab_says_what_it_is_to_install(tmp_path: Path, tools: dict[str, str]) -> None:
    done = gitlab(tmp_path, tools)
    assert done.returncode == 2 and "COCORR_PACKAGE" in done.stderr


def test_the_real_command_in_the_action(tmp_path: Path, tools: dict[str, str]) -> None:
    (tmp_path / "tools" / "cocorr-export").unlink()
    (tmp_path / "tools" / "cocorr-export").symlink_to(COMMAND)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "cocorr.yaml").write_text(CONFIG)
    updated = subprocess.run([COMMAND, "check", "--update"], cwd=tmp_path / "work", capture_output=True, text=True)
    assert updated.returncode == 0, updated.stderr
    done = job(tmp_path, tools)
    assert done.steps["check"]["code"] == 0, done.printed
    assert "scn" in done.summary
    assert all(line.startswith("::notice ") for line in obeyed(done.printed))  # of what cannot be counted here
    lock = tmp_path / "work" / "cocorr.lock.json"
    document = json.loads(lock.read_text())
    _spoil(document)
    lock.write_text(json.dumps(document))
    shutil.rmtree(tmp_path / "temp")
    done = job(tmp_path, tools)
    assert done.steps["check"]["code"] == 1
    assert [line for line in obeyed(done.printed) if line.startswith("::error file=cocorr.yaml,")]


def _spoil(document: Row) -> None:
    """Make every artifact of a lock smaller than it is, so that the one here is too large."""
    for locked in document["artifacts"].values():
        locked["figures"]["size"] //= 2
