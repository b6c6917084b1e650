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


X = np.ones((2, 4), np.float32)


class Leaves(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        sys.exit("left")


class Silent(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        class SilentError(Exception):
            def __str__(self) -> str:
                raise RuntimeError("nothing to say")

        raise SilentError


WRONG = {
    "module": (None, 5, "x", lambda x: x, torch.ones(2), Nothing, nn.Module(), Leaves(), Silent()),
    "inputs": (
        *(None, 5, "ids", [X], {}, {5: X}, {"x": torch.ones(2, 4)}, {"x": X[0, 0]}, {"x": X[:0]}),
        *({"x": np.ma.masked_array(X, X > 5)}, {"x": np.broadcast_to(X[:1], (10**9, 4))}),
        *({"x": X.astype(dtype)} for dtype in (object, "U4", complex, np.longdouble, "f2", "u8")),
        *({"x": np.zeros((2, 4), dtype)} for dtype in ("M8[D]", [("a", "i4")])),
    ),
    "target": (None, 5, ["onnx"]),
    "name": (5, b"x"),
    "ranking": (5, []),
    "outputs": (5, [5], [None], [], "output", {"output"}),
    "profile": (None, 5, []),
    "precision": (5, 0, "", [], "fp8"),
    "output": (None, 5, "", "a\0", "x" * 5000, "x/" * 3000),
    "force": ("no", 1, None),
}


@pytest.mark.parametrize("argument", WRONG)
def test_a_wrong_argument_is_one_line(argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for value in WRONG[argument]:
        given = {"module": Nothing(), "inputs": {"x": X}, "target": "onnx", "ranking": "nowhere", argument: value}
        if argument == "output":  # what is wrong with a place must be said before there is anything to put
            del given["ranking"]
        with pytest.raises(cocorr.CocorrError) as caught:
            cocorr.export(**given)
        assert "\n" not in str(caught.value) and "'nowhere'" not in str(caught.value), (value, caught.value)
    assert list(tmp_path.iterdir()) == []


def test_arrays_may_lie_in_memory_in_any_way(recwarn: pytest.WarningsRecorder) -> None:
    """All but the last argument is right: in the order of other machines, read-only, backwards, as columns."""
    still = np.frombuffer(X.tobytes(), np.float32).reshape(X.shape)
    for array in (X.astype(">f4"), np.ones((2, 4), ">i8"), still, X[::-1], np.asfortranarray(X)):
        with pytest.raises(cocorr.BadInputError, match="no output 'nowhere' to rank by"):
            cocorr.export(Nothing(), {"x": array}, "onnx", ranking="nowhere")
    assert not [one.message for one in recwarn if "writable" in str(one.message)]


def test_a_wrong_argument_of_an_artifact_is_one_line(artifacts: dict[str, Path]) -> None:
    artifact = cocorr.load(str(artifacts["onnx"]))
    ids = {tensor.name: np.ones((2, *tensor.shape), ">i8") for tensor in artifact.manifest.inputs}
    calls = [(cocorr.load, value) for value in (None, 5, b"x", [], "")]
    calls += [(cocorr.Artifact, value) for value in (None, "x")]
    calls += [(artifact.run, value) for value in (None, 5, "ids", [X], {**ids, "item_ids": [[1], [1, 2]]})]
    calls += [(artifact.run, {**ids, "item_ids": ids["item_ids"].astype(kind)}) for kind in (object, "U4", float)]
    calls += [(artifact.parity, value) for value in (None, 5, [], "nowhere")]
    calls += [(artifact.profile, value) for value in (None, 0, -1, "x", True, 2.5, 10**9)]
    calls += [(lambda value: artifact.profile(1, value), value) for value in (None, 5, [])]
    calls += [(artifact.run, {**ids, "item_ids": np.ma.masked_array(ids["item_ids"], mask=True)})]
    for call, value in calls:
        with pytest.raises(cocorr.BadInputError) as caught:
            call(value)
        assert "\n" not in str(caught.value), value
    assert artifact.run(ids)["scores"].dtype == np.float32


def test_the_names_are_the_documented_ones() -> None:
    documented = set(re.findall(r"^\| `(\w+)", PAGE.read_text(), re.M))
    assert documented == set(cocorr.__all__)
    for name in cocorr.__all__:
        assert getattr(cocorr, name) is not None
    for function in (cocorr.export, cocorr.load, cocorr.Artifact.run):
        assert inspect.getdoc(function)
