"""The command line as a user meets it: quick to start, one line and exit 2 for bad input, nothing half-written."""

import importlib.util
import json
import os
import pickle
import re
import resource
import shutil
import signal
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from commands import COMMAND, cocorr_export, run_here
from safetensors.torch import load_file, save_file

from exporter import cli
from exporter.artifact import store
from exporter.report import console
from exporter.targets import TARGETS, environment
from models import checkpoint

SHIPPED = Path(checkpoint.__file__).parent / "pretrained" / "scn"


def test_the_version_is_the_installed_one(capfd: pytest.CaptureFixture[str]) -> None:
    ended = run_here(capfd, "--version")
    assert (ended.code, ended.out, ended.err) == (0, f"cocorr-export {metadata.version('cocorr-export')}\n", "")


def test_help_starts_within_300_ms() -> None:
    """Processor time, which is the time on the clock of a machine that does nothing else.

    Others who use the processor and its caches only ever add to it, so one quick start proves that it can be quick,
    and it is tried until there was one.
    """
    times: list[float] = []
    while not times or (min(times) > 0.3 and len(times) < 100):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert cocorr_export("--help").code == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) <= 0.3, times


def test_the_start_imports_no_torch_no_vendor_and_no_target() -> None:
    code = "import sys, exporter.cli; print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    heavy = {"torch", "numpy", "pydantic", "executorch", "coremltools", "onnx", "onnxruntime", "litert_torch", "rich"}
    assert {module.split(".")[0] for module in loaded} & heavy == set()
    assert loaded & {"exporter.core.types", *(f"exporter.targets.{name}" for name in TARGETS)} == set()


PROFILE = "name: mine\nprecision: fp32\ntargets:\n  onnx:\n    opset: 20\n"


