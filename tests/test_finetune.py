"""Finetune from the command: what a user's device has tuned is a weights package, which `swap` puts in its place."""

from pathlib import Path

import numpy as np
import pytest
import tiny_ofa
import torch
from commands import run_here
from safetensors.numpy import load_file

from exporter.pipeline import session


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_ofa.write(tmp_path_factory.mktemp("tuned") / "checkpoint", method="finetune", steps=10)


def test_a_user_s_tuned_package_gives_the_artifact_that_user_s_scores(
    tuned: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model, golden = tiny_ofa.read(tuned)
    document = tiny_ofa.export(tuned, tmp_path / "artifacts", "subnet_external", "onnx")["onnx"]
    assert (document["parity"]["verdict"], document["selection"]["structure"]) == ("pass", "111")
    found = {}
    for user, row in ((0, golden["item_ids"][0]), (20, golden["item_ids"][20])):
        package = tmp_path / f"{user}.safetensors"
        words = ("--history", ",".join(str(item) for item in row if item), "--output", package)
        ended = run_here(capfd, "ofa", "package", "--checkpoint", tuned, *words, "--json")
        assert (ended.code, ended.document["structure"]) == (0, "111"), ended.err
        words = ("swap", document["artifact"], package, "--output", tmp_path / f"{user}", "--json")
        ended = run_here(capfd, *words)
        assert (ended.code, ended.document["parity"]["verdict"]) == (0, "pass"), ended.err
        inputs = {name: golden[name][20:21, None] for name in ("item_ids", "candidate_ids")}
        found[user] = session.run(tmp_path / f"{user}", inputs).outputs["scores"][0, 0]
    np.testing.assert_allclose(found[20], golden["scores"][20], rtol=0, atol=1e-4)
    assert np.abs(found[0] - golden["scores"][20]).max() > 1e-3
    assert np.count_nonzero(golden["item_ids"][0]) == 1  # nothing to tune on: the blocks as they are
    first = load_file(tmp_path / "0.safetensors")["block0_query_weight"]
    assert torch.equal(torch.from_numpy(first).flatten(), model.own_weights[0, : first.size])


def test_what_no_device_asks_a_cloud_for_is_refused_in_a_line(
    tuned: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clicks.tsv").write_text("user\titem\ttimestamp\n1\t2\t3\n")
    fleet = ("fleet", "ofa", "--data", tmp_path / "clicks.tsv", "--target", "onnx", "--output", tmp_path / "fleet")
    for words in (fleet, ("serve", "ofa"), ("ofa", "--program", "controller", "--target", "onnx")):
        ended = run_here(capfd, *words, "--checkpoint", tuned)
        assert (ended.code, "finetune has no mapper, as have forward_ofa, duet" in ended.error_line()) == (2, True), (
            ended.err
        )
    plain = tiny_ofa.write(tmp_path / "plain", method="devicerec")
    words = ("--history", "3,5", "--output", tmp_path / "package")
    ended = run_here(capfd, "ofa", "package", "--checkpoint", plain, *words)
    assert (ended.code, "has no mapper" in ended.error_line(), (tmp_path / "package").exists()) == (2, True, False)
