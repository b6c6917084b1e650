"""Reading packages: what is well formed is read, what is damaged, forged or unsafe gives one clear error."""

import json

import numpy as np
import pytest

from exporter import mil
from exporter.core.errors import ProgramError
from exporter.mil.blob import BlobFile
from exporter.mil.schema import SCHEMA
from exporter.mil.wire import MAX_DEPTH, Reader


def _manifest(path):
    return {"itemInfoEntries": {"r": {"path": path}}, "rootModelIdentifier": "r"}


@pytest.mark.parametrize(
    "manifest",
    [
        "not json",
        "[]",
        "{}",
        "[" * 100_000,
        _manifest(3),
        _manifest(""),
        _manifest("../../../etc/passwd"),
        _manifest("/etc/passwd"),
        _manifest("com.apple.CoreML"),
        _manifest("missing.mlmodel"),
        _manifest("a\0b"),
        _manifest("x" * 5000),
        {"itemInfoEntries": "r", "rootModelIdentifier": 7},
        {"itemInfoEntries": [], "rootModelIdentifier": 7},
    ],
    ids=lambda manifest: json.dumps(manifest)[:40],
)
def test_manifests_that_do_not_name_a_file_inside_are_refused(write_package, manifest):
    with pytest.raises(ProgramError):
        mil.load(write_package(b"", manifest=manifest))


@pytest.mark.parametrize("linked", ["Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML", "Manifest.json"])
def test_links_are_not_followed_wherever_they_lead(write_package, tmp_path, linked):
    package = write_package(b"")
    (package / linked).rename(tmp_path / "there")
    (package / linked).symlink_to(tmp_path / "there")
    with pytest.raises(ProgramError, match="links are not followed"):
        mil.load(package)


def test_a_missing_package_and_a_plain_file_are_named(tmp_path):
    with pytest.raises(ProgramError, match="does not exist"):
        mil.load(tmp_path / "nothing.mlpackage")
    (tmp_path / "file.mlpackage").write_text("")
    with pytest.raises(ProgramError, match="not a folder"):
        mil.load(tmp_path / "file.mlpackage")


def test_another_kind_of_model_is_named(coremltools, write_package):
    model = coremltools.proto.Model_pb2.Model(specificationVersion=6)
    model.neuralNetwork.SetInParent()
    with pytest.raises(ProgramError, match="neuralNetwork"):
        mil.load(write_package(model.SerializeToString()))


def test_the_schema_is_the_one_that_coremltools_writes(coremltools):
    from google.protobuf.descriptor import FieldDescriptor

    files = [coremltools.proto.MIL_pb2.DESCRIPTOR, coremltools.proto.FeatureTypes_pb2.DESCRIPTOR]
    official = {}

    def collect(message):
        official[message.name] = message
        for nested in message.nested_types:
            collect(nested)

    for file in files:
        for message in file.message_types_by_name.values():
            collect(message)
    for name in ("Model", "ModelDescription", "FunctionDescription", "FeatureDescription"):
        official[name] = coremltools.proto.Model_pb2.DESCRIPTOR.message_types_by_name[name]
    renamed = {"ArrayShape": "Shape"}
    checked = 0
    for name, message in SCHEMA.items():
        if name.endswith("Entry"):
            continue
        theirs = official[renamed.get(name, name)].fields_by_number
        if message.strict:
            assert set(theirs) == set(message.fields), name
        for number, field in message.fields.items():
            assert theirs[number].name == field.name, (name, number)
            integers = {FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_INT32, FieldDescriptor.TYPE_ENUM}
            unsigned = {FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_ENUM}
            expected = {
                "int": integers,
                "ints": integers,
                "uint": unsigned,
                "bool": {FieldDescriptor.TYPE_BOOL},
                "bools": {FieldDescriptor.TYPE_BOOL},
                "string": {FieldDescriptor.TYPE_STRING},
                "bytes": {FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_MESSAGE},
                "message": {FieldDescriptor.TYPE_MESSAGE},
                "map": {FieldDescriptor.TYPE_MESSAGE},
                "floats": {FieldDescriptor.TYPE_FLOAT},
                "doubles": {FieldDescriptor.TYPE_DOUBLE},
            }[field.kind]
            assert theirs[number].type in expected, (name, number)
            checked += 1
    assert checked > 150


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 11,
        b"\x08",
        b"\x12\x05ab",
        b"\x0b",
        b"\x92\x1f\x02\x08",
        b"\xb2\x1f\x03\x12\xff\x01",
        b"\x08\x01\x08\x01",
    ],
)
def test_broken_wire_data_is_refused(write_package, data):
    with pytest.raises(ProgramError):
        mil.load(write_package(data))


