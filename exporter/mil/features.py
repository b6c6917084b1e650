"""What the model description says of inputs beyond their types: flexible shapes, and values of optional inputs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from exporter.core.errors import ProgramError
from exporter.mil.types import MAX_RANK
from exporter.mil.wire import Record


@dataclass(frozen=True)
class Flexibility:
    """The shapes of a flexible input: a list of `shapes`, or per axis an inclusive range (None: no bound)."""

    shapes: tuple[tuple[int, ...], ...] = ()
    ranges: tuple[tuple[int, int | None], ...] = ()

    def allows(self, shape: tuple[int, ...]) -> bool:
        """Say whether an input may have this shape."""
        if self.shapes:
            return shape in self.shapes
        return len(shape) == len(self.ranges) and all(
            low <= size and (high is None or size <= high) for size, (low, high) in zip(shape, self.ranges, strict=True)
        )

    def __str__(self) -> str:
        if self.shapes:
            return "one of " + ", ".join(str(list(shape)) for shape in self.shapes)
        sizes = [f"{low}..{'' if high is None else high}" if high != low else str(low) for low, high in self.ranges]
        return f"[{', '.join(sizes)}]"


@dataclass(frozen=True)
class Feature:
    """One described input: default shape, flexibility, and the fill value if it may be left out."""

    shape: tuple[int, ...]
    flexibility: Flexibility | None
    optional: bool
    fill: float


@dataclass(frozen=True)
class Features:
    """Described inputs and the kinds of described outputs, by name."""

    inputs: Mapping[str, Feature]
    predicted: Mapping[str, str]


def read_features(record: Record) -> Features:
    """Read the inputs of a ModelDescription or FunctionDescription."""
    inputs = {
        item.get("name", ""): _feature(item.get("name", ""), item.get("type", {})) for item in record.get("input", [])
    }
    predicted = {
        record[key]: key for key in ("predictedFeatureName", "predictedProbabilitiesName") if record.get(key, "")
    }
    return Features({name: feature for name, feature in inputs.items() if feature is not None}, predicted)


def _feature(name: str, record: Record) -> Feature | None:
    array, image = record.get("multiArrayType"), record.get("imageType")
    if array is not None:
        shape = _sizes(array.get("shape", []))
        return Feature(shape, _array_flexibility(array), record.get("isOptional", False), _fill(array))
    if image is not None:
        channels = 1 if image.get("colorSpace") in (10, 40) else 3
        shape = (1, channels, image.get("height", 0), image.get("width", 0))
        return Feature(shape, _image_flexibility(image, channels), False, 0.0)
    if not record:
        raise ProgramError(f"input {name!r} is described without a type; the package is damaged")
    return None


def _fill(array: Record) -> float:
    for key in ("floatDefaultValue", "doubleDefaultValue"):
        if key in array:
            return float(np.concatenate(array[key])[-1])
    return float(array.get("intDefaultValue", 0))


def _array_flexibility(array: Record) -> Flexibility | None:
    if "enumeratedShapes" in array:
        shapes = [_sizes(item.get("shape", [])) for item in array["enumeratedShapes"].get("shapes", [])]
        return Flexibility(shapes=tuple(shapes))
    if "shapeRange" in array:
        return Flexibility(ranges=tuple(_range(item) for item in array["shapeRange"].get("sizeRanges", [])))
    return None


def _image_flexibility(image: Record, channels: int) -> Flexibility | None:
    if "enumeratedSizes" in image:
        sizes = image["enumeratedSizes"].get("sizes", [])
        return Flexibility(shapes=tuple((1, channels, size.get("height", 0), size.get("width", 0)) for size in sizes))
    if "imageSizeRange" in image:
        ranges = image["imageSizeRange"]
        height, width = _range(ranges.get("heightRange", {})), _range(ranges.get("widthRange", {}))
        return Flexibility(ranges=((1, 1), (channels, channels), height, width))
    return None


def _range(record: Record) -> tuple[int, int | None]:
    high = record.get("upperBound", 0)
    return record.get("lowerBound", 0), None if high < 0 else high


def _sizes(parts: list[Any]) -> tuple[int, ...]:
    sizes = [int(size) for part in parts for size in part.tolist()]
    if len(sizes) > MAX_RANK or any(not 0 <= size < 1 << 48 for size in sizes):
        raise ProgramError(f"a feature is described with an impossible shape {sizes[:MAX_RANK]}")
    return tuple(sizes)
