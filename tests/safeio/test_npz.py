"""The one reader of .npz: damaged, forged and foreign archives are one error, and never more memory than is allowed."""

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from safeio import npz

DTYPES = st.sampled_from(["?", "<i4", ">i4", "<u1", "<f2", "<f4", ">f8", "<c8"])
ARRAYS = st.dictionaries(
    st.sampled_from(["file", "allow_pickle", "a.b", "x/y", "é"]),
    DTYPES.flatmap(
        lambda dtype: numpy_strategies.arrays(dtype, numpy_strategies.array_shapes(min_dims=0, min_side=0, max_dims=4))
    ),
)


def written(arrays: Mapping[str, np.ndarray], compress: bool = True) -> bytes:
    stream = io.BytesIO()
    npz.write(stream, arrays, compress)
    return stream.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_that_unpack_all_at_once_are_not_begun(method: int) -> None:
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (67108864,)}\n"
    content = np.lib.format.magic(1, 0) + len(header).to_bytes(2, "little") + header
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive, archive.open("x.npy", "w") as member:
        member.write(content)
        for _ in range(64):
            member.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(npz.NpzError, match="packed in a way"):
        npz.read(stream.getvalue(), 1 << 30)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@settings(max_examples=50)
@given(ARRAYS, st.booleans())
def test_what_is_written_comes_back(arrays: dict[str, np.ndarray], compress: bool) -> None:
    read = npz.read(written(arrays, compress), 1 << 20)
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].dtype == array.dtype.newbyteorder("=") and read[name].flags.writeable


def test_what_numpy_writes_is_read() -> None:
    stream = io.BytesIO()
    np.savez(stream, c=np.arange(6.0).reshape(2, 3), fortran=np.asfortranarray(np.arange(6).reshape(2, 3)))
    read = npz.read(stream.getvalue(), 1 << 20)
    np.testing.assert_array_equal(read["fortran"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(read["c"], [[0, 1, 2], [3, 4, 5]])


@given(st.data())
def test_any_damage_is_one_error_or_still_arrays(data: st.DataObject) -> None:
    content = bytearray(written({"x": np.arange(40, dtype=np.float32), "y": np.ones((2, 3))}, data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    try:
        assert all(isinstance(array, np.ndarray) for array in npz.read(bytes(content), 1 << 16).values())
    except npz.NpzError as error:
        assert str(error)


def member(header: str, body: bytes = b"", version: bytes = b"\1\0") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + body


def archive(*contents: bytes, method: int = zipfile.ZIP_STORED) -> bytearray:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as file:
        for number, content in enumerate(contents):
            file.writestr(f"x{number}.npy", content)
    return bytearray(stream.getvalue())


def header(descr: str = "'<f4'", shape: str = "(5,)", order: str = "False") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"


def encrypted() -> bytes:
    content = archive(member(header(), bytes(20)))
    content[6] |= 1
    content[content.find(b"PK\1\2") + 8] |= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a zip file"),
        (archive(member(header(shape="(1000000000000,)"), bytes(20))), r"\[1000000000000\]"),
        (archive(member(header(shape="(-5,)"), bytes(20))), "x0"),
        (archive(member(header(shape="(5,"), bytes(20))), "damaged"),
        (archive(member(header(shape="(2**3,)"), bytes(20))), "damaged"),
        (archive(member("[" * 5000)), "damaged"),
        (archive(member(header("'O'"), bytes(40))), "no numbers"),
        (archive(member(header("[('a', '<f4')]"), bytes(20))), "no numbers"),
        (archive(member(header("'<U1000'"), bytes(20))), "no numbers"),
        (archive(member(header(), bytes(19))), "x0"),
        (archive(member(header(), bytes(21))), "x0"),
        (archive(member(header(), bytes(20), b"\7\0")), "format 7.0"),
        (archive(b"no array"), "damaged"),
        (archive(member(header(shape=str((1,) * 65)), bytes(4))), "65 axes"),
        (encrypted(), "RuntimeError"),
        (archive(member(header(), bytes(20)), member(header(), bytes(20))).replace(b"x1.npy", b"x0.npy"), "one name"),
        (archive(bytes(9 << 20), method=zipfile.ZIP_DEFLATED), "unpacks to 9437184 bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_named_and_takes_no_memory(content: bytes, words: str) -> None:
    tracemalloc.start()
    with pytest.raises(npz.NpzError, match=f"(?i){words}"):
        npz.read(bytes(content), 8 << 20)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()


def test_only_what_is_expected_is_read() -> None:
    content = written({"a": np.zeros((2, 3), np.float32), "b": np.zeros(3)})
    expected = {"a": ((2, 3), np.dtype("float32"))}
    assert npz.read(content, 1000, expected).keys() == {"a"}
    for shape, dtype in (((3, 2), "float32"), ((2, 3), "float64")):
        with pytest.raises(npz.NpzError, match="'a'"):
            npz.read(content, 1000, {"a": (shape, np.dtype(dtype))})
    with pytest.raises(npz.NpzError, match="no array 'c'"):
        npz.read(content, 1000, {"c": ((1,), np.dtype("float32"))})