def test_nesting_is_bounded():
    data = b""
    for _ in range(MAX_DEPTH + 10):
        data = b"\x0a" + _varint(len(data)) + data  # TupleType.types -> ...
        data = b"\x1a" + _varint(len(data)) + data  # ValueType.tupleType
    with pytest.raises(ProgramError, match="nests deeper"):
        Reader(data, SCHEMA).read("ValueType")


def _varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


@pytest.mark.parametrize("values", [[], [0], [1, -1, 2**31 - 1, -(2**31), 300], list(range(-70, 70))])
def test_packed_integers_of_either_form_are_read(coremltools, values):
    message = coremltools.proto.MIL_pb2.TensorValue.RepeatedInts(values=values)
    parts = Reader(message.SerializeToString(), SCHEMA).read("RepeatedInts").get("values", [])
    assert [int(v) for part in parts for v in part] == values
    unpacked = b"".join(b"\x08" + _varint(value % 2**64) for value in values)
    parts = Reader(unpacked, SCHEMA).read("RepeatedInts").get("values", [])
    assert [int(v) for part in parts for v in part] == values


BLOBS = {
    "float32": ("write_float_data", np.float32),
    "int8": ("write_int8_data", np.int8),
    "uint8": ("write_uint8_data", np.uint8),
    "int16": ("write_int16_data", np.int16),
    "uint16": ("write_uint16_data", np.uint16),
    "int32": ("write_int32_data", np.int32),
    "uint32": ("write_uint32_data", np.uint32),
    "int4": ("write_int4_data", np.int8),
    "uint1": ("write_uint1_data", np.uint8),
    "uint2": ("write_uint2_data", np.uint8),
    "uint3": ("write_uint3_data", np.uint8),
    "uint4": ("write_uint4_data", np.uint8),
    "uint6": ("write_uint6_data", np.uint8),
}


@pytest.mark.parametrize("count", [1, 7, 64, 100_003])
@pytest.mark.parametrize("dtype", BLOBS)
def test_blobs_of_every_type_come_back_as_coremltools_wrote_them(coremltools, tmp_path, dtype, count):
    from coremltools.libmilstoragepython import _BlobStorageWriter

    method, held = BLOBS[dtype]
    bits = int("".join(c for c in dtype if c.isdigit()))
    random = np.random.default_rng(count)
    if dtype == "float32":
        data = random.standard_normal(count).astype(np.float32)
    else:
        low, high = (-(1 << (bits - 1)), 1 << (bits - 1)) if dtype.startswith("int") else (0, 1 << bits)
        data = random.integers(low, high, count).astype(held)
    path = tmp_path / "weight.bin"
    writer = _BlobStorageWriter(str(path))
    first = writer.write_float_data(np.ones(3, np.float32))
    from coremltools.converters.mil.mil import types

    given = data.astype(types.nptype_from_builtin(types.string_to_builtin(dtype))) if bits < 8 else data
    offset = getattr(writer, method)(given)
    del writer
    file = BlobFile(path)
    assert np.array_equal(file.read(first, "float32", (3,)), np.ones(3))
    assert np.array_equal(file.read(offset, dtype, (count,)), data)


def test_damaged_blobs_are_refused(coremltools, tmp_path):
    from coremltools.libmilstoragepython import _BlobStorageWriter

    path = tmp_path / "weight.bin"
    writer = _BlobStorageWriter(str(path))
    offset = writer.write_float_data(np.arange(32, dtype=np.float32))
    del writer
    whole = path.read_bytes()
    for what, dtype, shape, at in [
        (whole, "float16", (32,), offset),
        (whole, "float32", (31,), offset),
        (whole, "float32", (32,), offset + 64),
        (whole, "float32", (32,), offset + 1),
        (whole, "float32", (32,), 1 << 62),
        (whole, "float32", (32,), 0),
        (whole[:-64], "float32", (32,), offset),
        (whole[:64] + bytes(64) + whole[128:], "float32", (32,), offset),
        (whole[:80] + b"\xff" * 8 + whole[88:], "float32", (32,), offset),
    ]:
        path.write_bytes(what)
        with pytest.raises(ProgramError):
            BlobFile(path).read(at, dtype, shape)
    for header in (b"", whole[:63], b"\x01\0\0\0\x03" + whole[5:]):
        path.write_bytes(header)
        with pytest.raises(ProgramError):
            BlobFile(path)
