"""`cocorr-export program`: a .pt2 and its golden inputs to an artifact, and what is refused on the way."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Ended, run_here
from examples_of_the_project import load_example
from torch import nn

from exporter.core.errors import BadInputError, LoweringError
from exporter.graph.capture import capture
from exporter.pipeline import program as programs
from exporter.pipeline import rehearsal
from exporter.pipeline.request import GivenModule
from exporter.profiles import load as load_profile
from exporter.targets import TARGETS


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What examples/sasrec_pt2.py writes."""
    folder = tmp_path_factory.mktemp("sasrec")
    load_example("sasrec_pt2").write(folder)
    return folder


def program(capfd: pytest.CaptureFixture[str], example: Path, *more: str | Path) -> Ended:
    given = {"--inputs": example / "golden.npz", "--target": "onnx", "--output": example / "out"}
    given |= dict(zip(more[::2], more[1::2], strict=True))
    words = [word for pair in given.items() for word in pair]
    return run_here(capfd, "program", example / "sasrec.pt2", *words)


def test_the_example_becomes_an_artifact(example: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(example, tmp_path / "of me", dirs_exist_ok=True)
    file = tmp_path / "of me" / "my: SASRec.pt2"
    (tmp_path / "of me" / "sasrec.pt2").rename(file)
    given = ("--inputs", example / "golden.npz", "--outputs", "scores", "--ranking", "scores", "--output", tmp_path)
    ended = run_here(capfd, "program", file, *given, "--target", "onnx", "--json")
    document = ended.document
    assert (ended.code, document["parity"]["verdict"], document["parity"]["cases"]) == (0, "pass", 32), ended.err
    assert document["parity"]["top10_overlap"] == 1
    place = tmp_path / "my-SASRec" / "program" / "generic" / "onnx"
    assert Path(document["artifact"]) == place
    assert [(one["name"], one["dtype"], one["shape"]) for one in document["inputs"]] == [
        ("item_seq", "int32", [1, 12]),
        ("item_seq_len", "int32", [1]),
        ("candidates", "int32", [1, 40]),
    ]
    source = document["source"]
    assert len(source["program_sha256"]) == 64 and (source["checkpoint_sha256"], source["untrained"]) == (None, False)
    assert document["history_length"] is None
    profiled = run_here(capfd, "profile", place, "--iterations", "20", "--json").document
    assert "one length" in profiled["growth"]["reason"] and profiled["flops"]["total"] > 300_000
    assert run_here(capfd, "parity", place).code == 0


BAD_INPUTS = {
    "a name": (lambda a: {"item_seq": a["item_seq"], "candidates": a["candidates"]}, "have no 'item_seq_len'"),
    "one too many": (lambda a: {**a, "user": a["item_seq"]}, "have 'user', which the program does not take"),
    "a dtype": (lambda a: {**a, "item_seq": a["item_seq"].astype("float32")}, "the program takes int64"),
    "a shape": (lambda a: {**a, "item_seq": a["item_seq"][:, :5]}, "[cases, 1, 12]"),
    "cases": (lambda a: {**a, "item_seq": a["item_seq"][:5]}, "not the same number for each input"),
    "too many cases": (lambda a: {k: np.repeat(v, 3000, 0) for k, v in a.items()}, "are 96000; give 65536 or fewer"),
    "64 bits": (lambda a: {**a, "item_seq": a["item_seq"] + (1 << 40)}, "int32 on every target"),
    "an id": (lambda a: {**a, "item_seq": a["item_seq"] + 500}, "cannot compute its golden cases: index out of range"),
}


@pytest.mark.parametrize("kind", BAD_INPUTS)
def test_inputs_that_do_not_fit(kind: str, example: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change, words = BAD_INPUTS[kind]
    np.savez(tmp_path / "bad.npz", **change(dict(np.load(example / "golden.npz"))))
    ended = program(capfd, example, "--inputs", tmp_path / "bad.npz", "--output", tmp_path / "out")
    assert (ended.code, words in ended.error_line()) == (2, True), ended.err
    assert not (tmp_path / "out").exists()


def test_words_that_do_not_fit(example: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pickled.npz").write_bytes(b"\x80\x04.")
    (tmp_path / "long.yaml").write_text("name: long\nhistory_length: 25\ntargets:\n  onnx:\n")
    for option, value, words in (
        ("--ranking", "score", "has no output 'score' to rank by; it gives output"),
        ("--outputs", "scores,state", "gives 1 outputs, not 2"),
        ("--outputs", "item_seq", "item_seq for two of them"),
        ("--outputs", "my scores", "gives 'my scores'"),
        ("--inputs", tmp_path / "pickled.npz", "is no .npz"),
        ("--inputs", tmp_path / "nowhere.npz", "nowhere.npz does not exist"),
        ("--profile", tmp_path / "long.yaml", "a program has the sizes that it was exported with"),
        ("--target", "tensorrt", "unknown target 'tensorrt'"),
    ):
        ended = program(capfd, example, option, value, "--output", tmp_path / "out")
        assert (ended.code, words in ended.error_line()) == (2, True), ended.err
    assert not (tmp_path / "out").exists()


def test_what_is_in_training_mode_is_refused() -> None:
    exported = torch.export.export(nn.Dropout(0.5).train(), (torch.ones(1, 50),))
    choice = GivenModule("dropout", exported, {"input": np.ones((2, 1, 50), np.float32)})
    with pytest.raises(BadInputError, match=r"call eval\(\) on the model"):
        programs.load(choice, "generic", (None, None))


class Unpooled(nn.Module):
    """Writes where `at` says, and torch does not look whether that is inside."""

    def forward(self, x: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        two = [2, 2]
        return torch.ops.aten.max_pool2d_with_indices_backward(
            x, x.new_zeros(1, 4, 4), two, two, [0, 0], [1, 1], False, at
        )


def test_a_crash_of_torch_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = torch.ones(1, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64)
    torch.export.save(torch.export.export(Unpooled(), arguments), tmp_path / "sasrec.pt2")
    np.savez(tmp_path / "golden.npz", x=np.ones((1, 1, 2, 2), np.float32), at=np.full((1, 1, 2, 2), 1 << 30))
    ended = program(capfd, tmp_path)
    assert (ended.code, "cannot compute its golden cases: torch crashed with SIG" in ended.error_line()) == (2, True)
    assert not (tmp_path / "out").exists()


class Wide(nn.Module):
    """Takes 1.2 GB for one value."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat(1, 300_000_000).sum(1)


def test_too_much_memory_is_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearsal, "machine_memory", lambda: 1 << 30)
    torch.export.save(torch.export.export(Wide(), (torch.ones(1, 1),)), tmp_path / "sasrec.pt2")
    np.savez(tmp_path / "golden.npz", x=np.ones((1, 1, 1), np.float32))
    ended = program(capfd, tmp_path)
    assert (ended.code, "cases: torch took more than 1.07 GB, what this machine has;" in ended.error_line()) == (
        2,
        True,
    )
    assert not (tmp_path / "out").exists()


class Kth(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.kthvalue(x, 2).values


class Branch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.sum() > 0 else x


def line_of(source: str) -> str:
    lines = Path(__file__).read_text().splitlines()
    return f"{Path(__file__).name}:{next(at for at, line in enumerate(lines, 1) if line.strip() == source)}"


@pytest.mark.parametrize("target", ["coreml", "onnx", "executorch", "tflite"])
def test_a_refusal_names_the_line_and_the_operation(target: str, tmp_path: Path) -> None:
    captured = capture("kth", "program", Kth().eval(), {"x": np.ones((1, 8), np.float32)}, ("y",))
    with pytest.raises(LoweringError) as refused:
        TARGETS[target].lower(captured, "fp32", load_profile("generic").options_for(target), tmp_path)
    message = str(refused.value)
    assert "aten.kthvalue in " in message and line_of("return torch.kthvalue(x, 2).values") in message, message
    assert len(message) < 300 and "another target" in message


def test_a_refusal_of_torch_is_one_short_line() -> None:
    with pytest.raises(LoweringError) as refused:
        capture("branch", "program", Branch().eval(), {"x": np.ones((1, 8), np.float32)}, ("y",))
    message = str(refused.value)
    assert "depends on values" in message and line_of("return x * 2 if x.sum() > 0 else x") in message, message
    assert len(message) < 300
