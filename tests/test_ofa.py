"""Forward-OFA from the command: which sub-network, for whom, without a catalogue, within the budgets of a device."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_ofa
from commands import run_here

from exporter.artifact import store
from exporter.targets import TARGETS
from models.forward_ofa.supernet import Supernet


def test_subnet_passes_on_all_targets(small_ofa: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ended = run_here(capfd, "ofa", "--target", "all", "--checkpoint", small_ofa, "--output", tmp_path, "--json")
    assert ended.code == 0, ended.err
    documents = ended.document["artifacts"]
    assert [(one["target"], one["program"], one["parity"]["verdict"]) for one in documents] == [
        (target, "subnet", "pass") for target in TARGETS
    ]
    for document in documents:
        assert document["selection"]["structure"] == document["selection"]["chosen"]
        assert (document["selection"]["left_out"], document["external"], document["budgets"]) == ([], None, [])
        assert document["flops"]["uncounted"] == []


@pytest.mark.parametrize(("program", "target"), [("subnet", "coreml"), ("subnet_external", "executorch")])
def test_the_shipped_blocks_fit_into_16_bits(
    program: str, target: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # Their residual stream reaches hundreds, and products of attention 187,824: 16 bits hold neither those nor squares.
    words = ("ofa", "--program", program, "--target", target, "--precision", "fp16", "--output", tmp_path, "--json")
    ended = run_here(capfd, *words)
    parity = ended.document["parity"]
    assert (ended.code, parity["verdict"]) == (0, "pass"), parity["reason"]
    assert parity["top10_overlap"] >= 0.98


def test_two_structures_differ_in_size_and_cost(small_ofa: Path, tmp_path: Path) -> None:
    one, two = (tiny_ofa.export(small_ofa, tmp_path / s, "subnet", "onnx", structure=s)["onnx"] for s in ("010", "111"))
    assert (one["parity"]["verdict"], two["parity"]["verdict"]) == ("pass", "pass")
    block = 5 * (16 * 16 + 16) + 4 * 16  # generated, and the two layer norms
    assert two["parameters"] - one["parameters"] == 2 * block
    assert two["size_bytes"] - one["size_bytes"] >= 2 * block * 4
    assert two["flops"]["macs"] > 2 * one["flops"]["macs"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--structure", "1111"], "3 digits of 0 and 1"),
        (["--structure", "1x0"], "3 digits of 0 and 1"),
        (["--history", ""], "history is empty"),
        (["--history", "3,300"], "unknown item ids, 300"),
        (["--history", "3,-7"], "unknown item ids, -7"),
        (["--history", "3,0x10"], "neither item ids nor a file"),
        (["--history", "\u0663,\u0661"], "neither item ids nor a file"),
        (["--history", "."], "no regular file"),
        (["--history", "/dev/zero"], "no regular file"),
        (["--history", "3," + "9" * 18], "unknown item ids, 999999999999999999"),
        (["--structure", "\u0661\u0660\u0661"], "3 digits of 0 and 1"),
        (["--history", "3," + "9" * 40], "is no item id"),
        (["--program", "controller", "--structure", "101"], "the same for all users"),
        (["--program", "controller", "--embeddings", "cached"], "no form with cached embeddings"),
        (["--program", "subnet_external", "--embeddings", "cached"], "no form with cached embeddings"),
    ],
)
def test_bad_choices(
    arguments: list[str], part: str, small_ofa: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = run_here(capfd, "ofa", "--target", "onnx", "--checkpoint", small_ofa, "--output", tmp_path, *arguments)
    assert (ended.code, part in ended.error_line()) == (2, True), ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"3\xff", "is no text"),
        (b"3,\0", "is no item id"),
        ("3 \u0661".encode(), "is no item id"),
        (b"3," * (1 << 19) + b"3", "larger than"),
        (b" \n", "history is empty"),
    ],
)
def test_bad_files_of_clicks(
    content: bytes, part: str, small_ofa: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clicks.txt").write_bytes(content)
    common = ("ofa", "--target", "onnx", "--checkpoint", small_ofa, "--output", tmp_path / "out")
    ended = run_here(capfd, *common, "--history", tmp_path / "clicks.txt")
    assert (ended.code, part in ended.error_line()) == (2, True), ended.err
    assert not (tmp_path / "out").exists()


def test_a_model_with_one_network_takes_no_choice(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ended = run_here(capfd, "scn", "--target", "onnx", "--output", tmp_path, "--structure", "101")
    assert (ended.code, "only one network" in ended.error_line()) == (2, True)


def test_a_history_from_a_file_and_no_block_at_all(
    small_ofa: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clicks.txt").write_text("3\n17\n5\n")
    common = ["ofa", "--target", "onnx", "--checkpoint", small_ofa, "--output", tmp_path / "out", "--json"]
    ended = run_here(capfd, *common, "--history", tmp_path / "clicks.txt", "--structure", "000")
    assert (ended.code, ended.document["selection"]["structure"]) == (0, "000"), ended.err
    golden = store.read_golden(Path(ended.document["artifact"]))[0]
    assert golden["item_ids"][0, 0].tolist() == [3, 17, 5, 0, 0, 0]


def test_cached_embeddings_ship_no_catalogue(small_ofa: Path, small_ofa_model: Supernet, tmp_path: Path) -> None:
    document = tiny_ofa.export(small_ofa, tmp_path, "subnet", "tflite", embeddings="cached")["tflite"]
    assert (document["program"], document["parity"]["verdict"]) == ("subnet_cached", "pass")
    assert [one["name"] for one in document["inputs"]] == [
        *("history_embeddings", "history_length", "candidate_embeddings"),
    ]
    content = (Path(document["artifact"]) / "model.tflite").read_bytes()
    assert not any(row.tobytes() in content for row in small_ofa_model.items.weight[1:].detach().numpy())


def test_scn_takes_cached_embeddings_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ended = run_here(capfd, "scn", "--target", "onnx", "--embeddings", "cached", "--output", tmp_path, "--json")
    assert (ended.code, ended.document["parity"]["verdict"]) == (0, "pass"), ended.err
    assert ended.document["size_bytes"] < 300_000  # 3.2 MB with the catalogue


def _profile(folder: Path, budgets: str) -> Path:
    file = folder / "small.yaml"
    file.write_text(f"name: small\ntargets:\n  onnx:\nbudgets:\n{budgets}")
    return file


def _export_for(capfd: pytest.CaptureFixture[str], small_ofa: Path, tmp_path: Path, budgets: str):
    profile = _profile(tmp_path, budgets)
    where = ("--checkpoint", small_ofa, "--output", tmp_path / "out", "--profile", profile)
    return run_here(capfd, "ofa", "--target", "onnx", "--structure", "111", "--json", *where)


def test_a_budget_leaves_out_the_blocks_with_the_smallest_logits(
    small_ofa: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    block = 5 * (16 * 16 + 16) + 4 * 16
    everything = 300 * 16 + 6 * 16 + 2 * 16 + 3 * block  # table, positions, last layer norm
    ended = _export_for(capfd, small_ofa, tmp_path, f"  parameters: {everything - 1}\n  size_bytes: 100000\n")
    document = ended.document
    assert (ended.code, document["parity"]["verdict"]) == (0, "pass"), ended.err
    selection = document["selection"]
    smallest = int(np.argmin(selection["logits"]))
    assert (selection["chosen"], selection["left_out"]) == ("111", [smallest])
    assert selection["structure"] == "".join("0" if block == smallest else "1" for block in range(3))
    assert document["parameters"] == everything - block
    agreement = selection["agreement_with_chosen"]
    assert (agreement["cases"], 0 < agreement["top10_overlap"] < 1) == (24, True)
    assert -1 <= agreement["kendall_tau"] < 1
    assert [row["within"] for row in document["budgets"]] == [True, True]


def test_over_budget_without_any_block(small_ofa: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ended = _export_for(capfd, small_ofa, tmp_path, "  parameters: 100\n")
    document = ended.document
    assert (ended.code, document["parity"]["verdict"], document["selection"]["structure"]) == (1, "pass", "000")
    assert sorted(document["selection"]["left_out"]) == [0, 1, 2]
    assert [row["within"] for row in document["budgets"]] == [False]
    assert json.loads((Path(document["artifact"]) / "manifest.json").read_text())["budgets"] == document["budgets"]


def test_flops_per_token_is_the_growth_of_the_lowered_graph(
    small_ofa: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = _export_for(capfd, small_ofa, tmp_path, "  flops_per_token: 1.0e+9\n")
    flops = ended.document["flops"]
    assert ended.code == 0, ended.err
    # 3 blocks of five 16 x 16 products, 2 FLOPs a MAC; attention, norms, softmax and the state's own part come on top.
    assert 3 * 5 * 16 * 16 * 2 < flops["per_token"] < 1.5 * 3 * 5 * 16 * 16 * 2
    assert "over lengths 3, 6 of" in flops["per_token_method"]


@pytest.mark.parametrize(
    ("budgets", "parts"),
    [
        ("  parameters: 0\n", ["small.yaml:5", "budgets.parameters"]),
        ("  watts: 3\n", ["small.yaml:5", "unknown key", "latency_us"]),
        ("  latency_us: .nan\n", ["small.yaml:5", "latency_us"]),
        ("  size_bytes: much\n", ["small.yaml:5", "size_bytes"]),
    ],
)
def test_bad_budgets(
    budgets: str, parts: list[str], small_ofa: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = _export_for(capfd, small_ofa, tmp_path, budgets)
    assert ended.code == 2
    assert all(part in ended.error_line() for part in parts), ended.err
    assert not (tmp_path / "out").exists()
