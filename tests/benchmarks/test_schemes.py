"""The benchmark of schemes still runs: tables of artifacts, of a larger catalogue, and of all test users."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import scheme_accuracy
import schemes
import tiny_models
import torch

CLICKS, USERS = 12, 40


def table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path, *words: str
) -> list[dict[str, str]]:
    """Run the benchmark on the checkpoints of a folder; return its rows by their columns."""
    asked = ["--schemes", "int8", "--calls", "20", "--checkpoints", str(folder), *words]
    monkeypatch.setattr(sys, "argv", ["schemes.py", *asked])
    schemes.main()
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]  # vendors print too
    lines = [line.strip("| ").split(" | ") for line in printed]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


def whole(number: str) -> int:
    return int(number.replace(",", ""))


@pytest.mark.parametrize("words", [("artifacts", "onnx"), ("large", "coreml")])
def test_a_row_for_each_scheme(
    words: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_models.write("scn", tmp_path / "scn")
    part, target = words
    fp32, int8 = table(
        monkeypatch, capsys, tmp_path, "--parts", part, "--targets", target, "--items", "6000", "--models", "scn"
    )
    assert (fp32["scheme"], int8["scheme"]) == ("fp32", "int8")
    assert whole(int8["constants"]) < whole(fp32["constants"])
    assert float(int8["moves"]) > 0 < float(int8["allowed"])
    assert all(float(row["memory MB"]) >= 0 for row in (fp32, int8))
    assert (fp32["time to fp32's"] == "-") == (target == "coreml")


def test_all_test_users_are_ranked_with_the_stored_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    clicks = [rng.permutation(tiny_models.VOCABULARY - 1)[:CLICKS] for _ in range(USERS)]
    clicks[0] = np.arange(tiny_models.VOCABULARY - 1)  # so that all items are there; too many to be tested
    lines = [f"{user}\t{item}\t{at}" for user, row in enumerate(clicks) for at, item in enumerate(row)]
    (tmp_path / "clicks.tsv").write_text("\n".join(["user\titem\torder", *lines]) + "\n")
    tiny_models.write("scn", tmp_path / "scn")
    config = tmp_path / "scn" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"training": {"data": "clicks.tsv", "seed": 0}}))
    rows = table(monkeypatch, capsys, tmp_path, "--parts", "accuracy", "--data", str(tmp_path))
    among = ("100 negatives", "all items")
    assert [(row["among"], row["scheme"]) for row in rows] == [(of, name) for of in among for name in ("fp32", "int8")]
    assert {row["users"] for row in rows} == {str(USERS - 1)}
    assert all(0 < float(row["NDCG@10"]) < 1 for row in rows)
    assert [float(row["change, %"]) for row in rows[::2]] == [0.0, 0.0]


def test_a_change_is_that_of_pairs() -> None:
    reference = np.array([1.0, 0.0, 0.5, 0.5])
    percent, low, high = scheme_accuracy.change(1.1 * reference, reference)
    assert (percent, low, high) == pytest.approx((10.0, 10.0, 10.0))
    percent, low, high = scheme_accuracy.change(reference[::-1].copy(), reference)
    assert percent == pytest.approx(0.0)
    assert low < 0 < high


@pytest.mark.parametrize(("tables", "most"), [("fp16", 2**-11), ("int8", 0.5 / 127), ("int4", 0.5)])
def test_a_table_is_restored_within_a_step(tables: str, most: float) -> None:
    rows = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    restored = scheme_accuracy.restored(rows, tables)
    error = ((restored - rows).abs().amax(-1) / rows.abs().amax(-1)).max()
    assert 0 < error <= most * 1.0001
