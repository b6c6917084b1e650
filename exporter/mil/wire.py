"""A strict reader of the protocol buffer wire format, driven by the tables of `schema`.

The package is untrusted, so the reader bounds nesting and the number of decoded fields, rejects what an honest writer
never writes (groups, repeated singular fields, duplicate map keys, bytes past the end) and never guesses. It needs only
the standard library and numpy, so that a model runs where neither coremltools nor protobuf is installed.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from exporter.core.errors import ProgramError

Kind = Literal["int", "uint", "bool", "string", "bytes", "message", "map", "floats", "doubles", "ints", "bools"]
Record = dict[str, Any]

MAX_DEPTH = 100
MAX_FIELDS = 2_000_000

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message: its name, how its bytes are read, and for messages and maps the type of the value."""

    name: str
    kind: Kind
    message: str = ""
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """The known fields of a message by number; a `strict` message refuses fields that are not in the table."""

    fields: dict[int, Field]
    strict: bool = True


class Reader:
    """Decodes one buffer into nested dicts; a field that is absent in the buffer is absent in the dict."""

    def __init__(self, data: bytes, schema: dict[str, Message]) -> None:
        self._data = data
        self._schema = schema
        self._left = MAX_FIELDS

    def read(self, message: str) -> Record:
        """Decode the whole buffer as `message`; raises ProgramError where the bytes are not such a message."""
        return self._message(message, 0, len(self._data), 0)

    def _message(self, name: str, position: int, end: int, depth: int) -> Record:
        if depth > MAX_DEPTH:
            raise ProgramError(f"the model file nests deeper than {MAX_DEPTH} messages; it is damaged or forged")
        message = self._schema[name]
        fields, data = message.fields, self._data
        record: Record = {}
        while position < end:
            self._left -= 1
            if self._left < 0:
                raise ProgramError(f"the model file has more than {MAX_FIELDS} fields; it is damaged or forged")
            key = data[position]
            if key < 0x80:
                position += 1
            else:
                key, position = self._varint(position, end)
            wire, field = key & 7, fields.get(key >> 3)
            if field is None:
                if message.strict:
                    raise ProgramError(
                        f"field {key >> 3} of {name} is not known to this reader; the model file is damaged, or of a"
                        " newer format than Core ML 8 (iOS 18)"
                    )
                position = self._skip(wire, position, end)
                continue
            if wire == _LENGTH:
                size = data[position] if position < end else 0x80
                if size < 0x80:
                    position += 1
                else:
                    size, position = self._varint(position, end)
                stop = position + size
                if stop > end:
                    raise ProgramError(f"the model file ends inside field {field.name} of {name}")
                self._sized(record, field, name, position, stop, depth)
                position = stop
            else:
                position = self._scalar(record, field, name, wire, position, end)
        return record

    def _sized(self, record: Record, field: Field, owner: str, position: int, stop: int, depth: int) -> None:
        kind = field.kind
        value: Any
        if kind == "message":
            value = self._message(field.message, position, stop, depth + 1)
        elif kind == "map":
            self._entry(record.setdefault(field.name, {}), field, owner, position, stop, depth)
            return
        elif kind == "string":
            try:
                value = self._data[position:stop].decode("utf-8")
            except UnicodeDecodeError as error:
                raise ProgramError(f"field {field.name} of {owner} is not UTF-8 text") from error
        elif kind == "bytes":
            value = self._data[position:stop]
        elif kind in ("floats", "doubles", "ints", "bools") or field.repeated:
            record.setdefault(field.name, []).append(self._packed(field, owner, position, stop))
            return
        else:
            raise ProgramError(f"field {field.name} of {owner} has the wrong wire type")
        self._store(record, field, owner, value)

    def _scalar(self, record: Record, field: Field, owner: str, wire: int, position: int, end: int) -> int:
        kind = field.kind
        value: Any
        if wire == _VARINT and kind in ("int", "uint", "bool", "ints", "bools"):
            raw, position = self._varint(position, end)
            if kind in ("ints", "bools") or (field.repeated and kind in ("int", "uint")):
                record.setdefault(field.name, []).append(np.array([raw], np.uint64).view(np.int64))
                return position
            value = bool(raw) if kind == "bool" else raw - (1 << 64) if kind == "int" and raw >> 63 else raw
        elif wire == _FIXED32 and kind == "floats" and position + 4 <= end:
            record.setdefault(field.name, []).append(np.frombuffer(self._data, "<f4", 1, position))
            return position + 4
        elif wire == _FIXED64 and kind == "doubles" and position + 8 <= end:
            record.setdefault(field.name, []).append(np.frombuffer(self._data, "<f8", 1, position))
            return position + 8
        else:
            raise ProgramError(f"field {field.name} of {owner} has the wrong wire type")
        self._store(record, field, owner, value)
        return position

    @staticmethod
    def _store(record: Record, field: Field, owner: str, value: Any) -> None:
        if field.repeated:
            record.setdefault(field.name, []).append(value)
        elif field.name in record:
            raise ProgramError(f"field {field.name} of {owner} appears twice; the model file is damaged or forged")
        else:
            record[field.name] = value

    def _entry(self, entries: Record, field: Field, owner: str, position: int, stop: int, depth: int) -> None:
        entry = self._message(f"{field.message}Entry", position, stop, depth + 1)
        key = entry.get("key", "")
        if key in entries:
            raise ProgramError(f"{field.name} of {owner} names {key!r} twice; the model file is damaged or forged")
        entries[key] = entry.get("value", {})

    def _packed(self, field: Field, owner: str, position: int, stop: int) -> np.ndarray:
        size = stop - position
        if field.kind in ("floats", "doubles"):
            width = 4 if field.kind == "floats" else 8
            if size % width:
                raise ProgramError(f"field {field.name} of {owner} is cut off")
            return np.frombuffer(self._data, f"<f{width}", size // width, position)
        return _varints(np.frombuffer(self._data, np.uint8, size, position), f"{field.name} of {owner}")

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = 0
        for shift in range(0, 70, 7):
            if position >= end:
                break
            byte = self._data[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >> 64:
                    break
                return value, position
        raise ProgramError("the model file has a number that is cut off or longer than 64 bits")

    def _skip(self, wire: int, position: int, end: int) -> int:
        if wire == _VARINT:
            position = self._varint(position, end)[1]
        elif wire == _LENGTH:
            size, position = self._varint(position, end)
            position += size
        elif wire in (_FIXED32, _FIXED64):
            position += 4 if wire == _FIXED32 else 8
        else:
            raise ProgramError(f"the model file uses wire type {wire}, which Core ML does not write")
        if position > end:
            raise ProgramError("the model file ends inside a field")
        return position


def _varints(data: np.ndarray, what: str) -> np.ndarray:
    """Decode packed varints to int64 [count] without a loop over elements."""
    if not data.size:
        return np.empty(0, np.int64)
    last = np.flatnonzero(data < 0x80)
    if not last.size or last[-1] != data.size - 1:
        raise ProgramError(f"{what} is cut off")
    first = np.concatenate(([0], last[:-1] + 1))
    length = last - first + 1
    if int(length.max()) > 10:
        raise ProgramError(f"{what} has a number longer than 64 bits")
    shift = (np.arange(data.size) - np.repeat(first, length)) * 7
    parts = (data & 0x7F).astype(np.uint64) << shift.astype(np.uint64)
    return np.bitwise_or.reduceat(parts, first).view(np.int64)
