"""Damage that keeps the outer form of a file, so that its reader comes to the inner ones."""

import io
import json
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
from fault_mutations import NUMBERS, ODD_TEXT, change_value, damage, json_document

MOST_BYTES = 8 << 20


def npz(rng: Random, data: bytes) -> bytes:
    """Return an .npz with arrays, headers of arrays or entries of the archive changed."""
    if rng.random() < 0.2:
        return damage(rng, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(members))
    change = rng.randrange(8)
    if change < 3:
        members[name] = _npy_header(rng, members[name])
    elif change < 5:
        members[name] = _npy_values(rng, members[name])
    elif change == 5:
        members[name] = damage(rng, members[name])
    elif change == 6:
        members = _entries(rng, members, name)
    packed = io.BytesIO()
    way = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(packed, "w", way) as archive:
        for one, content in members.items():
            archive.writestr(one, content)
        if rng.random() < 0.03:
            with warnings.catch_warnings():  # the same name twice
                warnings.simplefilter("ignore")
                archive.writestr(name, members.get(name, b"")[:100])
        if rng.random() < 0.02:
            archive.writestr("zeros.npy", bytes(64 << 20), zipfile.ZIP_DEFLATED, 1)
    return _zip_fields(rng, packed.getvalue()) if change == 7 else packed.getvalue()


def _npy_header(rng: Random, data: bytes) -> bytes:
    """Change what an .npy file says about itself."""
    array = np.load(io.BytesIO(data))
    dtypes = (
        "<f4",
        ">f4",
        "<f8",
        "<f2",
        "<i4",
        "<i8",
        "|b1",
        "|O",
        "<U8",
        "<c8",
        "|V8",
        "[('a', '<f4')]",
        "<m8[s]",
        "x",
        "",
    )
    shapes = (
        array.shape,
        array.shape[::-1],
        (),
        (0,),
        (-1,),
        (2**40,),
        (2**62, 4),
        (2**31, 2**31),
        (1,) * 40,
        (1.5,),
        None,
    )
    shape, dtype = rng.choice(shapes), rng.choice((array.dtype.str, rng.choice(dtypes)))
    text = f"{{'descr': {dtype!r}, 'fortran_order': {rng.choice((False, False, True, 1, None))}, 'shape': {shape!r}, }}"
    odd = ("", text[: rng.randint(0, len(text))], text + "x", "(" * 3000, "{" * 200, text.replace("'shape'", "'form'"))
    text = rng.choice((text, text, text, text, rng.choice(odd)))
    version = rng.choice(((1, 0), (1, 0), (1, 0), (2, 0), (3, 0), (9, 9), (0, 0)))
    header = text.encode() + b"\n"
    count = struct.pack("<H", len(header)) if version[0] < 2 else struct.pack("<I", len(header))
    if rng.random() < 0.1:
        count = rng.choice((bytes(len(count)), b"\xff" * len(count)))
    return b"\x93NUMPY" + bytes(version) + count + header + array.tobytes()


def _npy_values(rng: Random, data: bytes) -> bytes:
    """Change an array's values, dtype or shape, the header as it must then be."""
    array = np.load(io.BytesIO(data))
    change = rng.randrange(4)
    if change == 0 and array.size:
        extremes = (0, -1, 1, np.nan, np.inf, -np.inf, 1e30, 2**31 - 1, -(2**31))
        with np.errstate(all="ignore"):
            flat = array.reshape(-1).astype(np.float64)
            flat[rng.choice((slice(None), slice(0, 1), rng.randrange(array.size)))] = rng.choice(extremes)
            array = np.nan_to_num(flat).clip(-(2**31), 2**31 - 1) if array.dtype.kind in "iu" else flat
            array = array.astype(np.load(io.BytesIO(data)).dtype).reshape(np.load(io.BytesIO(data)).shape)
    elif change == 1:
        with np.errstate(all="ignore"):
            array = array.astype(rng.choice((">f4", "<f8", "<f2", "<i8", "|u1", "|b1", "<U4", "<c8", "|S4")))
    elif change == 2:
        ways: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
            *(lambda a: a[:0], lambda a: a[:1], lambda a: a[..., :-1], lambda a: a[None], np.ravel, np.transpose),
            *(lambda a: np.concatenate([a] * 50), lambda a: a.reshape(-1)[:1].reshape(())),
        )
        array = rng.choice(ways)(array)
    else:
        array = np.asfortranarray(array)
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def _entries(rng: Random, members: dict[str, bytes], name: str) -> dict[str, bytes]:
    """Leave an entry out, rename it, empty it or give it another one's content."""
    change = rng.randrange(6)
    if change == 0:
        return {}
    if change == 1:
        return {one: content for one, content in members.items() if one != name}
    if change == 2:
        odd = rng.choice(
            (*[text for text in ODD_TEXT if "\ud800" not in text], name.removesuffix(".npy"), f"{name}.npy")
        )
        return {(odd if one == name else one): content for one, content in members.items()}
    if change == 3:
        return {**members, rng.choice(("more.npy", "a/b.npy", "../x.npy", "/x.npy", "x.txt", "d/")): members[name]}
    return {**members, name: b"" if change == 4 else members[rng.choice(list(members))]}


