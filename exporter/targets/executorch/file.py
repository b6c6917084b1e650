"""What a .pte file says of itself: the operators that the runtime calls, those inside its delegates, and its constants.

The file is a flatbuffer (ExecuTorch's schema program.fbs) and segments of bytes behind it. ExecuTorch's own reader
takes seconds to import; `flatc`, which comes with the package, turns the flatbuffer into JSON in milliseconds.
"""

import hashlib
import importlib.util
import json
import math
import os
import re
import resource
import struct
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from exporter.core import kinds
from exporter.core.errors import MissingExtraError
from exporter.core.types import Constant, Lowered, MemoryPlan, Operation, extents, stored_bytes
from exporter.targets.aten import KINDS, in_order
from safeio.files import write_new, writing
from safeio.packages import missing
from safeio.staging import ROOM, scratch

SCHEMA = "exir/_serialize/program.fbs"
ITEM_BYTES = {
    **dict.fromkeys(("BYTE", "CHAR", "BOOL", "QINT8", "QUINT8"), 1),
    **dict.fromkeys(("SHORT", "HALF", "BFLOAT16", "UINT16"), 2),
    **dict.fromkeys(("INT", "FLOAT", "UINT32"), 4),
    **dict.fromkeys(("LONG", "DOUBLE", "UINT64"), 8),
}

Inside = tuple[list[Operation], list[Constant]]
Named = Callable[[str], memoryview | None]
DelegateReader = Callable[[str, memoryview, list[str], Named], Inside]


def read(model_file: Path, delegates: Mapping[str, DelegateReader], plan_method: str) -> Lowered:
    """Read a .pte file, with a reader for each delegate."""
    return _Reader(Pte.of(model_file), delegates).lowered(plan_method)


def decompile(schema: str, data: bytes) -> dict[str, Any]:
    """Return a flatbuffer as `flatc` prints it; `schema` is a file of the executorch package. Raises ValueError."""
    spec = importlib.util.find_spec("executorch")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError(missing(("torch", "executorch")), "executorch")
    package = Path(next(iter(spec.submodule_search_locations)))
    with scratch("flatc") as folder:
        with writing(folder, ROOM):
            write_new(folder / "data.bin", data)
        paths = map(str, (folder, package / schema, "--", folder / "data.bin"))
        command = [str(package / "data" / "bin" / "flatc"), "--json", "--strict-json", "--defaults-json", "-o", *paths]
        done = subprocess.run(command, capture_output=True, preexec_fn=_time_left())
        if done.returncode:
            words = done.stderr.decode(errors="replace").rpartition("error:")[2].replace(str(folder), "")
            raise ValueError(f"flatc refused the data, status {done.returncode}: {words.strip()}")
        text = (folder / "data.json").read_text(encoding="utf-8")
    # Infinities and NaN are printed as C++ does, which is no JSON.
    document = json.loads(re.sub(r"(:|,|\[)\s*(-?(?:inf|nan))(?=\s*[,}\]])", r'\1 "\2"', text))
    if not isinstance(document, dict):
        raise ValueError("not a table")
    return document


def _time_left() -> Callable[[], None] | None:
    """Return what leaves a child as much processor time as this process and its children so far have left of theirs.

    The system counts each process for itself, and a file may ask for any number of them. Raises ValueError at the end.
    """
    limit, hard = resource.getrlimit(resource.RLIMIT_CPU)
    if limit == resource.RLIM_INFINITY:
        return None
    left = math.ceil(limit - sum(os.times()[:4]))
    if left <= 0:
        raise ValueError("its delegates take too much time to read")
    return lambda: resource.setrlimit(resource.RLIMIT_CPU, (left, hard))


