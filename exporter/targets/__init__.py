"""The targets: one folder each, one line here."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporter.core.protocols import Target

_FOLDERS = (
    "executorch",
    "coreml",
    "onnx",
    "tflite",
)


class _Targets(Mapping[str, "Target"]):
    """The targets by name; the command line names them when it starts, so one is imported where it is asked for."""

    def __getitem__(self, name: str) -> "Target":
        if name not in _FOLDERS:
            raise KeyError(name)
        target: Target = import_module(f"{__name__}.{name}").TARGET
        return target

    def __iter__(self) -> Iterator[str]:
        return iter(_FOLDERS)

    def __len__(self) -> int:
        return len(_FOLDERS)


TARGETS = _Targets()