def _zip_fields(rng: Random, data: bytes) -> bytes:
    """Change flags, methods, sums or sizes in a local header and in the central directory, in one or in both."""
    changed = bytearray(data)
    offset, values = rng.choice(
        ((0, (1, 9, 0x2001, 0xFFFF)), (2, (1, 6, 8, 12, 14, 93, 99)), (8, NUMBERS), (12, NUMBERS), (16, NUMBERS))
    )
    value = rng.choice(values) % (1 << 32)
    width = 2 if offset < 4 else 4
    for magic, start in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = changed.find(magic)
        if place >= 0 and rng.random() < 0.8:
            begin = place + start + offset
            changed[begin : begin + width] = value.to_bytes(4, "little")[:width]
    return bytes(changed)


def safetensors(rng: Random, data: bytes) -> bytes:
    """Return a safetensors file with its header, the length of it, or its tensors changed."""
    change = rng.randrange(10)
    if change < 2:
        return damage(rng, data)
    if change == 2:
        return struct.pack("<Q", rng.choice((*NUMBERS, len(data), 100_000_000))) + data[8:]
    end = 8 + struct.unpack("<Q", data[:8])[0]
    head, body = data[8:end], data[end:]
    if change == 3:
        values = bytearray(body)
        place = rng.randrange(0, max(len(body) - 4, 1), 4)
        values[place : place + 4] = struct.pack("<f", rng.choice((float("nan"), float("inf"), 1e38, -0.0, 1e-45)))
        body = bytes(values)
    elif change == 4:
        body = body[: rng.randint(0, len(body))] + rng.choice((b"", bytes(8)))
    elif change < 9:
        header = json.loads(head)
        for _ in range(rng.choice((1, 1, 2, 3))):
            header = change_value(rng, header)
        head = json.dumps(header).encode()
    else:
        head = json_document(rng, head)
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + body


@dataclass
class _Field:
    """A field of a protobuf message: its number, its wire type, and its value; a message's value is a list."""

    number: int
    wire: int
    value: "int | bytes | list[_Field]"


def protobuf(rng: Random, data: bytes) -> bytes:
    """Return a protobuf message with fields changed, gone, many, nested or of another type; lengths are right again."""
    if rng.random() < 0.15:
        return damage(rng, data)
    most = len(data) + (1 << 20)  # what has been made longer than that is not repeated once more
    for _ in range(rng.choice((1, 1, 2, 4))):
        message = _fields(data, 0) if len(data) <= most else None
        if not message:
            return damage(rng, data)
        every = list(_every(message))
        holder, place = rng.choice(every)
        _change(rng, holder, place, [fields[index].value for fields, index in every])
        data = _to_bytes(message)
    return data


