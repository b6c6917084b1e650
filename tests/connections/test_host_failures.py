"""Whatever a runtime does - crash, hang, eat memory, vanish - becomes one clear error and leaves nothing behind."""

import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from exporter.connections.host import HostConnection
from exporter.core.errors import OutputError, RuntimeCrashError, RuntimeMemoryError, RuntimeTimeoutError
from exporter.core.types import TensorSpec

GIB = 2**30
WRITE_PID = "import os, pathlib\npathlib.Path({path!r}).write_text(str(os.getpid()))\n"


pytestmark = pytest.mark.usefixtures("own_temporary_folder")


def ended(pid: int) -> bool:
    """Whether a process is gone or only waits for its parent to notice."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(condition, seconds: float = 600) -> bool:
    """Wait for what must happen; the limit only ends a test that hangs."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(condition())


def pid_in(path: Path) -> int:
    assert wait_until(lambda: path.exists() and path.read_text() != "")
    return int(path.read_text())


def x_request(make_request, target: str, model: Path, width: int = 8, **changes):
    x, y = np.ones((1, 1, width), np.float32), (TensorSpec("y", (1, width), "float32"),)
    return make_request(target, model, inputs={"x": x}, outputs=y, warmup=0, iterations=1, **changes)


# ---------------------------------------------------------------------------------------------- crashes


def test_a_damaged_pte_that_aborts_the_process(make_request, tiny_pte, tmp_path):
    """ExecuTorch throws a C++ exception over an operator name that is not UTF-8 and ends with abort()."""
    content = tiny_pte.read_bytes()
    assert content.count(b"aten::tanh") == 1
    damaged = tmp_path / "damaged.pte"
    damaged.write_bytes(content.replace(b"aten::tanh", b"aten::\xff\xff\xff\xff"))
    with pytest.raises(RuntimeCrashError, match=r"crashed with SIGABRT; .*damaged.*UnicodeDecodeError"):
        HostConnection().run(make_request("executorch", damaged))


def test_a_segmentation_fault_is_named(make_request, fake_onnxruntime):
    model = fake_onnxruntime(
        "import sys, ctypes\nprint('about to fall', file=sys.stderr, flush=True)\nctypes.string_at(0)"
    )
    with pytest.raises(RuntimeCrashError, match=r"crashed with SIGSEGV.*about to fall"):
        HostConnection().run(make_request("onnx", model))


def test_an_end_from_outside_is_not_the_models(make_request, fake_onnxruntime):
    model = fake_onnxruntime("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)")
    with pytest.raises(RuntimeCrashError, match=r"from outside \(SIGTERM\)"):
        HostConnection().run(make_request("onnx", model))


def test_a_full_disk_is_not_the_models(make_request, fake_onnxruntime):
    model = fake_onnxruntime("raise OSError(28, 'No space left on device')")
    with pytest.raises(OutputError, match=r"results cannot be written: .*No space left"):
        HostConnection().run(make_request("onnx", model))


@pytest.mark.parametrize(
    ("target", "fixture"), [("onnx", "tiny_onnx"), ("tflite", "tiny_tflite"), ("executorch", "tiny_pte")]
)
def test_a_truncated_file_is_refused_in_the_runtimes_words(target, fixture, make_request, request, tmp_path):
    whole = request.getfixturevalue(fixture)
    cut = tmp_path / whole.name
    cut.write_bytes(whole.read_bytes()[:-1000])
    with pytest.raises(RuntimeCrashError, match=f"the {target} runtime failed: .{{10,}}") as caught:
        HostConnection().run(make_request(target, cut))
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "fixture", "bad_id", "words"),
    [
        ("onnx", "tiny_onnx", 50, "idx=50 must be within"),
        ("onnx", "tiny_onnx", -51, "idx=-51 must be within"),
        ("onnx", "tiny_onnx", 2**31 - 1, "idx=2147483647 must be within"),
        ("tflite", "tiny_tflite", 50, "index out of bounds. Got 50"),
        ("tflite", "tiny_tflite", -1, "index out of bounds. Got -1"),
        ("tflite", "tiny_tflite", 2**31 - 1, "index out of bounds. Got 2147483647"),
        ("executorch", "tiny_pte", 2**31 - 1, "2147483647 >= weight.size"),
    ],
)
def test_no_runtime_reads_past_the_table(target, fixture, bad_id, words, make_request, request, inputs):
    inputs["candidate_ids"][2, 0, 0] = bad_id
    with pytest.raises(RuntimeCrashError, match=words):
        HostConnection().run(make_request(target, request.getfixturevalue(fixture), inputs=inputs))


