"""Artifacts in a page of a headless Chromium: what comes back is what the host computes, and each end is clear."""

import os
import re
import signal
import threading
from dataclasses import replace

import numpy as np
import onnx
import pytest
from phone import HANGS, renderers, started_by

from exporter.connections import running
from exporter.connections.browser import connection
from exporter.connections.browser.connection import BrowserConnection
from exporter.connections.browser.server import Reply
from exporter.connections.browser.session import Session
from exporter.connections.host import HostConnection
from exporter.core.errors import (
    ArtifactError,
    DeviceError,
    RuntimeCrashError,
    RuntimeMemoryError,
    RuntimeMissingError,
    RuntimeTimeoutError,
)
from exporter.core.types import DataFile, TensorSpec

MODELS = {"onnx": "tiny_onnx", "tflite": "tiny_tflite"}
NAMES = {"onnx": r"onnxruntime-web \S+ \(WebAssembly\)", "tflite": r"LiteRT\.js \S+ \(WebAssembly, (relaxed )?SIMD\)"}
FILLS_MEMORY = (
    "self.startRuntime = async () => { const all = []; for (;;) all.push(new Array(1e5).fill(Math.random())) }"
)
TOO_MUCH = """self.startRuntime = async () => {
  for (const all = []; ; ) all.push(new WebAssembly.Memory({ initial: 60000, maximum: 65536 }));
};"""
CHROMIUM = BrowserConnection(open="chromium")


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that pages ask for, in their order."""
    asked: list[str] = []
    original = Session.file
    monkeypatch.setattr(Session, "file", lambda self, name: (asked.append(name), original(self, name))[1])
    return asked


@pytest.mark.parametrize("target", sorted(MODELS))
def test_a_page_gives_what_the_host_gives(
    target, chromium_here, nothing_left, make_request, capfd, request, expected
) -> None:
    asked = make_request(target, request.getfixturevalue(MODELS[target]), threads=2)
    capfd.readouterr()  # a converter's
    result = CHROMIUM.run(asked)
    assert capfd.readouterr() == ("", "")
    assert list(result.outputs) == ["scores"]
    np.testing.assert_allclose(result.outputs["scores"], expected, rtol=0, atol=1e-6)
    host = HostConnection().run(replace(asked, iterations=0, warmup=0))
    np.testing.assert_allclose(result.outputs["scores"], host.outputs["scores"], rtol=0, atol=1e-6)
    assert re.fullmatch(rf"{NAMES[target]} in headless Chrome \d+(\.\d+)? on Linux", result.executed_on)
    assert (result.connection, len(result.samples_us), len(result.call_samples_us)) == ("browser", 5, 5)
    assert min(result.samples_us) > 0 and result.load_ms > 0 and result.first_us > 0
    assert result.calls_per_sample >= 1 and result.warmup > 1
    assert result.peak_rss_bytes is None
    assert result.memory_reason.startswith("a browser does not tell the resident set")
    assert result.wasm_heap_bytes > 2**20
    said = dict(result.conditions)
    assert said["isolated"] == "yes" and 0 < float(said["clock_step_us"]) < 1000
    assert "until 1 s had passed" in said["warm_up"] and "calls" in said["timed"]
    assert (result.threads, said.get("threads")) == ((2, None) if target == "onnx" else (1, "1 of 2 asked for"))


def test_two_artifacts_are_called_in_turn_in_one_page(
    chromium_here, nothing_left, make_request, tiny_onnx, tiny_tflite, files
) -> None:
    one, other = (
        make_request(target, file, iterations=7) for target, file in (("onnx", tiny_onnx), ("tflite", tiny_tflite))
    )
    times = CHROMIUM.compare(one, other)
    assert len(times.first_us) == len(times.second_us) == 7 and min(*times.first_us, *times.second_us) > 0
    assert times.executed_on[0].startswith("onnxruntime-web") and times.executed_on[1].startswith("LiteRT.js")
    assert all(place.endswith("on Linux") for place in times.executed_on) and times.threads == (1, 1)
    assert {"job/1/0/model", "job/1/1/model"} <= set(files) and files.count("page.js") == 1


def test_weights_are_put_into_the_data_file_case_by_case(
    chromium_here, nothing_left, make_request, onnx_chain, files
) -> None:
    path = onnx_chain([("Mul", ["x", "w"], ["y"], {})], {"w": np.full((1, 8), 7, np.float32)})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    rng = np.random.default_rng(0)
    inputs = {name: rng.standard_normal((3, 1, 8), dtype=np.float32) for name in ("x", "w")}
    request = make_request(
        "onnx",
        path,
        inputs=inputs,
        outputs=(TensorSpec("y", (1, 8), "float32"),),
        data=DataFile("w.bin", {"w": (0, "float32")}),
    )
    shipped = path.with_name("w.bin").read_bytes()
    result = CHROMIUM.run(request)
    np.testing.assert_array_equal(result.outputs["y"], inputs["x"] * inputs["w"])
    assert len(result.swap_ms) == 3 and len(result.samples_us) == 5
    assert path.with_name("w.bin").read_bytes() == shipped
    # What is timed is what ships: the file comes once more, after the cases.
    assert [name for name in files if name.startswith("job/")] == [
        *("job/1/0/model", "job/1/0/inputs", "job/1/0/data", "job/1/0/data", "job/1/0/trivial")
    ]


def test_a_model_that_does_not_fit_its_manifest(
    chromium_here, nothing_left, make_request, tiny_onnx, tiny_tflite, inputs
) -> None:
    renamed = {"users" if name == "item_ids" else name: array for name, array in inputs.items()}
    with pytest.raises(ArtifactError, match=r"has no input 'users'; its inputs are item_ids, candidate_ids"):
        CHROMIUM.run(make_request("onnx", tiny_onnx, inputs=renamed))
    outputs = (TensorSpec("scores", (1, 21), "float32"),)
    with pytest.raises(ArtifactError, match=r"'scores' came as float32 \[1,20\], not as float32 \[1,21\]"):
        CHROMIUM.run(make_request("tflite", tiny_tflite, outputs=outputs))


def test_what_no_browser_runs_is_unverified(make_request, tmp_path) -> None:
    file = tmp_path / "model"
    file.touch()
    for target in ("executorch", "coreml"):
        request = make_request(target, file)
        with pytest.raises(RuntimeMissingError, match=r"no build of .* runs in a browser"):
            CHROMIUM.run(request)
    ran = running.run(running.Subject(request.target, file, {}, request.outputs, 1, CHROMIUM), request.inputs, 0, 0)
    assert (ran.result, ran.verdict) == (None, "unverified")


def test_without_runtimes_or_chromium_it_says_what_to_get(
    chromium_here, nothing_left, make_request, tiny_onnx, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(RuntimeMissingError, match=r"onnxruntime-web .* not installed; get it with: cocorr-export brow"):
        CHROMIUM.run(make_request("onnx", tiny_onnx))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(connection.chromium, "_APPLICATIONS", tmp_path)
    with pytest.raises(DeviceError, match=r"no Chromium is on the PATH .* --connection phone-browser"):
        CHROMIUM.run(make_request("onnx", tiny_onnx))


# ------------------------------------------------------------------------------------------------ ends


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when a page has begun with its job."""
    event = threading.Event()
    original = Session.post

    def post(self: Session, name: str, visit: str, body: bytes) -> Reply:
        reply = original(self, name, visit, body)
        if name == "started":
            event.set()
        return reply

    monkeypatch.setattr(Session, "post", post)
    return event