def _fields(data: bytes, depth: int) -> list[_Field] | None:
    """Return the fields of a message, None for bytes that are none."""
    fields, place = [], 0
    while place < len(data):
        tag, place = _varint(data, place)
        number, wire = tag >> 3, tag & 7
        if place < 0 or not 0 < number < 1 << 29 or wire not in (0, 1, 2, 5):
            return None
        if wire == 0:
            value, place = _varint(data, place)
            if place < 0:
                return None
            fields.append(_Field(number, wire, value))
            continue
        if wire == 2:
            count, place = _varint(data, place)
        else:
            count = 8 if wire == 1 else 4
        if place < 0 or place + count > len(data):
            return None
        part = data[place : place + count]
        place += count
        inner = _fields(part, depth + 1) if wire == 2 and 1 < count < 1 << 20 and depth < 20 else None
        fields.append(_Field(number, wire, part if inner is None else inner))
    return fields


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a number and the place after it, which is -1 where there is no number."""
    value = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        value |= (data[place] & 0x7F) << shift
        place += 1
        if data[place - 1] < 0x80:
            return value, place
    return 0, -1


def _every(message: list[_Field]) -> Iterator[tuple[list[_Field], int]]:
    for index, field in enumerate(message):
        yield message, index
        if isinstance(field.value, list):
            yield from _every(field.value)


def _change(rng: Random, message: list[_Field], place: int, values: list["int | bytes | list[_Field]"]) -> None:
    field = message[place]
    change = rng.randrange(9)
    if change == 0:
        del message[place]
    elif change == 1:
        size = len(_to_bytes([field]))
        message[place:place] = [field] * min(rng.choice((1, 10, 20_000)), MOST_BYTES // max(size, 1))
    elif change == 2:
        field.number = rng.choice((field.number + 1, max(field.number - 1, 1), rng.randint(1, 30)))
    elif change == 3:
        other = rng.choice([value for value in values if type(value) is type(field.value)])
        field.value = _fields(_to_bytes(other), 0) or [] if isinstance(other, list) else other
    elif change == 4 and isinstance(field.value, list):
        content = _to_bytes(field.value)
        for _ in range(rng.choice((10, 200, 3000))):
            content = _encode(field.number << 3 | 2) + _encode(len(content)) + content
        field.value = content
    elif isinstance(field.value, int):
        field.value = rng.choice((*NUMBERS, field.value + 1, max(field.value - 1, 0), field.value * 2 % 2**64))
    elif isinstance(field.value, bytes) and field.wire == 2:
        odd = rng.choice(ODD_TEXT).encode("utf-8", "surrogatepass")
        field.value = rng.choice(
            (b"", odd, field.value + odd, damage(rng, field.value), field.value * 2, b"x" * 100_000)
        )
    elif isinstance(field.value, bytes):
        field.value = rng.choice((rng.randbytes(len(field.value)), b"\xff" * len(field.value), bytes(len(field.value))))
    else:
        field.wire, field.value = rng.choice(((0, rng.choice(NUMBERS)), (2, damage(rng, _to_bytes(field.value)))))


def _encode(number: int) -> bytes:
    number, encoded = number % 2**64, bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _to_bytes(message: list[_Field]) -> bytes:
    parts = []
    for field in message:
        parts.append(_encode(field.number << 3 | field.wire))
        if isinstance(field.value, int):
            parts.append(_encode(field.value))
            continue
        content = _to_bytes(field.value) if isinstance(field.value, list) else field.value
        parts += [_encode(len(content)), content] if field.wire == 2 else [content]
    return b"".join(parts)


def flatbuffer(rng: Random, data: bytes) -> bytes:
    """Return a flatbuffer with offsets, lengths or fields of its tables changed, most of them where tables lie."""
    if rng.random() < 0.3:
        return damage(rng, data)
    words = np.frombuffer(data[: len(data) // 4 * 4], "<u4").copy()
    small = np.flatnonzero((words > 0) & (words < len(data)))  # what may be an offset, a length or a small field
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = int(rng.choice(small))
        value, other = int(words[place]), int(rng.choice(small))
        same_table = int(words[other]) + 4 * (other - place)  # points to where the other one points
        changed = rng.choice((*(value + step for step in (-8, -4, -1, 1, 4, 8)), same_table, same_table, *NUMBERS[:14]))
        words[place] = changed % 2**32
    return words.tobytes() + data[len(words) * 4 :]
