"""`cocorr-export run`: any Core ML program from the command line."""

from pathlib import Path

import numpy as np
import pytest
from commands import run_here


def test_run_gives_outputs_and_intermediates(
    artifacts: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    package = artifacts["coreml"] / "model.mlpackage"
    with np.load(artifacts["coreml"] / "golden.npz") as golden:
        np.savez(tmp_path / "x.npz", **{n: golden[f"inputs.{n}"][0] for n in ("item_ids", "candidate_ids")})
        expected = golden["outputs.scores"][0]
    arguments = ("run", package, "--inputs", tmp_path / "x.npz", "--outputs", tmp_path / "y.npz")
    assert run_here(capfd, *arguments).code == 0
    with np.load(tmp_path / "y.npz") as outputs:
        assert outputs.files == ["scores"]
        np.testing.assert_allclose(outputs["scores"], expected, atol=1e-4)
    assert run_here(capfd, *arguments, "--intermediates").code == 0
    with np.load(tmp_path / "y.npz") as outputs:
        assert len(outputs.files) > 100


@pytest.mark.parametrize(
    ("inputs", "part"),
    [
        (b"no zip", "no .npz"),
        ({"item_ids": np.zeros((1, 10), np.int32)}, "'candidate_ids' is missing"),
        ({"item_ids": np.zeros((1, 9), np.int32), "candidate_ids": np.zeros((1, 100), np.int32)}, "[1, 9]"),
        ({"item_ids": np.array([{}])}, "no numbers"),
    ],
    ids=["text", "missing", "shape", "pickle"],
)
def test_bad_inputs(
    inputs: bytes | dict[str, np.ndarray],
    part: str,
    artifacts: dict[str, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if isinstance(inputs, bytes):
        (tmp_path / "x.npz").write_bytes(inputs)
    else:
        np.savez(tmp_path / "x.npz", **inputs)
    (tmp_path / "y.npz").write_bytes(b"earlier")
    package = artifacts["coreml"] / "model.mlpackage"
    ended = run_here(capfd, "run", package, "--inputs", tmp_path / "x.npz", "--outputs", tmp_path / "y.npz")
    assert (ended.code, part in ended.error_line()) == (2, True), ended.err
    assert (tmp_path / "y.npz").read_bytes() == b"earlier"
    assert len(list(tmp_path.iterdir())) == 2
