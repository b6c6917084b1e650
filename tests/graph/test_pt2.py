"""Programs that torch.export.save wrote: read as torch reads them, and nothing else of what such a file could do."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from exporter.core.errors import ProgramError
from exporter.graph import given, pt2

ROOT = "archive"
GRAPH, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"
SAMPLES, CONSTANTS = "data/sample_inputs/model.pt", "data/constants/model_constants_config.json"


class Tiny(nn.Module):
    """Shared weights, a buffer that is not kept, 64-bit ids, a truth value, a size that is computed, and a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.items = nn.Embedding(9, 4)
        self.output = nn.Linear(4, 9, bias=False)
        self.output.weight = self.items.weight
        self.register_buffer("scale", torch.tensor([0.5, 2.0, 1.0, -1.0]), persistent=False)

    def forward(self, ids: torch.Tensor, keep: torch.Tensor) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            user = (self.items(ids) * self.scale * keep[:, :, None]).sum(1) / ids.shape[1]
        return {"scores": self.output(user), "best": self.output(user).argmax(-1)}


ARGUMENTS = (torch.tensor([[1, 2, 3], [4, 5, 6]]), torch.tensor([[True, True, False], [True, False, True]]))


def saved(module: nn.Module, arguments: tuple[torch.Tensor, ...], **settings: Any) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(torch.export.export(module, arguments, **settings), buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def module() -> Tiny:
    torch.manual_seed(0)
    return Tiny().eval()


@pytest.fixture(scope="module")
def content(module: Tiny) -> bytes:
    return saved(module, ARGUMENTS)


def changed(content: bytes, files: Mapping[str, bytes | Callable[[bytes], bytes]]) -> bytes:
    """Return a .pt2 with members put in or rewritten."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {entry.filename.partition("/")[2]: archive.read(entry) for entry in archive.infolist()}
    for name, new in files.items():
        members[name] = new(members[name]) if callable(new) else new
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{ROOT}/{name}", data)
    return buffer.getvalue()


def in_json(change: Callable[[Any], object]) -> Callable[[bytes], bytes]:
    def rewrite(data: bytes) -> bytes:
        document = json.loads(data)
        change(document)
        return json.dumps(document).encode()

    return rewrite


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_program_is_read_as_torch_reads_it(module: Tiny, content: bytes, dynamic: bool, tmp_path: Path) -> None:
    if dynamic:
        batch = {0: torch.export.Dim("batch", max=64), 1: torch.export.Dim("clicks", min=2, max=30)}
        content = saved(module, ARGUMENTS, dynamic_shapes={"ids": batch, "keep": batch})
    (tmp_path / "tiny.pt2").write_bytes(content)
    read = pt2.read(tmp_path / "tiny.pt2")
    program = given.given(read.exported, read.outputs, None, read.dynamic)
    shape = (None, None) if dynamic else (2, 3)
    assert program.inputs == (given.Side("ids", "int64", shape), given.Side("keep", "bool", shape))
    assert [(side.name, side.dtype) for side in program.outputs] == [("scores", "float32"), ("best", "int64")]
    ids, keep = (tensor.repeat(2, 2) if dynamic else tensor for tensor in ARGUMENTS)
    scores, best = given.module(program)(ids.int(), keep.int())
    expected = torch.export.load(tmp_path / "tiny.pt2").module()(ids, keep)
    assert torch.equal(scores, expected["scores"])
    assert torch.equal(best, expected["best"].int()) and best.dtype == torch.int32
    weights = read.exported.state_dict
    assert weights["items.weight"].data_ptr() == weights["output.weight"].data_ptr()


class Harm:
    """A pickle that would make a folder named `harm` in the current one."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.mkdir, (Path("harm"),)  # type: ignore[return-value]


def harmful() -> bytes:
    buffer = io.BytesIO()
    torch.save({"x": Harm()}, buffer)
    return buffer.getvalue()


def node(**changes: object) -> Callable[[bytes], bytes]:
    return in_json(lambda document: document["graph_module"]["graph"]["nodes"][0].update(changes))


def first_weight(**changes: object) -> Callable[[bytes], bytes]:
    return in_json(lambda document: document["config"]["items.weight"].update(changes))


def renamed(data: bytes) -> bytes:
    return data.replace(b'"ids"', b"\"ids=__import__('os').mkdir('harm')\"")


BAD: dict[str, tuple[Mapping[str, bytes | Callable[[bytes], bytes]], str]] = {
    "another torch": ({GRAPH: in_json(lambda d: d.update(torch_version="2.6.0"))}, "was saved by torch 2.6, here is"),
    "another schema": ({GRAPH: in_json(lambda d: d["schema_version"].update(major=7))}, "export and save it with"),
    "another archive": ({"archive_version": b"1"}, "another version of torch"),
    "custom operator": ({GRAPH: node(target="torch.ops.mylib.gather.default")}, "the custom operator mylib.gather"),
    "any function of torch": ({GRAPH: node(target="torch.os.mkdir")}, "'torch.os.mkdir', which is no operator"),
    "a method of an operator": ({GRAPH: node(target="torch.ops.aten.add.overloads")}, "which this torch has not"),
    "a mapped file": ({GRAPH: node(target="torch.ops.aten.from_file.default")}, "not one on tensors alone"),
    "a written file": ({GRAPH: node(target="torch.ops.aten.save.default")}, "not one on tensors alone"),
    "an output that is given": ({GRAPH: node(target="torch.ops.aten.add.out")}, "or writes to them"),
    "other memory": ({GRAPH: node(target="torch.ops.aten.set_.source_Tensor_storage_offset")}, "or writes to them"),
    "other bounds": ({GRAPH: node(target="torch.ops.aten._reshape_alias.default")}, "or writes to them"),
    "control flow": ({GRAPH: node(target="torch.ops.higher_order.cond")}, "write it with tensors alone"),
    "code as a name": ({GRAPH: renamed}, "where no such text belongs"),
    "code as a size": (
        {GRAPH: lambda d: d.replace(b'{"as_int": 4}', b'{"as_expr": {"expr_str": "exit()", "hint": null}}')},
        "a size that depends on values",
    ),
    "a pickled weight": ({WEIGHTS: first_weight(use_pickle=True)}, "items.weight in a pickle, which is never loaded"),
    "a pickle of all weights": ({"data/weights/model.pt": harmful()}, "in a pickle"),
    "a pickled sample": ({SAMPLES: harmful()}, "would call"),
    "a script object": ({"data/constants/custom_obj_0": b""}, "a script object or a class of its own"),
    "an opaque object": (
        {"data/constants/opaque_obj_0": pickle.dumps(Harm())},
        "a script object or a class of its own",
    ),
    "compiled code": ({"data/aotinductor/model/x.so": b""}, "compiled code"),
    "two programs": ({"models/other.json": b"{}"}, "has 2 programs"),
    "what torch does not write": ({"data/../../x": b""}, "torch.export.save does not write"),
    "a weight past its end": (
        {WEIGHTS: in_json(lambda d: d["config"]["items.weight"]["tensor_meta"].update(sizes=[{"as_int": 1 << 40}]))},
        "in 36 numbers",
    ),
    "a weight elsewhere": ({WEIGHTS: first_weight(path_name="../../models/model")}, "where no such text belongs"),
    "a missing weight": ({WEIGHTS: first_weight(path_name="weight_7")}, "has no data/weights/weight_7"),
    "no JSON": ({GRAPH: b'{"schema_version": '}, "is damaged"),
    "deep JSON": ({GRAPH: b"[" * 100_000}, "is damaged"),
    "no constants": ({CONSTANTS: b"[]"}, "is damaged"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_plain_program_is_refused(
    kind: str, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, words = BAD[kind]
    monkeypatch.chdir(tmp_path)
    Path("bad.pt2").write_bytes(changed(content, files))
    with pytest.raises(ProgramError) as refused:
        pt2.read(Path("bad.pt2"))
    message = str(refused.value)
    assert message.startswith("bad.pt2 ") and words in message and "\n" not in message, message
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pt2"]


def test_the_zip_itself(content: bytes, tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/archive_format", b"pt2")
        bomb.writestr("archive/data/weights/weight_0", bytes(1 << 20))
    cases = {
        "packed": (packed.getvalue(), "packed or encrypted"),
        "cut off": (content[: len(content) // 2], "is no .pt2, or is cut off"),
        "a flipped bit": (content.replace(b'"as_tensor"', b'"at_tensor"', 1), "is damaged"),
        "empty": (b"", "is no .pt2"),
    }
    for name, (data, words) in cases.items():
        path = tmp_path / f"{name}.pt2"
        path.write_bytes(data)
        with pytest.raises(ProgramError, match=words):
            pt2.read(path)
    with pytest.raises(ProgramError, match="does not exist"):
        pt2.read(tmp_path / "nowhere.pt2")


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count.add_(1)
        return x + self.count


class Double(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.double()


class Scaled(nn.Module):
    def forward(self, x: torch.Tensor, by: int) -> torch.Tensor:
        return x * by


@pytest.mark.parametrize(
    ("module", "more", "words"),
    [(Counting(), (), "changes 'count' as it runs"), (Double(), (), "as float64"), (Scaled(), (3,), "is no tensor")],
)
def test_what_is_not_tensors_in_and_out_is_refused(module: nn.Module, more: tuple[int, ...], words: str) -> None:
    exported = torch.export.export(module, (torch.zeros(2), *more))
    with pytest.raises(ProgramError, match=words):
        given.given(exported, "", None, frozenset())
