"""Plain values and tensors of a file of torch.save, without torch's unpickler: nothing is made that is not named here.

A file of torch.save is a zip archive, of which nothing is packed: `NAME/data.pkl`, a pickle of protocol 2, and a
record `NAME/data/KEY` with the bytes of each storage. The pickle is a list of instructions for a stack; those that
torch.save writes for dicts, lists and tensors are followed, all others are refused. Torch's own reader for untrusted
files allows more than that: keys that take forever or the whole C stack to hash, attributes that hide a dict's methods.
"""

import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pickletools import genops
from typing import Final

import torch
from torch import Tensor

MAX_PICKLE: Final = 2 << 20
"""Bytes of instructions; a tensor takes some 150, and each byte may make 200 in memory."""
_MAX_AXES: Final = 64
"""As many as torch has itself."""
_MAX_INT: Final = 1 << 63
"""Of sizes, and of ints as keys: larger ones can be made to collide."""
_ORDERED_DICT: Final = "collections OrderedDict"
_REBUILD: Final = "torch._utils _rebuild_"
_DTYPES: Final = {
    "torch FloatStorage": torch.float32,
    "torch DoubleStorage": torch.float64,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
    "torch ComplexFloatStorage": torch.complex64,
    "torch ComplexDoubleStorage": torch.complex128,
}
"""What kind of numbers a storage has, by the name of its class."""
_GLOBALS: Final = frozenset(
    [_ORDERED_DICT, f"{_REBUILD}tensor_v2", f"{_REBUILD}parameter", *_DTYPES]
)  # what the pickle of a state dict names; torch's own reader allows more, such as bytearrays of any size


class StrangerError(Exception):
    """What a file holds besides tensors and plain values; the message is its name."""


