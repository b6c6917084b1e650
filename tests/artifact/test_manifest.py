"""The names and types in the manifests of the shipped model: people's scripts rely on each of them.

`python tests/artifact/test_manifest.py ARTIFACT...` writes them anew, for a change that is meant and told.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from exporter.artifact import manifest, store

KEYS = Path(__file__).with_name("manifest_keys.json")


def typed(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (path, type) of every value; all entries of a list share one path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from typed(inner, f"{path}/{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from typed(inner, f"{path}/*")
    if not isinstance(value, dict):
        yield path, type(value).__name__


def keys_of(artifact: Path) -> dict[str, str]:
    """Return the types of every path in an artifact's manifest; whole numbers are floats too."""
    found: dict[str, set[str]] = {}
    for path, name in typed(json.loads((artifact / "manifest.json").read_text())):
        found.setdefault(path, set()).add("float" if name == "int" else name)
    return {path: " ".join(sorted(names)) for path, names in sorted(found.items())}


@pytest.mark.parametrize("target", ["coreml", "executorch", "onnx", "tflite"])
def test_the_keys_of_a_manifest_stay(target: str, artifacts: dict[str, Path]) -> None:
    expected, found = json.loads(KEYS.read_text())[target], keys_of(artifacts[target])
    assert sorted(expected) == sorted(found)
    # What one machine can measure another cannot, and then says why in the same keys.
    same = {path: names for path, names in found.items() if "NoneType" not in names + expected[path]}
    assert same == {path: names for path, names in expected.items() if path in same}
    assert len(same) > len(expected) * 0.8


def test_the_schema_of_a_manifest_is_published(artifacts: dict[str, Path]) -> None:
    """To write it anew: json.dumps(manifest.json_schema(), indent=2) and a line end."""
    published = Path(manifest.__file__).with_name(manifest.SCHEMA_FILE).read_text()
    assert published == json.dumps(manifest.json_schema(), indent=2) + "\n"
    schema = jsonschema.Draft202012Validator(json.loads(published))
    schema.check_schema(schema.schema)
    for artifact in artifacts.values():
        document = json.loads((artifact / "manifest.json").read_text())
        schema.validate(document)
        stalled = {"name": "4G", "up_bytes_per_s": 0, "down_bytes_per_s": 1e6}
        for wrong in ({"parity": {"verdict": "passed"}}, {"links": [stalled]}):
            assert not schema.is_valid({**document, **wrong})
            with pytest.raises(manifest.ManifestError):
                manifest.from_json(json.dumps({**document, **wrong}).encode())
        assert store.read_manifest(artifact).to_json() == document


if __name__ == "__main__":
    folders = map(Path, sys.argv[1:])
    KEYS.write_text(json.dumps({folder.name: keys_of(folder) for folder in folders}, indent=0) + "\n")