def test_onnx_alone_counts_negative_ids_from_the_end(make_request, tiny_onnx, inputs):
    """So -1 is the last item there and an error elsewhere: a program must be given none, or take care itself."""
    inputs["candidate_ids"][2, 0, :2] = -1, 49
    scores = HostConnection().run(make_request("onnx", tiny_onnx, inputs=inputs)).outputs["scores"]
    assert scores[2, 0, 0] == scores[2, 0, 1]


def test_onnx_runtime_does_not_report_to_its_maker(make_request, tiny_onnx, own_temporary_folder):
    """Its uploader leaves a session file in the temporary folder; the fixture checks that too, for every test here."""
    HostConnection().run(make_request("onnx", tiny_onnx))
    assert list(own_temporary_folder.glob("**/.ses")) == []


def test_an_exit_without_an_answer(make_request, fake_onnxruntime):
    model = fake_onnxruntime("import os\nos._exit(7)")
    with pytest.raises(RuntimeCrashError, match="ended with status 7 and without an answer"):
        HostConnection().run(make_request("onnx", model))


def test_what_the_runtime_prints_cannot_steer_the_terminal(make_request, fake_onnxruntime):
    model = fake_onnxruntime("raise RuntimeError('a\\x1b[31mb\\x1b]0;title\\x07c\\u202e\\nd')")
    with pytest.raises(RuntimeCrashError) as caught:
        HostConnection().run(make_request("onnx", model))
    assert str(caught.value) == "the onnx runtime failed: ab ]0;title c d"


# ------------------------------------------------------------------------------------------------ hangs


def test_an_endless_model_is_stopped(onnx_chain, make_request):
    """A real one: a Loop of 2^62 rounds inside ONNX Runtime."""
    onnx = pytest.importorskip("onnx")
    helper, types = onnx.helper, onnx.TensorProto
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_in"], ["go"]),
            helper.make_node("Mul", ["carried", "carried"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", types.INT64, []),
            helper.make_tensor_value_info("go_in", types.BOOL, []),
            helper.make_tensor_value_info("carried", types.FLOAT, [1, 8]),
        ],
        [
            helper.make_tensor_value_info("go", types.BOOL, []),
            helper.make_tensor_value_info("next", types.FLOAT, [1, 8]),
        ],
    )
    constants = {"rounds": np.array(2**62), "start": np.array(True)}
    model = onnx_chain([("Loop", ["rounds", "start", "x"], ["y"], {"body": body})], constants)
    with pytest.raises(RuntimeTimeoutError, match=r"did not finish within 1 s.*more time"):  # of some centuries
        HostConnection().run(x_request(make_request, "onnx", model, time_limit_s=1.0))


def test_a_hang_ends_with_the_whole_process_group(make_request, fake_onnxruntime, tmp_path):
    """The runtime holds Python's lock in native code and has started a process of its own."""
    own, child = tmp_path / "own", tmp_path / "child"
    model = fake_onnxruntime(
        WRITE_PID.format(path=str(own))
        + "import subprocess, ctypes\n"
        + f"pathlib.Path({str(child)!r}).write_text(str(subprocess.Popen(['sleep', '100000']).pid))\n"
        + "ctypes.PyDLL(None).sleep(100_000)"
    )
    limit = 1.0
    while not child.exists():  # the more time, the less a machine has that is slow today
        with pytest.raises(RuntimeTimeoutError):
            HostConnection().run(make_request("onnx", model, time_limit_s=limit))
        limit *= 2
    with pytest.raises(ProcessLookupError):  # not even a zombie
        os.kill(pid_in(own), 0)
    assert wait_until(lambda: ended(pid_in(child)))


RUNNER = """
import pickle, sys
from exporter.connections.host import HostConnection
HostConnection().run(pickle.load(open(sys.argv[1], "rb")))
"""


def start_elsewhere(request, tmp_path) -> subprocess.Popen:
    """Run a request from a process of its own, which the test can then interrupt or kill."""
    stored = tmp_path / "request.pickle"
    stored.write_bytes(pickle.dumps(request))
    return subprocess.Popen([sys.executable, "-c", RUNNER, str(stored)], stderr=subprocess.PIPE)


