"""The file of a latency predictor: JSON, read with distrust and written whole or not at all."""

import json
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from exporter.artifact.manifest import as_json
from exporter.core.errors import BadInputError
from exporter.core.predictor import Predictor
from safeio import files, strict_json

ADVICE = "choose another file"
_MAX_BYTES = 1 << 20
_SCHEMA = TypeAdapter(Predictor)


def read(path: Path) -> Predictor:
    """Return a predictor; raises BadInputError for one that cannot be used, as where its parts do not fit together."""
    again = "make it again with `cocorr-export ofa predict-latency`"
    try:
        content = files.read_file(path, _MAX_BYTES, follow_link=True)
        document = strict_json.loads(content, unique=True)
        if not isinstance(document, dict) or type(document.get("schema_version")) is not int:
            raise ValueError("it states no schema_version")
        predictor = _SCHEMA.validate_json(content, strict=True)
    except files.UnreadableError as error:
        raise BadInputError(f"{path} {error}; give what `cocorr-export ofa predict-latency` wrote") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the document"
        raise BadInputError(f"{path}: {place} is wrong: {first['msg'].lower()}; {again}") from error
    except ValueError as error:
        raise BadInputError(f"{path} is no predictor: {error}; {again}") from error
    blocks = len(predictor.costs.block_us)
    stated = predictor.conditions.architecture.get("blocks")
    if stated != blocks or any(len(sample.structure) != blocks for sample in predictor.samples):
        raise BadInputError(f"{path}: its {blocks} costs, its architecture and its samples differ in blocks; {again}")
    _require_useful(path, predictor)
    return predictor


def _require_useful(path: Path, predictor: Predictor) -> None:
    """Raise BadInputError for one by which nothing can be chosen: it predicts times below zero, or is far off."""
    costs, again = predictor.costs, "make it again on a quiet machine, with more --samples"
    least = sum(cost for cost in costs.block_us if cost < 0) or min(costs.block_us)  # one block runs, or more
    if costs.call_us + least <= 0:
        raise BadInputError(f"{path} predicts that a call takes less than no time; {again}")
    if predictor.error.median >= 1:
        raise BadInputError(f"{path} is off by {100 * predictor.error.median:.0f} % in the median; {again}")


def to_json(predictor: Predictor) -> dict[str, object]:
    """Return a predictor as its file has it."""
    return {"schema_version": predictor.schema_version, **as_json(predictor)}


def write(path: Path, predictor: Predictor) -> None:
    """Write a predictor; raises OutputError."""
    text = json.dumps(to_json(predictor), indent=2, allow_nan=False) + "\n"
    files.replace_file(path, text.encode(), ADVICE)
