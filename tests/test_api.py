"""The Python API: the commands' own work, typed, quiet, and without torch where nothing is lowered."""

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from examples_of_the_project import load_example
from torch import nn

import cocorr

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"


def test_the_example_exports_a_module(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = load_example("torch_module").main(tmp_path)
    assert artifact.folder == tmp_path / "two-towers" / "program" / "generic" / "onnx"
    manifest = artifact.manifest
    assert (manifest.parity.verdict, manifest.ranking, manifest.parity.cases) == ("pass", "scores", 50)
    assert [tensor.name for tensor in manifest.outputs] == ["scores", "user"]
    assert len(capsys.readouterr().out.splitlines()) == 2
    with pytest.raises(
        cocorr.BadInputError, match=r"'clicks' is float64 \[2, 8\]; this artifact takes int32 \[cases, 8\]"
    ):
        artifact.run({"clicks": np.ones((2, 8)), "candidates": np.ones((2, 30), np.int64)})
    with pytest.raises(cocorr.BadInputError, match="there is no 'candidates'"):
        artifact.run({"clicks": np.ones((2, 8))})


def test_an_artifact_is_used_without_torch(artifacts: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(artifacts["onnx"], tmp_path / "scn")
    script = """
import sys
import cocorr
assert not {"torch", "numpy", "pydantic"} & set(sys.modules)
artifact = cocorr.load("scn")
import numpy as np
golden = np.load("scn/golden.npz")
inputs = {name: golden[f"inputs.{name}"][:3].astype("int64") for name in ("item_ids", "candidate_ids")}
assert np.abs(artifact.run(inputs)["scores"] - golden["outputs.scores"][:3]).max() < 1e-4
assert artifact.parity().verdict == "pass"
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


class Nothing(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return x + 1 if y is None else x + y


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    inputs = {"x": np.ones((2, 4), np.float32)}
    for arguments, settings, kind, words in (
        (inputs, {"target": "all"}, cocorr.UnknownNameError, "unknown target 'all'"),
        ({"z": inputs["x"]}, {}, cocorr.BadInputError, "missing a required argument: 'x'"),
        ({}, {}, cocorr.BadInputError, "numpy arrays by name"),
        ({"x": [[1.0]]}, {}, cocorr.BadInputError, "numpy arrays by name"),
        (inputs, {"ranking": "scores"}, cocorr.BadInputError, "no output 'scores'"),
        (inputs, {"profile": "nowhere"}, cocorr.CocorrError, "unknown profile 'nowhere'"),
    ):
        with pytest.raises(kind, match=words):
            cocorr.export(Nothing(), arguments, **{"target": "onnx", **settings}, output=tmp_path / "out")
    with pytest.raises(cocorr.ArtifactError, match="no artifact here"):
        cocorr.load(tmp_path)
    assert not (tmp_path / "out").exists()


def test_the_names_are_the_documented_ones() -> None:
    documented = set(re.findall(r"^\| `(\w+)", PAGE.read_text(), re.M))
    assert documented == set(cocorr.__all__)
    for name in cocorr.__all__:
        assert getattr(cocorr, name) is not None
    for function in (cocorr.export, cocorr.load, cocorr.Artifact.run):
        assert inspect.getdoc(function)
