"""What an artifact says of itself: its card, its example, and code that gives the golden scores."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import card_code
import numpy as np
import pytest
from commands import run_here

from exporter.artifact import store
from exporter.artifact.results import Result
from exporter.core.calling import Argument, Calling
from exporter.pipeline import explaining
from exporter.report.console import print_artifacts
from exporter.targets import TARGETS
from safeio import catalogue

Capfd = pytest.CaptureFixture[str]

CORE_ML_STAND_IN = """
import sys, types
from pathlib import Path
from exporter import mil

class MLModel:
    def __init__(self, path):
        self._program = mil.load(Path(path))
    def predict(self, inputs):
        return self._program.run(inputs)

models = types.SimpleNamespace(MLModel=MLModel)
"""


@pytest.fixture
def stand_ins(tmp_path: Path) -> Path:
    """A coremltools whose models the reference interpreter computes: Core ML itself is on macOS only."""
    folder = tmp_path / "stand_ins"
    folder.mkdir()
    (folder / "coremltools.py").write_text(CORE_ML_STAND_IN)
    return folder


@pytest.mark.parametrize("target", TARGETS)
def test_the_python_of_a_card_prints_the_golden_scores(
    target: str, artifacts: dict[str, Path], stand_ins: Path, tmp_path: Path
) -> None:
    artifact = shutil.copytree(artifacts[target], tmp_path / "artifact")
    found = card_code.run_python(artifact, stand_ins if target == "coreml" else None)
    card_code.assert_as_expected(found, artifact)
    assert len(found) == 3
    with np.load(artifact / "golden.npz") as golden:  # the same numbers to their last bit
        for name in ("item_ids", "candidate_ids"):
            given = [case["inputs"][name] for case in card_code.example(artifact)["cases"]]
            np.testing.assert_array_equal(np.array(given, np.int32), golden[f"inputs.{name}"][:3])
        scores = [case["outputs"]["scores"] for case in card_code.example(artifact)["cases"]]
        np.testing.assert_array_equal(np.array(scores, np.float32), golden["outputs.scores"][:3])


AWKWARD = ("01", "1", "1_0", "a\tb", "back\\slash", "line\nfeed", "\\t", "__proto__", "é ü", "$x")


@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_javascript_and_raw_ids(target: str, artifacts: dict[str, Path], shared_folder: Path, tmp_path: Path) -> None:
    """A catalogue of awkward ids, in the code of a card and in its example."""
    artifact = shutil.copytree(artifacts[target], tmp_path / "artifact")
    modules = card_code.packages(shared_folder)
    rows = store.read_manifest(artifact).source.architecture["vocabulary"]
    used = sorted({row for case in card_code.example(artifact)["cases"] for row in case["inputs"]["item_ids"][0]} - {0})
    ids = ["", *(f"item {row}" for row in range(1, rows))]
    for row, awkward in zip(used, AWKWARD, strict=False):
        ids[row] = awkward
    (artifact / "items.tsv").write_bytes(catalogue.to_bytes(ids, [1] * rows))
    listed = replace(store.read_manifest(artifact), files=store.list_files(artifact))
    store.write_manifest(artifact, explaining.explain(artifact, listed))
    document = card_code.example(artifact)
    assert document["ids"].startswith("raw")
    given = document["cases"][0]["inputs"]["item_ids"][0]
    assert {AWKWARD[0]} <= {one for case in document["cases"] for one in case["inputs"]["item_ids"][0]}
    assert all(isinstance(one, str) for one in given)
    assert store.changed_file(artifact, store.read_manifest(artifact)) is None
    card_code.assert_as_expected(card_code.run_python(artifact), artifact)
    card_code.assert_as_expected(card_code.run_javascript(artifact, modules), artifact)


IDS = (Argument("item_ids", (1, 10), "int32", True), Argument("candidate_ids", (1, 100), "int32", True))
SCORES = Argument("scores", (1, 100), "float32")
HIDDEN, NEXT = Argument("hidden", (1, 16), "float32"), Argument("next_hidden", (1, 16), "float32")
WEIGHTS = (Argument("block0_query_weight", (64, 64), "float32"), Argument("block0_query_bias", (64,), "float32"))
VARIANTS = {
    "rerank": {},
    "raw ids": {"raw_ids": True},
    "step": {"inputs": (*IDS, HIDDEN), "outputs": (SCORES, NEXT), "state": {"next_hidden": "hidden"}},
    "weights as inputs": {"weights": WEIGHTS, "package": "weights.safetensors"},
    "topk": {
        "inputs": IDS[:1],
        "outputs": (Argument("ids", (1, 30), "int32", True), Argument("scores", (1, 30), "float32")),
        "raw_ids": True,
    },
    "data file": {"data_file": "weights.bin", "raw_ids": True},
    "no ids": {"inputs": (HIDDEN,), "outputs": (Argument("top_rows", (1, 10), "int32"), SCORES)},
    "reserved": {"inputs": (Argument("in", (1, 2), "int32"), Argument("is", (2,), "float32")), "outputs": (SCORES,)},
}
OPTIONS = {"delegate": "xnnpack", "compute_units": "ALL"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_code_is_code(variant: str, tmp_path: Path) -> None:
    """Kotlin and Swift are parsed, as no compiler with the vendors' packages is to be had; Python is compiled."""
    tree_sitter = pytest.importorskip("tree_sitter")
    grammars = {name: pytest.importorskip(f"tree_sitter_{name}") for name in ("kotlin", "swift")}
    parsers = {name: tree_sitter.Parser(tree_sitter.Language(one.language())) for name, one in grammars.items()}
    plain = {"model": "scn", "program": "rerank", "model_file": "model.x", "options": OPTIONS, "state": {}}
    call = Calling(**{**plain, "inputs": IDS, "outputs": (SCORES,), **VARIANTS[variant]})
    assert call.is_plain
    languages = set()
    for target in TARGETS.values():
        for snippet in target.snippets(call):
            if snippet.code is None:
                assert snippet.note
                continue
            languages.add(snippet.language)
            assert "\t" not in snippet.code  # written as an escape in every language
            if snippet.language == "kotlin" and call.raw_ids and call.inputs == IDS:
                assert r'Regex("\\\\(.)")' in snippet.code
            assert ("idsOf" in snippet.code or "ids_of" in snippet.code) == (variant == "topk")
            if snippet.language == "python":
                compile(snippet.code, variant, "exec")
            elif snippet.language in parsers:
                root = parsers[snippet.language].parse(snippet.code.encode()).root_node
                assert not root.has_error, (target.name, snippet.code)
    assert languages == {"python", "kotlin", "swift", "javascript"}


