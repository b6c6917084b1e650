"""Real artifacts on the real runtimes: the right outputs under the right names, honest times and memory."""

import copy
import importlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from exporter.connections.host import HostConnection
from exporter.core.errors import ArtifactError, BadInputError, MissingExtraError, RuntimeMissingError
from exporter.core.types import TensorSpec
from exporter.measure import figures

MODELS = {"onnx": "tiny_onnx", "tflite": "tiny_tflite", "executorch": "tiny_pte"}
NAMES = {
    "onnx": "ONNX Runtime 1.31.1 (CPUExecutionProvider) on ",
    "tflite": "LiteRT 2.3.0 on ",
    "executorch": "ExecuTorch 1.4.1 on ",
}


@pytest.fixture(params=sorted(MODELS))
def tiny(request, make_request):
    return make_request(request.param, request.getfixturevalue(MODELS[request.param]))


def test_runs_all_cases_and_measures(tiny, expected, capfd):
    result = HostConnection().run(replace(tiny, threads=2))
    assert list(result.outputs) == ["scores"]
    assert result.outputs["scores"].dtype == np.float32
    np.testing.assert_allclose(result.outputs["scores"], expected, rtol=0, atol=1e-6)
    assert result.executed_on.startswith(NAMES[tiny.target.name])
    assert len(result.samples_us) == 5
    assert 0 < min(result.samples_us) <= max(result.samples_us) < 1e6
    assert 0 < result.load_ms < 60_000
    assert result.first_us > 0
    assert result.threads == 2
    assert result.reason is None
    assert 10 * 2**20 < result.baseline_rss_bytes <= result.peak_rss_bytes < 2**30
    assert capfd.readouterr() == ("", "")


def test_inputs_go_by_name_not_by_order(tiny, expected):
    if tiny.target.name == "executorch":
        pytest.skip("ExecuTorch's inputs have positions only")
    swapped = dict(reversed(tiny.inputs.items()))
    result = HostConnection().run(replace(tiny, inputs=swapped, iterations=0, warmup=0))
    np.testing.assert_allclose(result.outputs["scores"], expected, rtol=0, atol=1e-6)
    assert result.samples_us == ()


WRONG = {
    "int64": (lambda ids: ids.astype(np.int64), "'item_ids' is int32 in the model, int64 in the request"),
    "float32": (lambda ids: ids.astype(np.float32), "'item_ids' is int32 in the model, float32 in the request"),
    "short": (lambda ids: ids[:, :, :5], r"'item_ids' is \[1, 10\] in the model, \[1, 5\] in the request"),
    # LiteRT itself takes this one: the number of elements is right.
    "rank": (lambda ids: ids[:, 0], r"'item_ids' is \[1, 10\] in the model, \[10\] in the request"),
    "long": (lambda ids: np.tile(ids, (1, 1, 1000)), r"'item_ids' is \[1, 10\] in the model, \[1, 10000\] in the"),
}


@pytest.mark.parametrize("wrong", sorted(WRONG))
def test_refuses_wrong_inputs_before_the_runtime_sees_them(tiny, wrong):
    if tiny.target.name == "executorch" and wrong != "int64":
        pytest.skip("each start of ExecuTorch takes 2 s, and the check is the same")
    change, words = WRONG[wrong]
    inputs = {**tiny.inputs, "item_ids": change(tiny.inputs["item_ids"])}
    with pytest.raises(ArtifactError, match=words):
        HostConnection().run(replace(tiny, inputs=inputs))


def test_refuses_wrong_names(tiny):
    one = {"item_ids": tiny.inputs["item_ids"]}
    with pytest.raises(ArtifactError, match="the model takes 2 inputs"):
        HostConnection().run(replace(tiny, inputs=one))
    if tiny.target.name != "executorch":
        with pytest.raises(ArtifactError, match="no input 'users'; its inputs are"):
            HostConnection().run(replace(tiny, inputs={**one, "users": tiny.inputs["candidate_ids"]}))
        with pytest.raises(ArtifactError, match="outputs are"):
            HostConnection().run(replace(tiny, outputs=(TensorSpec("probabilities", (1, 20), "float32"),)))
        return
    two = (*tiny.outputs, TensorSpec("more", (1,), "float32"))
    with pytest.raises(ArtifactError, match="the model gave 1 outputs, not 2"):
        HostConnection().run(replace(tiny, outputs=two))


def test_two_artifacts_are_called_in_turn(tiny, make_request, onnx_chain):
    """Against a chain of 300 tangents of 8 numbers, each tiny model is faster, whichever is first."""
    steps = [f"t{step}" for step in range(300)]
    nodes = [("Tan", [one], [other], {}) for one, other in zip(["x", *steps], [*steps, "y"], strict=True)]
    slow = make_request(
        "onnx",
        onnx_chain(nodes, {}),
        inputs={"x": np.zeros((1, 1, 8), np.float32)},
        outputs=(TensorSpec("y", (1, 8), "float32"),),
    )
    for turn in (1, -1):
        first, second = (replace(slow, iterations=40), replace(tiny, iterations=40))[::turn]
        times = HostConnection().compare(first, second)
        medians = np.median(times.first_us), np.median(times.second_us)
        assert medians[::turn][0] > medians[::turn][1] > 0, medians
        assert len(times.first_us) == len(times.second_us) == 40
        assert times.executed_on[::turn][1].startswith(NAMES[tiny.target.name])
        assert times.threads == (1, 1)


