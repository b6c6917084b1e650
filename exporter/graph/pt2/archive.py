"""The zip file of a saved program: which members it may have, and how large they may be; pickles are only looked at."""

import io
import pickletools
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from exporter.core.errors import ProgramError
from exporter.core.types import MOST_PARTS
from safeio import files, strict_json

WEIGHTS, CONSTANTS = "data/weights/", "data/constants/"
MAX_BYTES = 4 << 30
_MAX_JSON_BYTES = 32 << 20  # about 1 kB for an operation
_MAX_PICKLE_BYTES = 1 << 20
_GRAPH = "models/model.json"
_CONFIGS = {WEIGHTS: f"{WEIGHTS}model_weights_config.json", CONSTANTS: f"{CONSTANTS}model_constants_config.json"}
_SAMPLE_INPUTS = "data/sample_inputs/model.pt"
_MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|\.data/\w+|models/[^/]+\.json|data/sample_inputs/[^/]+\.pt|extra/.+"
    r"|data/weights/(weight_\d+|[^/]+_weights_config\.json)|data/constants/(tensor_\d+|[^/]+_constants_config\.json)"
)
# What a pickle of tensors names, and lists, tuples and dicts of them.
_TENSORS = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|torch \w+Storage|torch (device|Size)"
)
_ANOTHER = "was saved by another version of torch"


@dataclass(frozen=True)
class Opened:
    """A .pt2 whose members were checked: its bytes, the graph's document, and members by name, without their root."""

    data: bytes
    graph: object
    zip: zipfile.ZipFile
    members: dict[str, zipfile.ZipInfo]

    def config(self, folder: str) -> object:
        """Return the document that says what tensors lie in WEIGHTS or CONSTANTS."""
        return strict_json.loads(_content(self.zip, self.members, _CONFIGS[folder], _MAX_JSON_BYTES))


def read(path: Path) -> Opened:
    """Open a .pt2 and read its graph; raises ProgramError, with words that follow the path, and what zipfile raises."""
    try:
        data = files.read_file(path, MAX_BYTES, follow_link=True)
    except files.UnreadableError as error:
        raise ProgramError(f"{error}; give a file that torch.export.save wrote") from error
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise ProgramError("is no .pt2, or is cut off; give a file that torch.export.save wrote")
    opened = zipfile.ZipFile(io.BytesIO(data))
    members = _members(opened, len(data))
    if _content(opened, members, "archive_format", 16) != b"pt2":
        raise ProgramError("is a zip file but no .pt2; give a file that torch.export.save wrote")
    if _content(opened, members, "archive_version", 16) != b"0":
        raise ProgramError(f"{_ANOTHER}; save it again with the one that is installed here")
    if "byteorder" in members and _content(opened, members, "byteorder", 16) != b"little":
        raise ProgramError("has its weights in big-endian order; save it again on a little-endian machine")
    _check_sample_inputs(_content(opened, members, _SAMPLE_INPUTS, MAX_BYTES))
    return Opened(data, strict_json.loads(_content(opened, members, _GRAPH, _MAX_JSON_BYTES)), opened, members)


def _members(opened: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Return the members by their names below the root; raises ProgramError for those that no program has."""
    entries = opened.infolist()
    if any(entry.filename == "serialized_exported_program.json" for entry in entries):
        raise ProgramError(f"{_ANOTHER} (2.7 or older); save it again with the one that is installed here")
    if len(entries) > MOST_PARTS:
        raise ProgramError(f"has more than {MOST_PARTS:,} members, as no program for a device; was it saved by torch?")
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
        raise ProgramError("has members that are packed or encrypted, as torch.export.save writes none; save it again")
    if sum(entry.file_size for entry in entries) > size:
        raise ProgramError("unpacks to more than its own size; save it again with torch.export.save")
    members = {entry.filename.partition("/")[2]: entry for entry in entries}
    roots = {entry.filename.partition("/")[0] for entry in entries}
    if len(roots) != 1 or len(members) != len(entries):
        raise ProgramError("has two members of one name, or no folder around all; give what torch.export.save wrote")
    programs = sorted(name for name in members if name.startswith("models/"))
    if len(programs) > 1:
        raise ProgramError(f"has {len(programs)} programs; save the one that you want alone, with torch.export.save")
    for name in members:
        if name.startswith("data/aotinductor/"):
            raise ProgramError(f"has compiled code ({name}); save the program itself: torch.export.save")
        if re.match(rf"{CONSTANTS}(custom|opaque)_obj_", name):
            raise ProgramError(f"has a script object or a class of its own ({name}); a program here is tensors alone")
        if name.startswith((WEIGHTS, CONSTANTS)) and name.endswith(".pt"):
            raise ProgramError(f"has its tensors in a pickle ({name}), which is never loaded here; save it again")
        if not _MEMBERS.fullmatch(name):
            raise ProgramError(f"has {name!r}, which torch.export.save does not write; give a program that it wrote")
    return members


def _content(opened: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], name: str, limit: int) -> bytes:
    """Return a member's bytes, which have to have its checksum; raises ProgramError for one too large or missing."""
    if name not in members:
        raise ProgramError(f"has no {name}; give a file that torch.export.save wrote")
    if members[name].file_size > limit:
        raise ProgramError(f"has {name} of more than {limit} bytes, more than is read of it")
    return opened.read(members[name])


def _check_sample_inputs(content: bytes) -> None:
    """Raise ProgramError where the pickle of the sample inputs would call more than what makes tensors.

    It is not loaded here, whatever it holds; but who put such a thing there may have put it elsewhere too.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as inner:
        pickles = [entry for entry in inner.infolist() if entry.filename.endswith("data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > _MAX_PICKLE_BYTES or pickles[0].compress_type:
            raise ProgramError("has sample inputs that are no tensors; save it again with torch.export.save")
        stream = inner.read(pickles[0])
    for called in _called(stream):
        if not _TENSORS.fullmatch(called):
            raise ProgramError(
                f"has a pickle of sample inputs that would call {called.replace(' ', '.')}, and only tensors are taken;"
                " save it again with tensors as inputs"
            )


def _called(stream: bytes) -> list[str]:
    """Return `module name` of everything that a pickle names; raises what pickletools raises for damaged ones."""
    called = []
    texts: list[str] = []
    for code, argument, _ in pickletools.genops(stream):
        if code.name in ("GLOBAL", "INST"):
            called.append(str(argument))
        elif code.name == "STACK_GLOBAL":
            called.append(" ".join(texts[-2:]))
        elif code.name.startswith("EXT"):
            called.append(f"extension {argument}")
        elif isinstance(argument, str):
            texts.append(argument)
    return called
