"""`cocorr-export serve` as it is used: the command in a process of its own, its model's real program, real requests."""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import safetensors.numpy
import tiny_models
import tiny_ofa
import torch
from commands import run_here

from exporter import pipeline
from exporter.artifact import store, weights
from models import checkpoint as checkpoints
from models.forward_ofa.assembler import assemble, block_weight_shapes
from models.forward_ofa.programs import ControllerProgram
from safeio.progress import tell


@contextlib.contextmanager
def serving(*arguments: object) -> Iterator[tuple[subprocess.Popen, str]]:
    """Start the command at a free port and give it with the address that it prints."""
    command = [sys.executable, "-m", "exporter", "serve", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert " at http://127.0.0.1:" in line, process.stderr.read()
        yield process, line.rpartition(" ")[2].strip()
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def correct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scn")
    choice = pipeline.ProgramChoice("scn", "correct", tiny_models.write("scn", folder / "checkpoint"))
    (made,) = pipeline.export(pipeline.ExportRequest(choice, "onnx", folder / "made"), tell)
    return Path(made.to_json()["artifact"])


def test_packages_that_devices_ask_for_rank_as_torch_does(tmp_path: Path) -> None:
    checkpoint = tiny_ofa.write(tmp_path / "ofa")
    model, golden = tiny_ofa.read(checkpoint)
    with torch.no_grad():
        _, structures, latents = ControllerProgram(model)(torch.from_numpy(golden["item_ids"]))
    bodies = [
        {"structure": "".join(str(int(runs)) for runs in structure), "latent": latent.tolist()}
        for structure, latent in zip(structures, latents, strict=True)
    ]
    expected = tiny_ofa.scores(model, golden["item_ids"], golden["candidate_ids"])
    with serving("ofa", "--checkpoint", checkpoint) as (process, url), httpx.Client(timeout=60) as client:
        alone = [client.post(url, json=body).content for body in bodies]
        with ThreadPoolExecutor(12) as many:
            together = list(many.map(lambda body: client.post(url, json=body).content, bodies))
        for user, body in enumerate(bodies):
            structure = [*map(int, body["structure"])]
            shapes = block_weight_shapes(model.backbone, structure)
            metadata = {"format": weights.FORMAT, "backbone": "sasrec", "structure": body["structure"]}
            metadata["checkpoint"] = checkpoints.read(checkpoint).sha256
            one, other = (weights.from_bytes(data, shapes, metadata, "it") for data in (alone[user], together[user]))
            for name in shapes:
                np.testing.assert_allclose(other.tensors[name], one.tensors[name], rtol=0, atol=1e-5)
            named = {name: torch.from_numpy(array.copy()) for name, array in one.tensors.items()}
            ids = [torch.from_numpy(golden[name][user : user + 1]) for name in ("item_ids", "candidate_ids")]
            with torch.no_grad():
                scores = assemble(model.items, model.backbone, structure, named)(*ids).numpy()
            np.testing.assert_allclose(scores, expected[user], rtol=0, atol=1e-4)
        in_bytes = client.post(url, json={**bodies[0], "stored": "int8"}).content
        assert len(in_bytes) < 0.6 * len(alone[0])
        refused = client.post(url, json={**bodies[0], "user": "17"})
        assert (refused.status_code, refused.json()["error"].split(";")[0]) == (400, "'user' is not taken")
        huge = client.post(url, json={**bodies[0], "latent": [3e38] * 16})
        assert huge.status_code == 422
        counts = client.get(httpx.URL(url).join("/metrics")).text
        assert 'cocorr_serve_requests_total{status="200"} 49.0' in counts and 'program="mapper"' in counts
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        said = process.stderr.read()
    assert all(line.startswith("... ") for line in said.splitlines()), said  # no access log, no traceback


def test_corrections_come_from_an_artifact_that_was_made_before(correct: Path) -> None:
    golden = store.read_golden(correct)
    hidden = golden.inputs["hidden_state"][:, 0]
    with serving("scn", "--artifact", correct) as (process, url), httpx.Client(timeout=60) as client:
        for user, own in enumerate(hidden[:3]):
            answer = client.post(url, json={"hidden_state": own.tolist()})
            for name, array in safetensors.numpy.load(answer.content).items():
                np.testing.assert_allclose(array, golden.outputs[name][user], rtol=0, atol=1e-5)
        assert client.post(url, json={"hidden_state": own.tolist(), "stored": "int8"}).status_code == 400
        assert client.post(url, json={"hidden_state": own[1:].tolist()}).status_code == 400
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_nothing_is_served_that_was_not_verified(
    correct: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changed = shutil.copytree(correct, tmp_path / "changed")
    with (changed / "model.onnx").open("ab") as file:
        file.write(b"\0")
    other = shutil.copytree(correct, tmp_path / "other")
    document = json.loads((other / "manifest.json").read_text())
    del document["any_batch"]
    (other / "manifest.json").write_text(json.dumps(document))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for arguments, code, words in (
            (["scn", "--artifact", changed], 2, "export the artifact again"),
            (["scn", "--artifact", other], 2, "which takes one user a call"),
            (["ofa", "--artifact", correct], 2, "export ofa with --program mapper"),
            (["scn", "--artifact", correct, "--checkpoint", tmp_path], 2, "leave one of the two out"),
            (["scn", "--stored", "int8"], 2, "its answers have one form"),
            (["sasrec"], 2, "serve scn or ofa"),
            (["scn", "--artifact", correct, "--port", port], 2, "choose another --bind or --port"),
        ):
            words_given = arguments if "--port" in arguments else [*arguments, "--port", "0"]
            ended = run_here(capfd, "serve", *words_given)
            assert (ended.code, words in ended.error_line()) == (code, True), (arguments, ended.err)
            assert not ended.out
