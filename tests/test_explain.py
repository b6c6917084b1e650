"""`cocorr-export explain`: what is planted in an artifact is named, and what is stored coarsely adds up."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_models
from commands import Ended, run_here

from exporter.artifact import store
from exporter.graph.watching import Watch
from exporter.pipeline import origin
from exporter.targets import TARGETS

Capfd = pytest.CaptureFixture[str]
MODELS = Path(__file__).with_name("planted_model.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("planted")


def export(folder: Path, capfd: Capfd, spec: str, target: str, precision: str) -> Path:
    """Return the artifact of one of the planted models, which is made once."""
    place = (
        folder / precision / spec.lower().replace("spec", "planted").replace("_", "") / "rerank" / "generic" / target
    )
    if not place.exists():
        words = ("--untrained", "--target", target, "--precision", precision, "--output", folder / precision)
        ended = run_here(capfd, "export", "--model", f"{MODELS}:{spec}", *words, "--json")
        assert ended.code in (0, 1), ended.err
    return place


def explain(artifact: Path, capfd: Capfd, spec: str, *options: str) -> Ended:
    ended = run_here(capfd, "explain", artifact, "--model", f"{MODELS}:{spec}", *options)
    assert (ended.code, ended.noise()) == (0, []), ended.err
    return ended


@pytest.mark.parametrize("target", TARGETS)
def test_a_bad_constant_is_named(target: str, folder: Path, capfd: Capfd) -> None:
    """One weight in the file is wrong: the first value beyond its bound is of its module, or it is named itself."""
    artifact = export(folder, capfd, "SPEC", target, "fp32")
    well = explain(artifact, capfd, "SPEC", "--json").document
    assert well["losses"]["reason"] == "fp32 stores every constant as it is"
    assert (well["located"]["first_beyond"], well["located"]["foreign_constants"]) == (None, [])
    assert len(well["located"]["values"]) > 3 and well["located"]["form_error"] < 1e-5
    corrupt(artifact, "tower.second")
    located = explain(artifact, capfd, "SPEC", "--json").document["located"]
    if TARGETS[target].tracing().method.startswith("one more lowering"):
        (constant,) = located["foreign_constants"]
        assert constant["likely"].startswith("tower.second."), constant
        assert located["form_error"] > 1e-3  # what is seen is the program, and not this file
    else:
        first = located["values"][located["first_beyond"]]
        assert first["module"] == "tower.second", first
        assert not any(value["is_beyond"] for value in located["values"][: located["first_beyond"]])


def corrupt(artifact: Path, module: str) -> None:
    """Change a number of a constant that a module reads where it stands in a file; the manifest lists the change."""
    manifest = store.read_manifest(artifact)
    source = origin.source_of(manifest, f"{MODELS}:SPEC", None)
    watch = Watch(origin.lowering_of(manifest).captured(source))
    constants = [array.numpy() for name, array in watch.constants().items() if watch.readers()[name][0] == module]
    contents = [np.ascontiguousarray(form).tobytes() for array in constants for form in (array, array.T)]
    places = [path for path in sorted((artifact / manifest.model_file).rglob("*")) if path.is_file()]
    for path in places or [artifact / manifest.model_file]:
        data = path.read_bytes()
        for content in contents:
            if data.count(content) == 1:
                wrong = np.frombuffer(content, np.float32).copy()
                wrong[: len(wrong) // 2] += 1
                path.write_bytes(data.replace(content, wrong.tobytes()))
                store.write_manifest(artifact, replace(manifest, files=store.list_files(artifact)))
                return
    raise AssertionError(f"no constant of {module} stands in the file")


@pytest.mark.parametrize("target", TARGETS)
def test_what_leaves_16_bits_is_named(target: str, folder: Path, capfd: Capfd) -> None:
    """Where a target computes in 16 bits a square does; where it only stores in them, a constant."""
    stored_only = TARGETS[target].fp16_form({"delegate": "xnnpack"}) == "captured"
    spec = "TOO_LOUD" if stored_only else "LOUD"
    artifact = export(folder, capfd, spec, target, "fp16")
    document = explain(artifact, capfd, spec, "--json").document
    located, losses = document["located"], document["losses"]
    first = located["values"][located["first_beyond"]]
    named = first["module"], first["operation"]
    assert named == (("loud.louder", "linear") if stored_only else ("loud", "square")), first
    assert first["not_finite"] or stored_only  # LiteRT reads what is infinite in 16 bits as 65,536
    worst = losses["constants"][0]
    assert (worst["name"], worst["overflows"]) == ("loud.louder.weight", 16) if stored_only else not worst["overflows"]
    shown = explain(artifact, capfd, spec)
    assert f"first beyond its bound: {first['operation']} of {first['module']}" in shown.out


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write("scn", tmp_path_factory.mktemp("scn") / "checkpoint")


@pytest.fixture(scope="module")
def scn(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[dict[str, Path]]":
    """An artifact of a small SCN for each precision that is asked for."""
    yield {"checkpoint": checkpoint, "output": tmp_path_factory.mktemp("made")}


@pytest.mark.parametrize("precision", ["fp16", "int8", "int4+fp16"])
def test_shares_add_up(precision: str, scn: dict[str, Path], capfd: Capfd) -> None:
    """Also by module; and together they are most of what the artifact is off by where it computes in fp32."""
    where = ("--checkpoint", scn["checkpoint"], "--output", scn["output"] / precision, "--json")
    made = run_here(capfd, "scn", "--target", "onnx", "--precision", precision, *where)
    assert made.code in (0, 1), made.err
    artifact = Path(made.document["artifact"])
    ended = run_here(capfd, "explain", artifact, "--checkpoint", scn["checkpoint"], "--ops", "3", "--json")
    assert (ended.code, ended.noise()) == (0, []), ended.err
    losses = ended.document["losses"]
    assert losses["outputs"] == ["scores"]
    assert sum(row["share"] for row in losses["constants"]) == pytest.approx(1 - losses["left"], abs=1e-9)
    assert sum(losses["modules"].values()) == pytest.approx(1 - losses["left"], abs=1e-9)
    assert abs(losses["left"]) < 0.05
    assert any(row["module"] == "items" for row in losses["constants"])
    if precision == "int8":
        assert losses["of_artifact"] == pytest.approx(1, abs=1e-3)
        assert ended.document["located"]["first_beyond"] is None
    flops = [row["flops"] for row in ended.document["operations"]]
    assert len(flops) == 3 and flops == sorted(flops, reverse=True)


def test_bad_input_is_one_line(scn: dict[str, Path], folder: Path, tmp_path: Path, capfd: Capfd) -> None:
    where = ("--checkpoint", scn["checkpoint"], "--output", tmp_path / "made", "--json")
    made = run_here(capfd, "scn", "--target", "onnx", *where)
    artifact = made.document["artifact"]
    other = tiny_models.write("din", tmp_path / "din")
    planted = export(folder, capfd, "SPEC", "onnx", "fp32")
    for words, arguments in (
        ("is not the checkpoint of this artifact", (artifact,)),  # the shipped one
        ("din", (artifact, "--checkpoint", other)),
        ("nowhere does not exist", (artifact, "--checkpoint", tmp_path / "nowhere")),
        ("no artifact here", (tmp_path,)),
        ("give its model: --model FILE.py:SPEC", (planted,)),
        ("leave --checkpoint out", (planted, "--checkpoint", scn["checkpoint"])),
    ):
        ended = run_here(capfd, "explain", *arguments)
        assert (ended.code, words in ended.error_line()) == (2, True), ended.err
