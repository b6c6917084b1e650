"""The benchmarks against the vendors' own calls, and of the floor, still run."""

import sys
from collections.abc import Callable
from pathlib import Path

import limits
import pytest
import tiny_models
import vendor

Table = Callable[[Callable[[], None], str], list[dict[str, str]]]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Table:
    """Run a benchmark on a small DIN for ONNX, with one form of the product; return its rows by their columns."""

    def rows(main: Callable[[], None], form: str) -> list[dict[str, str]]:
        tiny_models.write("din", tmp_path / "din")
        words = ["--models", "din", "--targets", "onnx", "--calls", "20", "--checkpoints", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["benchmark", *words])
        monkeypatch.setattr(limits, "FORMS", {form: limits.FORMS[form]})
        main()
        printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]  # vendors print too
        lines = [line.strip("| ").split(" | ") for line in printed]
        return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]

    return rows


def whole(number: str) -> int:
    return int(number.replace(",", ""))


def test_a_row_for_plain_and_for_each_of_ours(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vendor, "OURS", {"cocorr-export": {}})
    rows = {row["program"]: row for row in table(vendor.main, "bmm")}
    assert list(rows) == ["plain", "cocorr-export", "cocorr-export of plain's .pt2"]
    assert rows["plain"]["to plain's"] == "1.000"
    assert all(float(row["faster"]) > 0 and float(row["times the floor"]) > 0 for row in rows.values())
    plain, *ours = (whole(row["MACs"]) for row in rows.values())
    assert all(plain >= macs > 0 for macs in ours)


def test_the_floor_grows_with_what_it_has(table: Table) -> None:
    rows = {row["floor"]: whole(row["bytes"]) for row in table(limits.main, "multiply and sum")}
    assert list(rows) == ["empty", "gathers", "product: multiply and sum"]
    items = 4 * tiny_models.VOCABULARY * tiny_models.SIZES["din"]["dimension"]
    assert rows["empty"] < items < rows["gathers"] < rows["product: multiply and sum"] < 2 * items
