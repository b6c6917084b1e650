"""Reading in a process of its own: whatever a reader does there is an answer here, or one line that names the file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.core import kinds
from exporter.core.errors import ArtifactError, BadInputError, RuntimeFailureError
from exporter.core.types import MOST_BYTES, MOST_PARTS, Constant, Lowered, MemoryPlan, Operation
from exporter.measure.flops import count
from exporter.targets import TARGETS, reading
from exporter.targets.answer import Answer, from_json, to_json

# Starts the reader's process as it is started, with another reader in it and a limit of 1 s.
OTHER_READER = """
import sys; sys.path.append(sys.argv.pop())
import os, signal
from exporter.core.errors import MissingExtraError
from exporter.targets import TARGETS, reading
def read(model_file):
    {body}
TARGETS["onnx"].read = read
reading._CPU_S = 1
reading.main(*sys.argv[1:])
"""


def read_with(body: str, monkeypatch: pytest.MonkeyPatch, file: Path) -> Lowered:
    monkeypatch.setattr(reading, "_START", OTHER_READER.format(body=body))
    file.write_bytes(b"model")
    return reading.read(TARGETS["onnx"], file)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise KeyError(99)", "its parts do not fit (KeyError: 99)"),
        ("raise ValueError('two\\nlines')", "its parts do not fit (ValueError: two lines)"),
        ("read(model_file)", "RecursionError"),
        ("bytearray(1 << 40)", "more memory"),
        ("while True: pass", "processor time"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crashed with SIGSEGV"),
        ("os.abort()", "crashed with SIGABRT"),
        ("os._exit(0)", "without an answer"),
        ("sys.exit(7)", "status 7 and without an answer"),
        ("return 5", "lowered"),
        ("open('much', 'wb').truncate(1 << 40)", "File too large"),
    ],
)
def test_whatever_a_reader_does_is_one_line(
    body: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "model.onnx"
    with pytest.raises(ArtifactError) as caught:
        read_with(body, monkeypatch, file)
    assert str(caught.value).startswith(f"{file}: cannot be read") and words in str(caught.value)


def test_a_missing_package_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"^onnx is not installed; get it with: pip install") as caught:
        read_with("raise MissingExtraError('onnx', 'onnx')", monkeypatch, tmp_path / "model.onnx")
    assert not isinstance(caught.value, ArtifactError)


def test_an_end_from_outside_is_no_fault_of_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailureError, match=r"from outside \(SIGTERM\); start this again$"):
        read_with("os.kill(os.getpid(), signal.SIGTERM)", monkeypatch, tmp_path / "model.onnx")


def test_the_reader_ends_with_who_asked_for_it(tmp_path: Path) -> None:
    """Killed, that one can end nothing; and the reader is in native code, which never comes back to Python's loop."""
    fifo, file = tmp_path / "alive", tmp_path / "model.onnx"
    os.mkfifo(fifo)
    file.write_bytes(b"model")
    body = f"import re; held = open({str(fifo)!r}, 'wb', 0); held.write(b'!'); re.match('(a+)+$', 'a' * 60 + 'b')"
    start = OTHER_READER.format(body=body).replace("_CPU_S = 1", "_CPU_S = 10_000")
    code = (
        "import sys; from pathlib import Path; from exporter.targets import TARGETS, reading;"
        "reading._START = sys.argv[1]; reading.read(TARGETS['onnx'], Path(sys.argv[2]))"
    )
    asking = subprocess.Popen([sys.executable, "-c", code, start, str(file)])
    with fifo.open("rb", 0) as alive:
        assert alive.read(1) == b"!"
        asking.kill()
        asking.wait()
        assert alive.read() == b""  # comes when nobody holds the other end any more


# ------------------------------------------------------------------------------------------------ answers


def operation(**changes: object) -> Operation:
    values = {"name": "a", "native": "Relu", "kind": kinds.RELU, "inputs": ((4,),), "outputs": ((4,),)}
    return Operation(**{**values, "reads": ("x",), "writes": ("y",), **changes})


def lowered(*operations: Operation, constants: tuple[Constant, ...] = (), planned: int | None = 8) -> Lowered:
    return Lowered(operations, constants, ((None, "x"),), MemoryPlan(0, planned, "method"))


def returned(sent: Lowered) -> Lowered:
    found = from_json(to_json(Answer(lowered=sent))).lowered
    assert found is not None
    return found


def test_an_answer_comes_back_as_it_was_sent() -> None:
    sent = lowered(operation(attributes={"axis": -1, "transpose_x": True, "activation": kinds.RELU}))
    assert returned(sent) == sent


@pytest.mark.parametrize(
    "sent",
    [
        lowered(operation(name="\x1b[31m")),
        lowered(operation(reads=("a" * 1001,))),
        lowered(*[operation()] * (MOST_PARTS + 1)),
        lowered(operation(attributes={"axis": [1]})),
        lowered(operation(inputs=(("4",),))),
        lowered(constants=(Constant("c", (-1,), 4, None, "p"),)),
        lowered(constants=(Constant("c", (1,), MOST_BYTES, None, "p"),)),
        lowered(planned=-1),
    ],
    ids=["control", "long", "many", "attribute", "type", "shape", "bytes", "plan"],
)
def test_what_makes_no_sense_is_refused(sent: Lowered) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        returned(sent)


@pytest.mark.parametrize("shape", [(-4,), (1 << 62, 1 << 62), (MOST_BYTES,), (2,) * 1001])
@pytest.mark.parametrize("kind", [kinds.RELU, kinds.MOVE, kinds.GATHER])
def test_a_size_that_no_device_has_is_listed_and_not_counted(kind: str, shape: tuple[int, ...]) -> None:
    counted = count(returned(lowered(operation(kind=kind, outputs=(shape,)))).operations)
    assert (counted.total, counted.moved_bytes, dict(counted.uncounted)) == (0, 0, {"Relu": 1})


def test_a_plan_that_no_device_has_room_for_is_null_with_the_reason() -> None:
    plan = returned(lowered(planned=MOST_BYTES)).memory_plan
    assert plan.planned_activation_bytes is None and plan.reason is not None and "no device" in plan.reason
    assert returned(lowered(planned=MOST_BYTES - 1)).memory_plan.planned_activation_bytes == MOST_BYTES - 1


@given(st.data())
def test_a_damaged_answer_is_refused_or_read(data: st.DataObject) -> None:
    content = bytearray(to_json(Answer(lowered=lowered(operation()))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.sampled_from(b'0129-"[]{},:aetn\\\x00\xff'))
    try:
        answer = from_json(bytes(content))
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(answer, Answer)
