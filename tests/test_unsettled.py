"""A Core ML artifact whose scores rest on what only a Mac could settle: what `run`, `parity` and the manifest say."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run_here

from exporter.artifact import store
from exporter.artifact.results import Result
from exporter.connections import running
from exporter.connections.host import HostConnection
from exporter.core.sections import Parity
from exporter.core.types import TensorSpec
from exporter.parity.section import judged
from exporter.report.console import print_artifacts
from exporter.targets import TARGETS

X = np.float32([[-7.0, 7.0, -6.0]])
FLOOR, C = np.float32([[2.0, 1.0, 0.0]]), np.float32([[-1.0, 1.0, 0.0]])


@pytest.fixture(scope="module")
def remainder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that gives the remainder of x [1, 3] by 3."""
    import coremltools as ct
    from coremltools.converters.mil import Builder

    @Builder.program(input_specs=[Builder.TensorSpec(shape=(1, 3))], opset_version=ct.target.iOS17)
    def program(x: Any) -> Any:
        return Builder.mod(x=x, y=np.float32(3), name="scores")

    options = {"compute_precision": ct.precision.FLOAT32, "skip_model_load": True}
    path = tmp_path_factory.mktemp("remainder") / "model.mlpackage"
    ct.convert(program, minimum_deployment_target=ct.target.iOS17, **options).save(str(path))
    return path


@pytest.fixture
def section(remainder: Path) -> Callable[[np.ndarray, np.ndarray], Parity]:
    """Judge the package on one case with given scores of torch."""

    def run(x: np.ndarray, scores: np.ndarray) -> Parity:
        outputs = (TensorSpec("scores", (1, 3), "float32"),)
        subject = running.Subject(TARGETS["coreml"], remainder, {}, outputs, 1, HostConnection())
        ran = running.run(subject, {"x": x[None]}, 0, 0)
        assert ran.result is not None
        return judged(ran.result, {"scores": scores[None]}, "scores", "fp32")

    return run


def test_run_warns(remainder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for x, warned in ((X, True), (abs(X), False)):
        np.savez(tmp_path / "x.npz", x=x)
        ended = run_here(capfd, "run", remainder, "--inputs", tmp_path / "x.npz", "--outputs", tmp_path / "y.npz")
        assert ended.code == 0
        assert ("warning: unsettled: operation 'scores' (mod): an operand is negative" in ended.err) == warned
    with np.load(tmp_path / "y.npz") as outputs:
        assert outputs["scores"].tolist() == [[1.0, 1.0, 0.0]]


def test_the_verdict_carries_it(
    section: Callable[..., Parity], artifacts: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    found = section(X, FLOOR)
    assert (found.verdict, found.max_abs_error, len(found.unsettled)) == ("unverified", 0.0, 1)
    assert found.unsettled[0] in str(found.reason)
    assert (section(X, C).verdict, len(section(X, C).unsettled)) == ("fail", 1)
    settled = section(abs(X), abs(C))
    assert (settled.verdict, settled.unsettled) == ("pass", ())
    manifest = store.read_manifest(artifacts["coreml"])
    print_artifacts([Result(replace(manifest, parity=found), "here")])
    shown = capsys.readouterr().out
    assert f"unverified: {found.reason}" in shown
    assert f"ranking: not judged, {found.ranking_reason}" in shown
    assert "pass" not in shown


def test_an_artifact_that_was_a_pass_is_so_no_more(
    artifacts: dict[str, Path], remainder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The shipped model rests on nothing unsettled; its artifact with another program in it does."""
    manifest = json.loads((artifacts["coreml"] / "manifest.json").read_text())
    assert (manifest["parity"]["verdict"], manifest["parity"]["unsettled"]) == ("pass", [])
    folder = tmp_path / "coreml"
    shutil.copytree(artifacts["coreml"], folder)
    shutil.rmtree(folder / "model.mlpackage")
    shutil.copytree(remainder, folder / "model.mlpackage")
    spec = {"shape": [1, 3], "dtype": "float32"}
    manifest |= {"inputs": [{"name": "x", **spec}], "outputs": [{"name": "scores", **spec}], "candidates": 3}
    del manifest["interface"]
    np.savez(folder / "golden.npz", **{"inputs.x": X[None], "outputs.scores": FLOOR[None]})
    manifest["files"] = list(map(asdict, store.list_files(folder)))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    ended = run_here(capfd, "parity", folder)
    assert (ended.code, "only a Mac can tell" in ended.out, ended.err.count("Traceback")) == (3, True, 0), ended.err