def hurt(number: int, begun: threading.Event) -> None:
    """Send a signal to the process of the page, once that has begun."""
    assert begun.wait(300)
    for pid in renderers(os.getpid()):
        os.kill(pid, number)


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (signal.SIGSEGV, RuntimeCrashError, r"the browser's tab crashed \(SIGSEGV\)"),
        (
            signal.SIGKILL,
            RuntimeMemoryError,
            r"the browser's tab was killed \(SIGKILL\), most likely for want of memory",
        ),
        (signal.SIGSTOP, RuntimeTimeoutError, r"the tab that ran the onnx runtime gave no sign for 3 s and was ended"),
    ],
    ids=["crash", "kill", "stop"],
)
def test_a_tab_dies_or_falls_silent(
    number, kind, said, chromium_here, nothing_left, make_request, tiny_onnx, tmp_path, begun, monkeypatch
) -> None:
    monkeypatch.setattr(connection, "_SILENCE_S", 3.0 if number == signal.SIGSTOP else 300.0)
    request = started_by(make_request("onnx", tiny_onnx), HANGS, tmp_path)
    hurting = threading.Thread(target=hurt, args=(number, begun))
    hurting.start()
    with pytest.raises(kind, match=said):
        CHROMIUM.run(request)
    hurting.join()


def test_a_worker_that_hangs(chromium_here, nothing_left, make_request, tiny_onnx, tmp_path) -> None:
    request = started_by(make_request("onnx", tiny_onnx, time_limit_s=1.0), HANGS, tmp_path)
    with pytest.raises(
        RuntimeTimeoutError, match=r"onnx runtime did not finish within 1 s in the browser and was ended"
    ):
        CHROMIUM.run(request)


def test_a_worker_runs_out_of_memory(
    chromium_here, nothing_left, make_request, tiny_onnx, tmp_path, monkeypatch
) -> None:
    with pytest.raises(RuntimeMemoryError, match=r"the onnx runtime ran out of memory: RangeError: .*llocat"):
        CHROMIUM.run(started_by(make_request("onnx", tiny_onnx), TOO_MUCH, tmp_path))
    small = tmp_path / "bin" / "chromium"
    small.parent.mkdir()
    small.write_text(f'#!/bin/sh\nexec {chromium_here} "$@" --js-flags=--max-old-space-size=32\n')
    small.chmod(0o755)
    monkeypatch.setenv("PATH", f"{small.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(RuntimeMemoryError, match="the browser's tab ran out of memory and died"):
        CHROMIUM.run(started_by(make_request("onnx", tiny_onnx), FILLS_MEMORY, tmp_path))


def test_a_runtime_that_throws_is_named_with_the_place(
    chromium_here, nothing_left, make_request, tiny_onnx, tmp_path
) -> None:
    request = make_request("onnx", tiny_onnx)
    with pytest.raises(RuntimeCrashError, match=r"the onnx runtime failed: Error: no\s+way \[.*onnx\.js:1"):
        CHROMIUM.run(
            started_by(request, r"self.startRuntime = async () => { throw Error('no\n\x1b[2Jway'); };", tmp_path)
        )
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(tiny_onnx.read_bytes()[:-50])
    with pytest.raises(RuntimeCrashError, match="the onnx runtime failed: Error: ") as caught:
        CHROMIUM.run(replace(request, model_file=damaged))
    assert str(caught.value).isprintable() and "127.0.0.1" not in str(caught.value)