def test_an_interrupt_ends_the_agent_and_cleans_up(make_request, fake_onnxruntime, tmp_path):
    own = tmp_path / "own"
    model = fake_onnxruntime(WRITE_PID.format(path=str(own)) + "import ctypes\nctypes.PyDLL(None).sleep(100_000)")
    caller = start_elsewhere(make_request("onnx", model), tmp_path)
    pid = pid_in(own)
    assert os.getpgid(pid) == pid  # a Ctrl-C in the terminal does not reach it
    caller.send_signal(signal.SIGINT)
    _, errors = caller.communicate()
    assert b"KeyboardInterrupt" in errors
    assert wait_until(lambda: ended(pid))


def test_the_agent_does_not_outlive_a_killed_caller(make_request, fake_onnxruntime, tmp_path, own_temporary_folder):
    own = tmp_path / "own"
    model = fake_onnxruntime(WRITE_PID.format(path=str(own)) + "import time\ntime.sleep(100_000)")
    caller = start_elsewhere(make_request("onnx", model), tmp_path)
    pid = pid_in(own)
    caller.kill()
    caller.communicate()
    assert wait_until(lambda: ended(pid))
    assert list(own_temporary_folder.iterdir()) == []  # the agent, last to leave, has tidied up


# ----------------------------------------------------------------------------------------------- memory


def test_onnx_out_of_memory(onnx_chain, make_request):
    """An 8 GiB ConstantOfShape under a limit of 1 GiB."""
    constants = {"shape": np.array([2**31]), "axis": np.array([0])}
    model = onnx_chain(
        [
            ("ConstantOfShape", ["shape"], ["large"], {}),
            ("ReduceSum", ["large", "axis"], ["total"], {"keepdims": 1}),
            ("Add", ["x", "total"], ["y"], {}),
        ],
        constants,
    )
    with pytest.raises(RuntimeMemoryError, match=r"the onnx runtime ran out of memory.*8589934592"):
        HostConnection(memory_limit_bytes=GIB).run(x_request(make_request, "onnx", model))


def test_tflite_out_of_memory(large_tensor_models, make_request):
    """LiteRT says nothing at all when it cannot have its arena; the agent finds the reason."""
    model = large_tensor_models("tflite")
    with pytest.raises(RuntimeMemoryError, match=r"the tflite runtime ran out of memory.*the largest has 8589934592"):
        HostConnection(memory_limit_bytes=GIB).run(x_request(make_request, "tflite", model, 2048))


def test_executorch_out_of_memory(large_tensor_models, make_request):
    model = large_tensor_models("executorch")
    with pytest.raises(RuntimeMemoryError, match="the executorch runtime ran out of memory"):
        HostConnection(memory_limit_bytes=GIB).run(x_request(make_request, "executorch", model, 2048))


def test_a_kill_by_the_system_is_told_as_memory(make_request, fake_onnxruntime):
    model = fake_onnxruntime("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(RuntimeMemoryError, match=r"killed \(SIGKILL\)"):
        HostConnection().run(make_request("onnx", model))


def test_the_system_would_choose_the_agent_first(make_request, fake_onnxruntime, tmp_path):
    if not Path("/proc/self/oom_score_adj").exists():
        pytest.skip("Linux only")
    score = tmp_path / "score"
    model = fake_onnxruntime(
        "import pathlib\nown = pathlib.Path('/proc/self/oom_score_adj').read_text()\n"
        f"pathlib.Path({str(score)!r}).write_text(own)\n"
        "raise RuntimeError('done')"
    )
    with pytest.raises(RuntimeCrashError, match="done"):
        HostConnection().run(make_request("onnx", model))
    assert int(score.read_text()) == 1000


def test_the_limit_leaves_room_for_ordinary_models(make_request, tiny_onnx):
    result = HostConnection(memory_limit_bytes=GIB // 2).run(replace(make_request("onnx", tiny_onnx), iterations=1))
    assert len(result.samples_us) == 1


def test_threads_of_the_libraries_are_fixed(make_request, fake_onnxruntime):
    model = fake_onnxruntime(
        "import os\nraise RuntimeError(os.environ['OMP_NUM_THREADS'] + os.environ['MKL_NUM_THREADS'])"
    )
    with pytest.raises(RuntimeCrashError, match=r"failed: 33$"):
        HostConnection().run(make_request("onnx", model, threads=3))