@dataclass(frozen=True)
class Pte:
    """A .pte file: `program` is its flatbuffer as JSON, `content` all bytes, `base` where its segments begin."""

    program: Mapping[str, Any]
    content: bytes
    base: int

    @classmethod
    def of(cls, model_file: Path) -> "Pte":
        """Read the file; raises OSError, and ValueError where it is no .pte."""
        content = model_file.read_bytes()
        size, base = len(content), len(content)
        if content[8:12] == b"eh00":  # the extended header, behind the flatbuffer's offset and identifier
            size, base = struct.unpack_from("<QQ", content, 16)
        if size > len(content) or base > len(content):
            raise ValueError("the header points out of the file")
        return cls(decompile(SCHEMA, content[:size]), content, base)

    def segment(self, index: int) -> memoryview:
        """Return the bytes of a segment; raises ValueError where they are not all in the file."""
        entry = self.program["segments"][index]
        return cut(memoryview(self.content)[self.base :], entry["offset"], entry["size"])


def cut(content: memoryview, offset: int, size: int) -> memoryview:
    """Return so many bytes; raises ValueError where they are not all there."""
    if not 0 <= offset <= offset + size <= len(content):
        raise ValueError("bytes outside of what holds them")
    return content[offset : offset + size]


def digest(content: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


class _Reader:
    """Walks the one method of a program; a delegate's operations take the place of its call."""

    def __init__(self, pte: Pte, delegates: Mapping[str, DelegateReader]) -> None:
        self._pte = pte
        self._delegates = delegates
        self._plan = pte.program["execution_plan"][0]
        self._values = self._plan["values"]
        self._named = {entry["key"]: entry["segment_index"] for entry in pte.program.get("named_data") or ()}
        self._operations: list[Operation] = []
        self._constants: dict[str, Constant] = {}
        self._written: set[str] = set()
        self._held: dict[tuple[int, ...], str] = {}
        for value in self._plan["inputs"]:
            self._write(_name(value))

    def lowered(self, plan_method: str) -> Lowered:
        for chain in self._plan["chains"]:
            for number, instruction in enumerate(chain["instructions"]):
                call = instruction["instr_args"]
                match instruction["instr_args_type"]:
                    case "KernelCall":
                        self._kernel(number, call)
                    case "DelegateCall":
                        self._delegate(number, call)
        self._constants |= self._own_constants()
        constants = tuple(self._constants.values())
        return Lowered(
            operations=tuple(self._operations),
            constants=constants,
            inputs=tuple((None, _name(value)) for value in self._plan["inputs"]),
            memory_plan=MemoryPlan(
                constant_bytes=stored_bytes(constants),
                planned_activation_bytes=sum(self._plan["non_const_buffer_sizes"]),
                plan_method=plan_method,
            ),
        )

    def _kernel(self, number: int, call: Mapping[str, Any]) -> None:
        """Add the call of an operator; the values that it returns stand last, after the places that it writes to."""
        operator = self._plan["operators"][call["op_index"]]
        arguments = list(call["args"])
        returned = next(
            (n for n in range(len(arguments) // 2, 0, -1) if arguments[-n:] == arguments[-2 * n : -n]),
            1,
        )
        outputs = self._tensors(arguments[-returned:])
        inputs = [value for value in self._tensors(arguments[:-returned]) if value not in outputs]
        native = f"{operator['name']}.{operator['overload']}".removesuffix(".")
        name = operator["name"].rpartition("::")[2].removesuffix(".default")
        kind = KINDS.get(name)
        attributes: dict[str, Any] = {}
        if name == "convolution":
            if self._number(arguments[6]):
                kind = kinds.TRANSPOSED_CONVOLUTION
            attributes["groups"] = self._number(arguments[8])
        elif kind == kinds.SOFTMAX:
            attributes["axis"] = self._number(arguments[1])
        elif kind in (kinds.GATHER, kinds.MOVE) and outputs:
            attributes["dtype_bytes"] = ITEM_BYTES[self._values[outputs[0]]["val"]["scalar_type"]]
        reads = tuple(self._held_by(_name(value)) for value in inputs)
        for value in outputs:
            self._write(_name(value))
        self._operations.append(
            Operation(
                name=f"{name}_{number}",
                native=native,
                kind=kind,
                inputs=in_order(name, [self._shape(value) for value in inputs]),
                outputs=tuple(self._shape(value) for value in outputs),
                attributes=attributes,
                reads=reads,
                writes=tuple(map(_name, outputs)),
            )
        )

    def _delegate(self, number: int, call: Mapping[str, Any]) -> None:
        delegate = self._plan["delegates"][call["delegate_index"]]
        processed = delegate["processed"]
        if processed["location"] == "SEGMENT":
            payload = self._pte.segment(processed["index"])
        else:
            payload = memoryview(bytes(self._pte.program["backend_delegate_data"][processed["index"]]["data"]))
        reader = self._delegates.get(delegate["id"])
        arguments = [_name(value) for value in call["args"]]
        if reader is None:  # counted as what it is: something unknown
            self._operations.append(
                Operation(f"call_{number}", delegate["id"], None, (), (), delegate=delegate["id"], reads=(*arguments,))
            )
            return
        operations, constants = reader(f"delegate_{number}", payload, arguments, self._named_bytes)
        own = set(arguments)
        for operation in operations:
            reads = tuple(self._held_by(name) if name in own else name for name in operation.reads)
            for name in operation.writes:
                if name in own:
                    self._write(name)
            self._operations.append(replace(operation, reads=reads))
        for constant in constants:
            self._constants[constant.name] = constant

    def _place(self, name: str) -> tuple[int, ...] | None:
        """Return where a value lies that memory is planned for."""
        value = self._values[int(name[1:])]
        planned = value["val"].get("allocation_info") if value["val_type"] == "Tensor" else None
        keys = ("memory_id", "memory_offset_low", "memory_offset_high")
        return None if planned is None else tuple(planned.get(key, 0) for key in keys)

    def _write(self, name: str) -> None:
        """Note that a value is written, and that its place holds it from now on."""
        self._written.add(name)
        if (place := self._place(name)) is not None:
            self._held[place] = name

    def _held_by(self, name: str) -> str:
        """Return the value that is read as `name`: one that nothing wrote is a view of what lies at its place."""
        place = None if name in self._written else self._place(name)
        return name if place is None else self._held.get(place, name)

    def _named_bytes(self, key: str) -> memoryview | None:
        """Return the bytes of named data, or None where they are in another file."""
        return self._pte.segment(self._named[key]) if key in self._named else None

    def _own_constants(self) -> dict[str, Constant]:
        """Return the constants that the program itself holds; what nothing reads is a delegate's."""
        read = {name for operation in self._operations for name in operation.reads}
        offsets = (self._pte.program.get("constant_segment") or {}).get("offsets") or []
        found = {}
        for index, value in enumerate(self._values):
            tensor = value["val"]
            if value["val_type"] != "Tensor" or _name(index) not in read:
                continue
            buffer, size = tensor.get("data_buffer_idx", 0), self._bytes(index)
            outside = (tensor.get("extra_tensor_info") or {}).get("location") == "EXTERNAL"
            if outside:
                name = tensor["extra_tensor_info"]["fully_qualified_name"]
                found[_name(index)] = Constant(_name(index), self._shape(index), size, None, name)
            elif buffer and tensor.get("allocation_info") is None:
                if offsets:
                    segment = self._pte.segment(self._pte.program["constant_segment"]["segment_index"])
                    content: bytes | memoryview = cut(segment, offsets[buffer], size)
                else:
                    content = bytes(self._pte.program["constant_buffer"][buffer]["storage"])
                found[_name(index)] = Constant(
                    _name(index), self._shape(index), size, digest(content), f"constant {buffer}"
                )
        return found

    def _tensors(self, arguments: list[int]) -> list[int]:
        """Return the tensors among arguments, those of lists included."""
        found: list[int] = []
        for index in arguments:
            value = self._values[index]
            if value["val_type"] == "Tensor":
                found.append(index)
            elif value["val_type"] in {"TensorList", "OptionalTensorList"}:
                items = (item for item in value["val"]["items"] if item >= 0)
                found += [item for item in items if self._values[item]["val_type"] == "Tensor"]
        return found

    def _number(self, index: int) -> int:
        value = self._values[index]["val"]
        return int(next(iter(value.values())))

    def _shape(self, index: int) -> tuple[int, ...]:
        return extents(self._values[index]["val"]["sizes"])

    def _bytes(self, index: int) -> int:
        return math.prod(self._shape(index)) * ITEM_BYTES[self._values[index]["val"]["scalar_type"]]


def _name(index: int) -> str:
    return f"v{index}"
