"""The directions of imports, as the house is planned: who may import whom, and no circles."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# room -> the rooms of this project that it may import, besides itself
MAY_IMPORT = {
    "exporter.core": set(),
    "exporter.graph": {"exporter.core"},
    "exporter.mil": {"exporter.core"},
    "exporter.targets": {"exporter.core", "exporter.mil", "exporter.artifact.weights"},
    "exporter.connections": {"exporter.core"},
    "exporter.connections.interpreter": {"exporter.core", "exporter.mil"},
    "exporter.measure": {"exporter.core"},
    "exporter.parity": {"exporter.core"},
    "exporter.profiles": {"exporter.core"},
    "exporter.artifact": {"exporter.core"},
    "exporter.report": {"exporter.core", "exporter.artifact"},
    "exporter.pipeline": {
        *("exporter." + room for room in ("core", "graph", "targets", "mil", "profiles", "artifact", "connections")),
        *("exporter." + room for room in ("measure", "parity")),
        "models.zoo",
        "models.spec",
        "models.checkpoint",
        "models.untrained",
    },
    "exporter.cli": {
        *("exporter." + room for room in ("core", "pipeline", "targets", "report", "artifact.results", "__main__"))
    },
    "exporter.__main__": {"exporter.cli"},
    "models": set(),
    "safeio": set(),
}
"""Every room but the agent may import `safeio`. `pipeline` is the only way from the exporter to the models, which know
nothing of the exporter."""

FILES = sorted(path for top in ("exporter", "models", "safeio") for path in (ROOT / top).rglob("*.py"))


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[0] if parts[0] != "exporter" else ".".join(parts[:2])


def imported(path: Path) -> set[str]:
    """Return the project's modules that a file imports anywhere, `from a import b` counted as a.b where that exists."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                is_module = (ROOT / (full.replace(".", "/") + ".py")).exists() or (
                    ROOT / full.replace(".", "/")
                ).is_dir()
                names.add(full if is_module else str(node.module))
    return {name for name in names if name.split(".")[0] in {"exporter", "models", "safeio"}}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_plan(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    room = room_of(module)
    if module == "exporter":
        assert not imported(path)
        return
    for name in imported(path):
        if room_of(name) in {room, "safeio"}:
            continue
        allowed = MAY_IMPORT.get(module, MAY_IMPORT[room])
        assert name in allowed or room_of(name) in allowed, f"{module} must not import {name}"


def test_the_agent_needs_nothing_of_the_project() -> None:
    assert imported(ROOT / "exporter" / "connections" / "agent.py") == set()


def test_vendors_are_imported_inside_functions_only() -> None:
    vendors = {"torch", "executorch", "coremltools", "onnx", "onnxruntime", "litert_torch", "ai_edge_litert"}
    for path in FILES:
        if path.is_relative_to(ROOT / "exporter"):
            top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
            for node in top:
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not {name.split(".")[0] for name in names} & vendors, f"{path}: import inside the function"


def test_every_tolerance_stands_in_the_verdict() -> None:
    comparing = {"allclose", "isclose", "assert_allclose", "assert_close", "approx"}
    bounds = {"atol", "rtol", "abs_tol", "rel_tol"}
    for path in FILES:
        if not path.is_relative_to(ROOT / "exporter") or path == ROOT / "exporter" / "parity" / "verdict.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "attr", getattr(node, "id", None))
            assert name not in comparing, f"{path}: compare in parity/verdict.py, where the tolerances are"
            assert not (isinstance(node, ast.keyword) and node.arg in bounds), f"{path}: a tolerance of its own"
