"""The process that runs an artifact to see its values: whatever a stranger's file does there is one line."""

from pathlib import Path

import numpy as np
import pytest

from exporter.core.errors import BadInputError, RuntimeFailureError
from exporter.targets import TARGETS, tracing

# Starts the process as it is started, with another way to see values in it and a limit of 2 s.
OTHER_RUNTIME = """
import sys; sys.path.append(sys.argv.pop())
import os, signal
import numpy as np
from exporter.core.errors import MissingExtraError
from exporter.core.explanation import TracedValue
from exporter.targets import TARGETS, tracing
class Other:
    def load(self, model_file):
        def values(case):
            {body}
        return values
TARGETS["onnx"].tracing = Other
tracing._CPU_S = 2
tracing.main(*sys.argv[1:])
"""


def trace_with(body: str, monkeypatch: pytest.MonkeyPatch, file: Path) -> object:
    monkeypatch.setattr(tracing, "_START", OTHER_RUNTIME.format(body=body))
    file.write_bytes(b"model")
    return tracing.trace(TARGETS["onnx"], file, {"x": np.ones((2, 3), np.float32)})


def test_values_come_back_as_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    body = (
        "return [TracedValue('a', 'Add', None, None, case['x'] + np.inf), TracedValue('b', 'B', 'k', 'o', case['x'])]"
    )
    first, second = trace_with(body, monkeypatch, tmp_path / "model.onnx")
    assert (first.name, second.origin, first.numbers.shape) == ("a", "o", (2, 3))
    assert np.isinf(first.numbers).all() and (second.numbers == 1).all()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise KeyError('two\\nlines')", "KeyError: "),
        ("bytearray(1 << 45)", "more memory"),
        ("while True: pass", "processor time"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed with SIGSEGV"),
        ("os._exit(0)", "without an answer"),
        ("return [TracedValue('a\\x1b', 'Add', None, None, case['x'])]", "names that cannot be shown"),
        ("return [TracedValue('a', 'Add', None, None, case['x'].astype('i4'))]", "'a' is int32"),
        ("return [TracedValue(7, 'Add', None, None, case['x'])]", "makes no sense"),
        ("tracing._MOST_VALUE_BYTES = 9; return [TracedValue('a', 'Add', None, None, case['x'])]", "take more than"),
    ],
)
def test_whatever_a_runtime_does_is_one_line(
    body: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "model.onnx"
    with pytest.raises(RuntimeFailureError) as caught:
        trace_with(body, monkeypatch, file)
    assert str(caught.value).startswith(f"{file}: ") and words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"^onnx is not installed; get it with: pip install"):
        trace_with("raise MissingExtraError('onnx', 'onnx')", monkeypatch, tmp_path / "model.onnx")


@pytest.mark.parametrize("target", TARGETS)
def test_a_damaged_file_is_one_line(target: str, tmp_path: Path) -> None:
    file = tmp_path / TARGETS[target].model_file
    file.write_bytes(b"no model at all")
    with pytest.raises(RuntimeFailureError) as caught:
        tracing.trace(TARGETS[target], file, {"x": np.ones((2, 3), np.float32)})
    assert str(caught.value).startswith(f"{file}: its values cannot be had: ") and "\n" not in str(caught.value)