def test_a_comparison_names_the_artifact_that_is_not_there(make_request, tiny_onnx):
    good = make_request("onnx", tiny_onnx)
    with pytest.raises(ArtifactError, match=r"gone\.onnx does not exist"):
        HostConnection().compare(good, replace(good, model_file=tiny_onnx.with_name("gone.onnx")))


def test_refuses_outputs_of_another_shape(tiny):
    with pytest.raises(ArtifactError, match=r"'scores' came as float32 \[1, 20\], not as the stated float32 \[1, 21\]"):
        HostConnection().run(replace(tiny, outputs=(TensorSpec("scores", (1, 21), "float32"),)))


def test_refuses_requests_that_no_runtime_could_serve(make_request, tiny_onnx, inputs):
    good = make_request("onnx", tiny_onnx)
    bad = {
        "threads 1 or more": replace(good, threads=0),
        "positive number of seconds": replace(good, time_limit_s=float("nan")),
        "at least one input": replace(good, inputs={}),
        "share a name": replace(good, outputs=good.outputs * 2),
        "must hold numbers": replace(good, inputs={**inputs, "item_ids": np.array([object()])}),
        "differ in their number of cases": replace(good, inputs={**inputs, "item_ids": inputs["item_ids"][:2]}),
        "hold no cases": replace(good, inputs={name: array[:0] for name, array in inputs.items()}),
    }
    for words, request in bad.items():
        with pytest.raises(BadInputError, match=words):
            HostConnection().run(request)
    with pytest.raises(ArtifactError, match="does not exist"):
        HostConnection().run(replace(good, model_file=tiny_onnx.with_name("gone.onnx")))


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML runs here")
def test_core_ml_is_missing_off_macos(make_request, tmp_path):
    with pytest.raises(RuntimeMissingError, match="Core ML runs on macOS only"):
        HostConnection().run(make_request("coreml", tmp_path))


def test_a_package_that_is_not_installed_names_the_extra(make_request, tiny_onnx, tmp_path, monkeypatch):
    (tmp_path / "onnxruntime.py").write_text("raise ModuleNotFoundError('gone', name='onnxruntime')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(MissingExtraError, match=r"pip install 'onnxruntime\b.*' \(part of the extra \[onnx\]\)"):
        HostConnection().run(make_request("onnx", tiny_onnx))


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's")
def test_peak_memory_is_the_artifacts_not_the_callers(onnx_chain, make_request):
    """A 128 MiB table shows up to within 10 %, and the caller's own 512 MiB do not."""
    table = np.ones((2**22, 8), np.float32)
    model = onnx_chain(
        [
            ("Cast", ["x"], ["ids"], {"to": 7}),
            ("Gather", ["table", "ids"], ["rows"], {}),
            ("ReduceSum", ["rows", "axis"], ["y"], {"keepdims": 0}),
        ],
        {"table": table, "axis": np.array([2])},
    )
    request = make_request(
        "onnx",
        model,
        inputs={"x": np.zeros((1, 1, 8), np.float32)},
        outputs=(TensorSpec("y", (1, 8), "float32"),),
    )
    code = (
        "import numpy as np, pickle, sys\n"
        "from exporter.connections.host import HostConnection\n"
        "ballast = np.ones(2**26)\n"
        "result = HostConnection().run(pickle.load(sys.stdin.buffer))\n"
        "print(result.baseline_rss_bytes, result.peak_rss_bytes, result.outputs['y'][0, 0, 0])\n"
    )
    import pickle

    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(request), capture_output=True, check=True)
    baseline, peak, value = done.stdout.split()
    assert float(value) == 8.0
    assert int(baseline) < 200 * 2**20
    # ONNX Runtime holds the file's bytes and its own copy of the initializer while it loads.
    assert table.nbytes * 0.9 < int(peak) - int(baseline) < table.nbytes * 3


def test_a_call_of_the_runtime_is_timed_by_itself(tiny):
    result = HostConnection().run(tiny)
    assert len(result.call_samples_us) == len(result.samples_us) == 5
    assert min(result.call_samples_us) > 0 and result.call_reason is None
    section = figures.latency(result, None, 0)
    assert section.call_us == np.median(result.call_samples_us) and "adds one" in section.call_method


def test_without_a_program_to_time_a_call_by_the_reason_is_told(tiny_onnx, make_request, tmp_path):
    request = make_request("onnx", tiny_onnx)
    for content, words in ((None, "there is no program"), (b"damaged", "does not run here: ")):
        target = copy.copy(request.target)
        file = tmp_path / "trivial"
        file.write_bytes(content or b"")
        target.runtime = replace(target.runtime, trivial=content and file)
        result = HostConnection().run(replace(request, target=target))
        assert len(result.samples_us) == 5 and result.call_samples_us == ()
        section = figures.latency(result, None, 0)
        assert section.call_us is None and words in section.reason and section.p50_us is not None


def test_results_are_copies(tiny):
    """What a loader gave out of one call stays when the next one runs, with memory that the runtime uses again."""
    loader = importlib.import_module(f"exporter.targets.{tiny.target.name}.loader")
    model = loader.start(1, {}).load(tiny.model_file, None)
    cases = [{name: array[case] for name, array in tiny.inputs.items()} for case in range(2)]
    fed = [model.prepare(case) for case in cases]
    first = model.collect(model.run(fed[0]))
    kept = [array.copy() for array in first]
    second = model.collect(model.run(fed[1]))
    assert not np.array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[0], kept[0])
    assert not any(np.shares_memory(one, other) for one in first for other in second)