@pytest.mark.parametrize(
    ("arguments", "profile", "parts"),
    [
        (["bert", "--target", "onnx"], None, ["unknown command or model 'bert'", "parity", "scn"]),
        (["scn"], None, ["--target"]),
        (["scn", "--target", "ncnn"], None, ["unknown target 'ncnn'", "coreml"]),
        (["scn", "--target", "onnx", "--precision", "int3"], None, ["int3", "fp16"]),
        (["scn", "--target", "onnx", "--program", "predict"], None, ["'predict'", "hidden_state, rerank"]),
        (["scn", "--target", "onnx", "--profile", "nokia"], None, ["unknown profile 'nokia'", "generic"]),
        (["scn", "--target", "onnx", "--profile", "no/such.yaml"], None, ["no/such.yaml", "does not exist"]),
        (["scn", "--target", "onnx"], PROFILE + "turbo: 9\n", ["mine.yaml:6", "turbo", "unknown key"]),
        (["scn", "--target", "onnx"], PROFILE.replace("20", "99"), ["mine.yaml:5", "targets.onnx.opset", "99"]),
        (["scn", "--target", "onnx"], PROFILE.replace("fp32", "fp8"), ["mine.yaml:2", "precision", "fp16"]),
        (["scn", "--target", "onnx"], PROFILE + "name: again\n", ["mine.yaml:6", "name", "line 1"]),
        (["scn", "--target", "onnx"], PROFILE + "threads: [\n", ["mine.yaml:7", "not YAML"]),
        (["scn", "--target", "onnx"], "a: &x [1]\nb: *x\n", ["mine.yaml", "aliases"]),
        (["scn", "--target", "tflite"], PROFILE, ["'mine' does not allow", "'tflite'", "onnx"]),
        (["scn", "--target", "onnx", "--checkpoint", "nowhere"], None, ["nowhere", "model.safetensors"]),
        (["parity", "nowhere"], None, ["nowhere", "no artifact"]),
        (["paritty", "nowhere"], None, ["did you mean 'parity'?", "known: "]),
        (["SCN", "--target", "onnx"], None, ["did you mean 'scn'?"]),
        (["emulator", "instal"], None, ["unknown command 'instal' (did you mean 'install'?); known: install, remove"]),
        (["scn", "--target", "onxx"], None, ["did you mean 'onnx'?"]),
        (["scn", "--tagret", "onnx"], None, ["No such option: --tagret (did you mean '--target'?). Try --help."]),
        (["scn", "--target", "onnx", "--precision", "int9"], None, ["did you mean 'int8'?"]),
        (["scn", "--target", "onnx", "--program", "rerank_user2"], None, ["did you mean 'rerank_user'?"]),
        (["scn", "--target", "onnx", "--profile", "genric"], None, ["did you mean 'generic'?"]),
        (["scn", "--target", "onnx", "--without-pass", "absorbs"], None, ["did you mean 'absorb'?"]),
        (["import", "f", "--as", "recbole-sasrek", "--output", "o"], None, ["did you mean 'recbole-sasrec'?"]),
        (["list", "modls"], None, ["did you mean 'models'?"]),
        (["x" * 100_000, "--target", "onnx"], None, ["unknown command or model 'xxx"]),
    ],
)
def test_bad_arguments(
    arguments: list[str],
    profile: str | None,
    parts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if profile is not None:
        (tmp_path / "mine.yaml").write_text(profile)
        arguments = [*arguments, "--profile", "mine.yaml"] if "--profile" not in arguments else arguments
    before = sorted(tmp_path.rglob("*"))
    ended = run_here(capfd, *arguments)
    line = ended.error_line()
    assert ended.code == 2
    for part in parts:
        assert part in line
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("words", [[], ["emulator"], ["browser"], ["device"]], ids=str)
def test_help_of_what_has_only_commands_in_it(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    shown = run_here(capfd, *words, "-h")
    assert (shown.code, shown.err, "Commands:" in shown.out) == (0, "", True)
    bare = run_here(capfd, *words)
    assert (bare.code, bare.err, bare.out.split()) == (0, "", shown.out.split())


def _commands(group: Any, words: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    inner = getattr(group, "commands", {})
    return [words, *(found for name, command in inner.items() for found in _commands(command, (*words, name)))]


def test_every_command_has_a_short_option_for_help(capfd: pytest.CaptureFixture[str]) -> None:
    commands = _commands(typer.main.get_command(cli.app))
    assert {("emulator", "install"), ("device", "clean"), ("scn",)} < set(commands)
    for words in commands:
        shown = run_here(capfd, *words, "-h")
        assert (shown.code, shown.err, "-h, --help" in shown.out) == (0, "", True), words


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [(["list", "modls"], "usage"), (["parity", "nowhere"], "artifact"), (["SCN", "--target", "onnx"], "unknown_name")],
)
def test_errors_are_documents_too(arguments: list[str], kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    ended = run_here(capfd, *arguments, "--json")
    error = ended.document["error"]
    assert (ended.code, ended.noise(), ended.document["schema_version"]) == (2, [f"error: {error['message']}"], 1)
    assert (error["kind"], error["exit_code"]) == (kind, 2)


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _spoil(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["output.weight"][3, 3] = float("nan")
    save_file(state, folder / "model.safetensors")


def _rename(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["attention.weight"] = state.pop("output.weight")
    save_file(state, folder / "model.safetensors")


def _other_model(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model": "gru4rec"}))


class _Trap:
    def __reduce__(self) -> Any:
        return os.system, ("touch unpickled",)


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(_Trap()))


def _torch_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"w": torch.zeros(3)}, folder / "model.pt")


def _stale_golden(folder: Path) -> None:
    with np.load(folder / "golden.npz") as archive:
        arrays = dict(archive)
    np.savez(folder / "golden.npz", **{**arrays, "scores": arrays["scores"] + 0.01})


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (_truncate, "model.safetensors"),
        (_spoil, "output.weight"),
        (_rename, "attention.weight"),
        (_other_model, "gru4rec"),
        (_pickle, "pickle"),
        (_torch_pickle, "pickle"),
        (_stale_golden, "stale"),
    ],
)
def test_bad_checkpoints(
    damage: Any, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(SHIPPED, tmp_path / "checkpoint")
    damage(folder)
    before = sorted(tmp_path.rglob("*"))
    ended = run_here(capfd, "scn", "--target", "onnx", "--checkpoint", folder)
    assert (ended.code, part in ended.error_line()) == (2, True), ended.err
    assert sorted(tmp_path.rglob("*")) == before


def test_an_output_that_cannot_be_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    ended = run_here(capfd, "scn", "--target", "onnx", "--output", tmp_path / "file" / "below")
    assert (ended.code, "cannot write" in ended.error_line()) == (2, True), ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_output_that_holds_something_else(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "scn" / "rerank" / "generic" / "onnx"
    place.mkdir(parents=True)
    (place / "thesis.tex").write_text("mine")
    ended = run_here(capfd, "scn", "--target", "onnx", "--output", tmp_path)
    assert (ended.code, "'thesis.tex', which would be lost" in ended.error_line()) == (2, True), ended.err
    assert (place / "thesis.tex").read_text() == "mine"


@pytest.mark.parametrize(
    ("target", "package"), [("onnx", "onnxscript"), ("coreml", "coremltools"), ("all", "executorch")]
)
def test_a_missing_extra(
    target: str,
    package: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))
    monkeypatch.chdir(tmp_path)
    ended = run_here(capfd, "scn", "--target", target)
    assert ended.code == 2
    assert re.fullmatch(rf"error: {package} is .* with: pip install '{package}\b.*'.*", ended.error_line())
    assert list(tmp_path.iterdir()) == []


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# A module that says that it is imported and waits for a signal; then it is the real one, wherever that matters still.
HOLD = """
import importlib, os, signal, sys
os.close(os.open({told!r}, os.O_WRONLY))
signal.pause()
sys.path.remove({held!r})
del sys.modules[__name__]
importlib.import_module(__name__)
"""


@pytest.mark.parametrize(
    ("number", "moment", "module"),
    [
        (signal.SIGINT, "lowering", "onnxscript"),
        (signal.SIGTERM, "running", "onnxruntime"),
        (signal.SIGKILL, "running", "onnxruntime"),
    ],
)
def test_an_interrupted_export_leaves_the_earlier_artifact(
    number: signal.Signals, moment: str, module: str, artifacts: dict[str, Path], tmp_path: Path
) -> None:
    """The export is held where it first needs `module`, so that it cannot be over when the signal comes."""
    place = tmp_path / "scn" / "rerank" / "generic" / "onnx"
    shutil.copytree(artifacts["onnx"], place)
    before = _snapshot(place)
    held, told = tmp_path / "held", tmp_path / "told"
    held.mkdir()
    os.mkfifo(told)
    (held / f"{module}.py").write_text(HOLD.format(told=str(told), held=str(held)))
    command = [COMMAND, "scn", "--target", "onnx", "--output", tmp_path]
    environment = {**os.environ, "PYTHONPATH": f"{held}:{os.environ.get('PYTHONPATH', '')}"}
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, env=environment) as process:
        assert process.stderr is not None
        assert any(moment in line for line in process.stderr)
        told.read_bytes()  # comes to its end when the module is imported
        process.send_signal(number)
        rest = process.stderr.read()
        process.wait(60)
    assert process.returncode == (-number if number is signal.SIGKILL else 130), rest
    assert _snapshot(place) == before
    left = [path for path in place.parent.iterdir() if path != place]
    if number is signal.SIGKILL:
        assert len(left) == 1
        with store.staging(place) as folder:  # the next export clears what the killed one left
            (folder / "manifest.json").write_text("{}")
        left = [path for path in place.parent.iterdir() if path != place]
    assert left == []


@pytest.mark.parametrize(
    "start", [[COMMAND], [sys.executable, "-m", "exporter"], [sys.executable, "-m", "exporter.cli"]]
)
def test_every_entry_point_is_the_same_program(start: list[str | Path]) -> None:
    done = subprocess.run([*start, "parity", "nonexistent"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: nonexistent: no artifact here")
    listed = subprocess.run([*start, "list", "models"], capture_output=True, text=True, check=True)
    assert "mamba4rec" in listed.stdout


@pytest.mark.parametrize(
    "arguments", [["parity", ""], ["swap", "a", "b", "--output", ""], ["parity", "caf\udce9"]], ids=ascii
)
def test_words_that_are_no_path(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    ended = run_here(capfd, *arguments)
    assert ended.code == 2
    assert "give a path" in ended.error_line() or "not UTF-8" in ended.error_line()


@pytest.mark.parametrize("what", ["models", "programs", "targets", "profiles"])
def test_list(what: str, capfd: pytest.CaptureFixture[str]) -> None:
    rows = run_here(capfd, "list", what, "--json").document[what]
    assert {"models": "scn", "programs": "hidden_state", "targets": "tflite", "profiles": "generic-fp16"}[what] in str(
        rows
    )


WITHOUT_TORCH = """
import sys
class Absent:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in {"torch", "numpy", "onnx", "coremltools"}: raise ImportError(name)
sys.meta_path.insert(0, Absent())
from exporter.__main__ import main
"""


def test_lists_need_no_torch() -> None:
    for what in ("models", "programs", "targets", "profiles", "origins"):
        command = [sys.executable, "-c", f"{WITHOUT_TORCH}main()", "list", what]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), what
        assert {"models": "mamba4rec", "programs": "hidden_state"}.get(what, "") in done.stdout


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("s", {"sasrec", "scn", "serve", "swap"}),
        ("scn --target ", {*TARGETS, "all"}),
        ("scn --profile generic", {"generic", "generic-fp16"}),
        ("scn --program rerank_c", {"rerank_cached", "rerank_corrected"}),
        ("scn --precision int4", {"int4", "int4+fp16"}),
        ("list ", {"models", "programs", "targets", "profiles", "origins"}),
        ("parity x --connection ho", {"host"}),
        ("emulator ", {"install", "remove"}),
        ("browser ", {"install", "remove"}),
        ("device clean pixel", {"pixel-8-pro"}),
        ("import f --as recbole", {"recbole-sasrec", "recbole-gru4rec"}),
        ("parity ", set()),  # the shell has the files
    ],
)
def test_a_shell_completes_names_without_torch(line: str, offered: set[str]) -> None:
    words = f"cocorr-export {line}"
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_COCORR_EXPORT_COMPLETE": "complete_bash"}
    code = f"{WITHOUT_TORCH}sys.argv = ['cocorr-export']\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **asked})
    assert (done.returncode, done.stderr, set(done.stdout.split())) == (0, "", offered)


def test_all_is_what_this_system_has_builds_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As on ARM64 Linux; the export ends at the next target, which is not installed."""
    monkeypatch.setattr(environment, "without_build", lambda names: tuple({"coremltools"} & set(names)))
    monkeypatch.setattr(environment, "missing", lambda names: tuple({"onnxscript"} & set(names)))
    ended = run_here(capfd, "scn", "--target", "all", "--output", tmp_path)
    assert (ended.code, ended.error_line().split()[1]) == (2, "onnxscript")
    assert [line[:21] for line in ended.err.splitlines()[:-1]] == ["... coreml: left out,"]


def test_doctor_says_what_is_ready(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run_here(capfd, "doctor", "--json").document["targets"]
    assert {row["target"] for row in rows if row["ready"]} == {row["target"] for row in rows if row["runs"]}
    assert {row["target"] for row in rows} == set(TARGETS)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "onnxscript" else find(name))
    monkeypatch.setenv("COLUMNS", "60")
    (row,) = (row for row in run_here(capfd, "doctor", "--json").document["targets"] if row["install"])
    assert (row["target"], row["ready"], row["runs"]) == ("onnx", False, True)
    assert f"onnx: {row['install']}" in run_here(capfd, "doctor").out.splitlines(), "folded, it cannot be copied"


def test_names_that_look_like_markup_are_shown_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    words = "pip install 'a[onnx]' [red]b[/red] :smile:"
    console.print_readiness([{"target": words, "ready": False, "install": words}])
    out = capfd.readouterr().out
    assert f"{words}: {words}" in out.splitlines() and words in " ".join(out.splitlines()[1].split())
    source = [path for path in Path(console.__file__).parents[1].rglob("*.py") if "Console(" in path.read_text()]
    assert [path.name for path in source] == ["terminal.py"], "there is one console, which takes no markup"