def test_names_from_elsewhere_get_no_code(artifacts: dict[str, Path], tmp_path: Path) -> None:
    """The manifest of an artifact may be a stranger's: its words stay words in a card."""
    artifact = shutil.copytree(artifacts["onnx"], tmp_path / "artifact")
    text = (artifact / "manifest.json").read_text()
    evil = '\\"]; import os  # <script>'
    (artifact / "manifest.json").write_text(text.replace('"item_ids"', f'"{evil}"'))
    with np.load(artifact / "golden.npz") as archive:
        arrays = {name.replace("item_ids", evil.replace("\\", "")): archive[name] for name in archive}
    np.savez(artifact / "golden.npz", **arrays)
    manifest = explaining.explain(artifact, store.read_manifest(artifact))
    assert manifest.inputs[0].name not in {"item_ids", ""}
    card = (artifact / "README.md").read_text()
    assert "```" not in card
    assert "<script>" in card  # in a code span, where it is text
    assert card_code.example(artifact)["cases"]


def test_a_card_says_what_an_app_must_know(artifacts: dict[str, Path]) -> None:
    cards = {target: (artifact / "README.md").read_text() for target, artifact in artifacts.items()}
    for target, card in cards.items():
        manifest = store.read_manifest(artifacts[target])
        assert manifest.interface is not None
        assert "**Verdict: pass.**" in card
        assert f"| bytes on the device | {manifest.size_bytes:,} |" in card
        for port in (*manifest.interface.inputs, *manifest.interface.outputs):
            assert port.meaning, port
            assert port.meaning in card
        assert "oldest first" in card and "filled up with 0 on the right" in card and "[1, 100]" in card
        assert "not compiled" in card
        assert str(artifacts[target].parent) not in card  # no path, so that one export gives the same bytes
    assert "`serving_default_item_ids`" in cards["tflite"]
    assert [port.listed_at for port in store.read_manifest(artifacts["tflite"]).interface.inputs] == [1, 0]
    assert "by position only" in cards["executorch"]


