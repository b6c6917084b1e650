"""Writing a .tflite file that says what it is, without a second copy of its tables in memory.

What the converter wrote is unpacked, described and packed again with a few bytes in place of each large buffer. The
buffer itself goes behind what was packed, straight from the converter's bytes, and the place that points to it is set:
in a flatbuffer that is a distance forwards, wherever it ends (https://flatbuffers.dev/internals/).
"""

import json
import struct
from dataclasses import asdict
from typing import Any

from exporter.core.extras import require
from exporter.core.types import About

_METADATA = "cocorr-export"
_LARGE = 1 << 20  # bytes
_ALIGNED = 16  # where the schema wants a buffer's bytes to begin
_DATA = 4  # the slot of a Buffer's data in its table


def described(content: bytes, about: About) -> list[bytes | memoryview]:
    """Return the pieces of a model's file with its description, and all that is said of it as a metadata entry of JSON.

    The format's own way; the schema of TensorFlow's metadata packer has no place for inputs that are ids.
    """
    utils = require("ai_edge_litert.tools.flatbuffer_utils", "tflite")
    schema = require("ai_edge_litert.schema_py_generated", "tflite")
    model = utils.read_model_from_bytearray(content)
    model.description = about.description.encode()
    notes = schema.BufferT()
    notes.data = list(json.dumps(asdict(about), indent=1).encode())
    model.buffers.append(notes)
    entry = schema.MetadataT()
    entry.name, entry.buffer = _METADATA, len(model.buffers) - 1
    model.metadata = [*(model.metadata or ()), entry]
    large = {at: buffer.data for at, buffer in enumerate(model.buffers) if _size(buffer) >= _LARGE}
    for at in large:
        model.buffers[at].data = [0]
    packed = utils.convert_object_to_bytearray(model)
    packed += bytes(-len(packed) % _ALIGNED)
    end = len(packed)
    fields = schema.Model.GetRootAs(packed, 0)
    for at, data in large.items():
        table = fields.Buffers(at)._tab
        place = table.Pos + table.Offset(_DATA)
        length_at = end + _ALIGNED - 4  # so that what is behind the length is aligned
        struct.pack_into("<I", packed, place, length_at - place)
        end += _ALIGNED + len(data) + -len(data) % _ALIGNED
    pieces: list[bytes | memoryview] = [packed]
    for data in large.values():
        length = bytes(_ALIGNED - 4) + struct.pack("<I", len(data))
        pieces += [length, memoryview(data), bytes(-len(data) % _ALIGNED)]
    return pieces


def _size(buffer: Any) -> int:
    return 0 if buffer.data is None else len(buffer.data)
