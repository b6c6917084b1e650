"""The directions of imports, as the house is planned: who may import whom, and no circles."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from exporter.targets import TARGETS

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
    "exporter.profiles.schema": {"exporter.core", "exporter.targets"},
    "exporter.artifact": {"exporter.core"},
    "exporter.report": {"exporter.core", "exporter.artifact"},
    "exporter.gate": {"exporter.core", "exporter.artifact.manifest"},
    "exporter.fleet": {"exporter.core"},
    "exporter.serve": {"exporter.core"},
    "exporter.pipeline": {
        *("exporter." + room for room in ("core", "graph", "targets", "mil", "profiles", "artifact", "connections")),
        *("exporter." + room for room in ("measure", "parity", "gate", "fleet", "serve")),
        *("exporter." + room for room in ("report.units", "report.fleet_page", "report.fleet_ofa_page")),
        "models.zoo",
        "models.listed",
        "models.spec",
        "models.checkpoint",
        "models.checkpoint_files",
        "models.untrained",
        "models.importing",
        "models.importing.run",
        "models.training.columns",
        "models.training.users",
    },
    "exporter.cli": {"exporter." + room for room in ("core", "pipeline", "commands", "__main__")},
    "exporter.commands": {"exporter." + room for room in ("core", "pipeline", "targets", "report", "artifact.results")},
    "exporter.__main__": {"exporter.cli"},
    "models": set(),
    "safeio": set(),
    "cocorr": {*("exporter." + room for room in ("core", "pipeline", "targets", "artifact")), "models"},
    "cocorr.__main__": {"exporter.__main__", "models"},
}
"""Every room but the agent may import `safeio`. `pipeline` is the only way from the exporter to the models, which know
nothing of the exporter."""

LOADERS = sorted((ROOT / "exporter" / "targets").glob("*/loader.py"))
FILES = sorted(path for top in ("cocorr", "exporter", "models", "safeio") for path in (ROOT / top).rglob("*.py"))


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
    return {name for name in names if name.split(".")[0] in {"cocorr", "exporter", "models", "safeio"}}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_plan(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    room = room_of(module)
    if module == "exporter":
        assert imported(path) == {"safeio.invocation"}
        return
    for name in imported(path):
        if room_of(name) in {room, "safeio"} or path in LOADERS:
            continue
        allowed = MAY_IMPORT.get(module, MAY_IMPORT[room])
        assert name in allowed or room_of(name) in allowed, f"{module} must not import {name}"


def test_the_agent_and_the_loaders_need_nothing_of_the_project() -> None:
    """They are shipped together: modules of the agent know each other, loaders know the agent's contract."""
    modules = sorted((ROOT / "exporter" / "connections" / "agent").glob("*.py"))
    own = {f"exporter.connections.agent.{path.stem}" for path in modules}
    for path in modules:
        assert imported(path) <= own, path
    for path in LOADERS:
        assert imported(path) <= {"exporter.connections.agent.contract"}, path


def test_profiles_take_only_the_table_of_targets() -> None:
    taken = {name for name in imported(ROOT / "exporter" / "profiles" / "schema.py") if name.startswith("exporter.t")}
    assert taken == {"exporter.targets"}


def test_vendors_are_imported_inside_functions_only() -> None:
    vendors = {"torch", "executorch", "coremltools", "onnx", "onnxruntime", "litert_torch", "ai_edge_litert"}
    for path in FILES:
        if path.is_relative_to(ROOT / "exporter"):
            top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
            for node in top:
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
                assert not {name.split(".")[0] for name in names} & vendors, f"{path}: import inside the function"


def test_what_is_known_has_a_type() -> None:
    """Documents of others (YAML, vendors' files, the agent's messages) are read as they come; ours have types."""
    foreign = {"mil", "artifact", "targets", "connections", "profiles"}
    for path in FILES:
        if path.is_relative_to(ROOT / "exporter") and path.relative_to(ROOT).parts[1] not in foreign:
            assert not re.search(r"(dict|Mapping)\[str, Any\]", path.read_text()), f"{path}: give it a type"


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


# file -> how many places in it name a target that is not its own folder's; every other file has none.
NAMES_A_TARGET = {
    "exporter/targets/coreml/__init__.py": 1,  # the package executorch, which coremltools imports where it is installed
    # The bundle is one pinned set of runtimes, and ExecuTorch's needs a runner that is compiled for it.
    "exporter/connections/bundle/__init__.py": 1,
    "exporter/connections/bundle/install.py": 1,
    "exporter/connections/bundle/pins.py": 2,
    "exporter/connections/bundle/runner.py": 4,
    # The one line of each target.
    "exporter/targets/__init__.py": len(TARGETS),
    # ExecuTorch has a delegate for Core ML.
    "exporter/targets/executorch/__init__.py": 7,
    "exporter/targets/executorch/delegates.py": 3,
    "exporter/targets/executorch/options.py": 1,
    "exporter/targets/executorch/snippets.py": 1,
}


def named_targets(path: Path) -> Iterator[str]:
    """Give `line: text` for each place in a file that names a target: see the test below."""
    own = path.relative_to(ROOT).parts[2] if path.is_relative_to(ROOT / "exporter" / "targets") else ""
    names = "|".join(sorted(TARGETS.keys() - {own}))
    word = re.compile(rf"(?<![^\W_])({names})(?![^\W_])", re.I)
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in docstrings and word.search(node.value):
                yield f"{node.lineno}: {node.value!r}"
            continue
        for field in ("id", "attr", "arg", "name", "asname", "module"):
            text = getattr(node, field, None)
            if isinstance(text, str) and re.search(names, text, re.I):
                yield f"{getattr(node, 'lineno', 0)}: {text}"


def test_only_its_folder_names_a_target() -> None:
    """Count the places outside a target's folder that name it, and hold the number in each file.

    A place is an identifier (variable, attribute, argument, keyword, function, class, imported module or name) that
    contains a target's name, in any case, or a string constant in which it is a word of its own. Comments and
    docstrings may name targets, and `mil` may name Core ML, which it interprets.
    """
    found = {}
    for path in FILES:
        if not path.is_relative_to(ROOT / "exporter" / "mil"):
            places = list(named_targets(path))
            file = str(path.relative_to(ROOT))
            if places:
                found[file] = len(places)
            words = "move what is special to a target into its folder; if it must be here, change the number"
            assert len(places) <= NAMES_A_TARGET.get(file, 0), f"{file} names targets: {places}; {words}"
    assert found == NAMES_A_TARGET, "there are fewer places now: lower the numbers"