def test_files_of_the_vendors_describe_themselves(artifacts: dict[str, Path]) -> None:
    """ExecuTorch's format has no place for it."""
    import onnx
    from ai_edge_litert import schema_py_generated as schema

    manifest = store.read_manifest(artifacts["coreml"])
    assert manifest.interface is not None
    description, version = manifest.interface.description, f"checkpoint {str(manifest.source.checkpoint_sha256)[:16]}"
    package = artifacts["coreml"] / "model.mlpackage/Data/com.apple.CoreML/model.mlmodel"
    texts = [port.meaning for port in (*manifest.interface.inputs, *manifest.interface.outputs)]
    for text in (*texts, description, version, "cocorr-export", "none is stated"):
        assert text and text.encode() in package.read_bytes()

    model = onnx.load(artifacts["onnx"] / "model.onnx")
    assert (model.producer_name, model.doc_string) == ("cocorr-export", description)
    assert {prop.key: prop.value for prop in model.metadata_props}["version"] == version
    assert "oldest first" in model.graph.input[0].doc_string

    content = (artifacts["tflite"] / "model.tflite").read_bytes()
    lite = schema.Model.GetRootAs(content, 0)
    assert lite.Description().decode() == description
    entries = {lite.Metadata(at).Name(): lite.Metadata(at).Buffer() for at in range(lite.MetadataLength())}
    said = json.loads(lite.Buffers(entries[b"cocorr-export"]).DataAsNumpy().tobytes())
    assert said["weights"] == version


def test_an_artifact_from_before_there_were_cards(artifacts: dict[str, Path], tmp_path: Path, capfd: Capfd) -> None:
    """It opens and passes, and what is made of it gets a card that says what is not known."""
    artifact = shutil.copytree(artifacts["onnx"], tmp_path / "artifact")
    manifest = json.loads((artifact / "manifest.json").read_text())
    del manifest["interface"]
    for name in ("README.md", "example.json"):
        (artifact / name).unlink()
        manifest["files"] = [entry for entry in manifest["files"] if entry["path"] != name]
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    (artifact / "README.md").write_text("mine")
    ended = run_here(capfd, "parity", artifact, "--json")
    assert (ended.code, ended.document["parity"]["verdict"]) == (0, "pass")
    assert ended.document["added_files"] == ["README.md"]
    explaining.explain(artifact, store.read_manifest(artifact))
    assert "not stated" in (artifact / "README.md").read_text()


def test_what_a_user_adds_is_named_and_left_out(artifacts: dict[str, Path], tmp_path: Path, capfd: Capfd) -> None:
    artifact = shutil.copytree(artifacts["coreml"], tmp_path / "artifact")
    for name in ("notes.txt", ".DS_Store", "a\x1b[2Jb"):
        (artifact / name).write_text("mine")
    (artifact / "link").symlink_to("/etc/passwd")
    (artifact / "photos").mkdir()
    (artifact / "photos" / "one.jpg").write_bytes(b"")
    ended = run_here(capfd, "parity", artifact, "--json")
    names = [".DS_Store", "a\x1b[2Jb", "link", "notes.txt", "photos/one.jpg"]
    assert (ended.code, ended.document["added_files"]) == (0, names), ended.err
    print_artifacts([Result(store.read_manifest(artifact), "there", added=tuple(names))])
    assert "left out: .DS_Store, a\\x1b[2Jb, link, notes.txt, photos/one.jpg\n" in capfd.readouterr().out
    (artifact / "model.mlpackage" / "Data" / "more.bin").write_bytes(b"")
    ended = run_here(capfd, "parity", artifact, "--json")
    assert (ended.code, ended.document["parity"]["verdict"]) == (1, "fail")
    assert "model.mlpackage/Data/more.bin is not in the manifest" in ended.document["parity"]["reason"]