@dataclass(frozen=True)
class _Named:
    """A class or function that a pickle names: "MODULE NAME". Nothing is looked up by it."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """The numbers of one storage, [count], as one dtype."""

    numbers: Tensor


def read(archive: zipfile.ZipFile) -> object:
    """Return what was saved: dicts, lists, tuples, numbers, strings and strided tensors on the CPU.

    OrderedDicts become dicts and Parameters tensors. Memory is bounded by the archive's size: a tensor that has more
    numbers than its storage is refused. Raises StrangerError for what else it holds, and whatever zipfile, torch and
    the stack raise for a damaged file.
    """
    pickles = [entry for entry in archive.infolist() if entry.filename.endswith("/data.pkl")]
    if len(pickles) != 1 or pickles[0].file_size > MAX_PICKLE:
        raise ValueError("it has no data.pkl, or several, or one too large for a state dict")
    folder = pickles[0].filename.removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
        raise ValueError("its numbers are not little-endian")
    return _Stack(archive, folder).follow(archive.read(pickles[0]))


@dataclass
class _Stack:
    """The machine that a pickle is written for.

    No value that it holds is ever hashed, compared or shown but for strings and ints: they may be nested to any depth.
    """

    archive: zipfile.ZipFile
    folder: str
    values: list[object] = field(default_factory=list)
    marks: list[list[object]] = field(default_factory=list)
    memo: dict[object, object] = field(default_factory=dict)
    records: dict[str, Tensor] = field(default_factory=dict)

    def follow(self, pickled: bytes) -> object:
        for code, argument, _ in genops(pickled):
            if code.name == "STOP":
                return self.values.pop()
            if code.name in _NEW:
                self.values.append(_NEW[code.name]())
            elif code.name in _PLAIN:
                self.values.append(argument)
            elif code.name in _STEPS:
                _STEPS[code.name](self, argument)
            else:
                raise StrangerError(f"the pickle instruction {code.name}")
        raise ValueError("its pickle does not end")

    def protocol(self, number: object) -> None:
        if number != 2:
            raise StrangerError(f"pickle protocol {number} where torch uses 2")

    def name(self, name: object) -> None:
        if name not in _GLOBALS:
            raise StrangerError(str(name).replace(" ", "."))
        self.values.append(_Named(str(name)))

    def mark(self, _: object) -> None:
        self.marks.append(self.values)
        self.values = []

    def since_mark(self) -> list[object]:
        values, self.values = self.values, self.marks.pop()
        return values

    def tuple_since_mark(self, _: object) -> None:
        values = self.since_mark()
        self.values.append(tuple(values))

    def put(self, place: object) -> None:
        self.memo[place] = self.values[-1]

    def get(self, place: object) -> None:
        self.values.append(self.memo[place])

    def append(self, _: object) -> None:
        self.extend([self.values.pop()])

    def appends(self, _: object) -> None:
        self.extend(self.since_mark())

    def extend(self, values: list[object]) -> None:
        target = self.values[-1]
        if type(target) is not list:
            raise ValueError("it appends to what is no list")
        target.extend(values)

    def set_item(self, _: object) -> None:
        value, key = self.values.pop(), self.values.pop()
        self.update([key, value])

    def set_items(self, _: object) -> None:
        self.update(self.since_mark())

    def update(self, pairs: list[object]) -> None:
        target = self.values[-1]
        if type(target) is not dict:
            raise ValueError("it sets items of what is no dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if type(key) is not str and not (type(key) is int and abs(key) < _MAX_INT):
                raise StrangerError(f"a key that is no name but {type(key).__name__}")
            target[key] = value

    def build(self, _: object) -> None:
        """Leave out the versions of the modules, the one attribute that torch gives to a state dict."""
        state, target = self.values.pop(), self.values[-1]
        if type(target) is not dict or type(state) is not dict or list(state) != ["_metadata"]:
            raise StrangerError("attributes of an object")

    def reduce(self, _: object) -> None:
        arguments, called = self.values.pop(), self.values.pop()
        if type(called) is not _Named or type(arguments) is not tuple:
            raise ValueError("it calls what has no name")
        if called.name == _ORDERED_DICT and not arguments:
            self.values.append({})
        elif called.name == f"{_REBUILD}parameter" and len(arguments) == 3 and type(arguments[0]) is Tensor:
            self.values.append(arguments[0])
        elif called.name == f"{_REBUILD}tensor_v2" and len(arguments) == 6:  # a seventh: bits of complex conjugates
            self.values.append(_tensor(*arguments[:4]))
        else:
            raise StrangerError(f"a {called.name.replace(' ', '.')} that torch.save does not write")

    def storage(self, _: object) -> None:
        """Read the record of `("storage", class, key, device, count)`; whatever the device, it comes to the CPU."""
        place = self.values.pop()
        if type(place) is not tuple or len(place) != 5:
            raise ValueError("a storage has no place")
        _, kind, key, _, count = place
        if type(kind) is not _Named or kind.name not in _DTYPES or type(key) is not str or type(count) is not int:
            raise ValueError("a storage has no place")
        if key not in self.records:
            record = bytearray(self.archive.read(f"{self.folder}data/{key}"))
            self.records[key] = torch.frombuffer(record, dtype=torch.uint8) if record else torch.empty(0).byte()
        numbers = self.records[key].view(_DTYPES[kind.name])
        if count != len(numbers):
            raise ValueError(f"a storage says {count} numbers and has {len(numbers)}")
        self.values.append(_Storage(numbers))


def _tensor(storage: object, offset: object, shape: object, strides: object) -> Tensor:
    if type(storage) is not _Storage or type(offset) is not int:
        raise ValueError("a tensor has no storage")
    sizes, steps, have = _sizes(shape), _sizes(strides), len(storage.numbers)
    if math.prod(sizes) > have:  # its copies would take what the file does not have
        raise ValueError(
            f"a tensor has more numbers than its storage of {have}, as expand() leaves it; save a clone() of it"
        )
    return storage.numbers.as_strided(sizes, steps, offset)  # which refuses what lies beyond the storage


def _sizes(values: object) -> list[int]:
    if type(values) is not tuple or len(values) > _MAX_AXES:
        raise ValueError("a shape is no tuple of sizes")
    sizes = [value for value in values if type(value) is int and 0 <= value < _MAX_INT]
    if len(sizes) != len(values):
        raise ValueError("a shape has what is no size")
    return sizes


def _tuple_of(count: int) -> Callable[[_Stack, object], None]:
    def step(stack: _Stack, _: object) -> None:
        if len(stack.values) < count:
            raise ValueError("its pickle takes what is not there")
        stack.values[-count:] = [tuple(stack.values[-count:])]

    return step


_NEW: Final[dict[str, Callable[[], object]]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}
_PLAIN: Final = frozenset(["BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"])
_STEPS: Final[dict[str, Callable[[_Stack, object], None]]] = {
    "PROTO": _Stack.protocol,
    "GLOBAL": _Stack.name,
    "MARK": _Stack.mark,
    "TUPLE": _Stack.tuple_since_mark,
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "BINPUT": _Stack.put,
    "LONG_BINPUT": _Stack.put,
    "BINGET": _Stack.get,
    "LONG_BINGET": _Stack.get,
    "APPEND": _Stack.append,
    "APPENDS": _Stack.appends,
    "SETITEM": _Stack.set_item,
    "SETITEMS": _Stack.set_items,
    "BUILD": _Stack.build,
    "REDUCE": _Stack.reduce,
    "BINPERSID": _Stack.storage,
}
