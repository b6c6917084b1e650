"""`--batch`: what the cloud computes for many users in one call, each of them as if alone."""

from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from commands import run_here

from exporter.artifact import store
from exporter.artifact.results import Result
from exporter.measure import growth
from exporter.pipeline import ProgramChoice, source
from exporter.report.profile import print_profile
from models.scn.programs import Correct

MIXING = """
from dataclasses import replace
import torch
from models.scn.programs import SPEC as SCN

class Mixed(torch.nn.Module):
    def forward(self, hidden_state):
        return hidden_state - hidden_state.mean(0, keepdim=True)

one = replace(
    SCN.programs["correct"],
    name="one",
    build=lambda model, _selection=None: Mixed(),
    outputs=("mixed",),
    output_meanings={},
    receives=(),
    sends=(),
)
SPEC = replace(SCN, name="mixing", programs={"one": one}, default_program="one")
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write("scn", tmp_path_factory.mktemp("batch") / "scn")


def test_each_user_of_a_batch_gets_what_it_gets_alone(
    checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--program", "correct", "--checkpoint", checkpoint, "--target", "onnx", "--output", tmp_path]
    ended = run_here(capfd, "scn", *arguments, "--batch", "4", "--json")
    assert ended.code == 0, ended.err
    place = Path(ended.document["artifact"])
    assert (ended.document["batch"], ended.document["parity"]["cases"]) == (4, 4)  # 14 users, and two of them again
    card = (place / "README.md").read_text()
    assert "bytes on the server" in card and "is what a server loads" in card and "```python" in card
    assert not any(words in card for words in ("bytes on the device", "an app ships", "```kotlin", "```javascript"))
    inputs, outputs, *_ = store.read_golden(place)
    users = inputs["hidden_state"].reshape(16, 1, tiny_models.LENGTH, 16)
    np.testing.assert_array_equal(users[14:], users[:2])
    loaded = source.load(ProgramChoice("scn", "correct", checkpoint))
    correct = Correct(loaded.model)
    with torch.no_grad():
        alone = [correct(torch.from_numpy(hidden)) for hidden in users]
    for name, values in zip(("attention_correction", "bias_correction"), zip(*alone, strict=True), strict=True):
        np.testing.assert_array_equal(outputs[name].reshape(16, *values[0].shape[1:]), torch.cat(values).numpy())

    again = run_here(capfd, "scn", *arguments)
    assert (again.code, "batch 4 and not 1" in again.error_line()) == (2, True)
    assert "capturing" not in again.err
    monkeypatch.setattr(growth, "LENGTHS", (3, 12))  # half a mini-batch is left out
    profiled = run_here(capfd, "profile", place, "--checkpoint", checkpoint, "--iterations", "20", "--json")
    assert profiled.code == 0, profiled.err
    network, points = profiled.document["network"], profiled.document["growth"]["points"]
    bytes_of_one_user = 4 * tiny_models.LENGTH * 16
    assert (network["up_bytes"], len(points)) == (bytes_of_one_user, 2)
    assert profiled.document["growth"]["module_hook_macs_per_token"] is None  # of the SCN, of which this is no part
    print_profile(Result(store.read_manifest(place), "here"))
    shown = capfd.readouterr().out
    for words in (
        "onnx generic fp32  batch 4",
        "moved per call of 4 users",
        "per click of 4 users",
        "of one user of 4",
    ):
        assert words in shown


def test_a_model_that_mixes_its_users_is_no_pass(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mixing.py").write_text(MIXING)
    arguments = ["--model", f"{tmp_path / 'mixing.py'}:SPEC", "--untrained", "--target", "onnx", "--output", tmp_path]
    ended = run_here(capfd, "export", *arguments, "--batch", "3", "--json")
    assert (ended.code, ended.document["parity"]["verdict"]) == (1, "fail"), ended.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["scn", "--batch", "2"], "rerank runs on a device, which has one"),
        (["scn", "--program", "correct", "--batch", "0"], "greater than or equal to 1"),
        (["ofa", "--program", "mapper", "--batch", "4096", "--untrained"], "users or fewer"),
    ],
)
def test_batches_that_cannot_be_had_are_refused_in_a_line(
    arguments: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = run_here(capfd, *arguments, "--target", "onnx", "--output", tmp_path / "out")
    assert (ended.code, message in ended.error_line()) == (2, True), ended.err
    assert not (tmp_path / "out").exists()
