"""Forward-OFA's weights from outside: sessions between device and cloud, and packages that are swapped or refused."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import card_code
import numpy as np
import pytest
import safetensors.torch
import tiny_ofa
import torch
from commands import run_here
from safetensors.numpy import load_file, save_file

from exporter.artifact import store, weights
from exporter.core.precision import Weights
from exporter.pipeline import ProgramChoice, session
from exporter.pipeline import source as sources
from exporter.targets import TARGETS
from models import checkpoint
from models.forward_ofa import assembler, programs, weights_package
from models.forward_ofa.programs import select, selected_weights
from models.forward_ofa.supernet import Supernet


@pytest.fixture(scope="module")
def users(small_ofa: Path, small_ofa_model: Supernet) -> dict[str, np.ndarray]:
    """Golden histories and candidates of the users who share the most frequent structure."""
    golden = tiny_ofa.read(small_ofa)[1]
    own = tiny_ofa.structures(small_ofa_model, golden["item_ids"])
    common = max(set(own), key=own.count)
    rows = [row for row, structure in enumerate(own) if structure == common]
    assert len(rows) >= 4
    return {name: golden[name][rows] for name in ("item_ids", "candidate_ids")}


@pytest.fixture(scope="module")
def controllers(small_ofa: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    return tiny_ofa.export(small_ofa, tmp_path_factory.mktemp("controller"), "controller")


@pytest.fixture(scope="module")
def externals(small_ofa: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    return tiny_ofa.export(small_ofa, tmp_path_factory.mktemp("external"), "subnet_external")


@pytest.fixture(scope="module")
def in_int8(small_ofa: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    return tiny_ofa.export(small_ofa, tmp_path_factory.mktemp("int8"), "subnet_external", precision="int8")


@pytest.fixture(scope="module")
def mapper(small_ofa: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny_ofa.export(small_ofa, tmp_path_factory.mktemp("mapper"), "mapper", "onnx")["onnx"]["artifact"])


@pytest.mark.parametrize("target", ["onnx", "tflite"])
def test_the_code_of_a_card_reads_the_weights_that_lie_beside(
    target: str,
    externals: dict[str, dict],
    small_ofa_model: Supernet,
    users: dict[str, np.ndarray],
    shared_folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Once as the runtime's own data file, once as inputs; the example has the cases of the weights that are there."""
    artifact = shutil.copytree(externals[target]["artifact"], tmp_path / "artifact")
    card_code.assert_as_expected(card_code.run_python(artifact), artifact)
    card_code.assert_as_expected(card_code.run_javascript(artifact, card_code.packages(shared_folder)), artifact)
    assert "`weights.safetensors` has" in (artifact / "README.md").read_text()
    row = users["item_ids"][3]
    selection = select(small_ofa_model, users, row[row != 0].tolist(), None)
    weights_package.write(
        tmp_path / "package",
        small_ofa_model.backbone,
        selection.structure,
        selected_weights(small_ofa_model, selection),
        checkpoint=externals[target]["source"]["checkpoint_sha256"],
    )
    ended = run_here(capfd, "swap", artifact, tmp_path / "package", "--output", tmp_path / "swapped", "--json")
    assert (ended.code, {"run.py", "run.mjs"} <= set(ended.document["added_files"])) == (0, True), ended.err
    swapped = [case["inputs"]["item_ids"][0] for case in card_code.example(tmp_path / "swapped")["cases"]]
    assert swapped == [row.tolist()]
    card_code.assert_as_expected(card_code.run_python(tmp_path / "swapped"), tmp_path / "swapped")
    stranger = select(small_ofa_model, users, [3, 5, 7, 3], "".join(map(str, selection.structure)))
    weights_package.write(
        tmp_path / "package",
        small_ofa_model.backbone,
        stranger.structure,
        selected_weights(small_ofa_model, stranger),
        checkpoint=externals[target]["source"]["checkpoint_sha256"],
    )
    assert run_here(capfd, "swap", artifact, tmp_path / "package", "--output", tmp_path / "stranger").code == 0
    document = card_code.example(tmp_path / "stranger")
    (case,) = document["cases"]
    assert case["outputs"] is None and "nobody has computed" in document["outputs"]
    (printed,) = card_code.run_python(tmp_path / "stranger")
    expected = _scores_in_place(tmp_path / "stranger", users, 0)[0, 0]
    assert case["inputs"]["item_ids"] == [users["item_ids"][0].tolist()]
    np.testing.assert_allclose(printed["scores"][0], expected, rtol=0, atol=1e-4)


def test_controller_passes_on_all_targets(controllers: dict[str, dict]) -> None:
    for document in controllers.values():
        assert document["parity"]["verdict"] == "pass"
        assert [output["name"] for output in document["outputs"]] == ["logits", "structure", "latent"]
        assert document["parity"]["tolerance"]["max_abs_error"].keys() == {"logits", "structure", "latent"}
        assert "selection" not in document


def test_external_weights_pass_with_the_weights_of_every_user(externals: dict[str, dict]) -> None:
    for target, document in externals.items():
        assert document["parity"]["verdict"] == "pass"
        given = {"item_ids", "candidate_ids"} <= {one["name"] for one in document["inputs"]}
        inside = document["external"]["data_file"] is not None
        assert (given, inside) == (True, target in {"onnx", "executorch"})
        assert (len(document["inputs"]) == 2) == inside


@pytest.mark.parametrize("target", ["executorch", "onnx"])
def test_a_data_file_serves_half_precision_too(
    target: str, small_ofa: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    chosen = ("--program", "subnet_external", "--target", target, "--precision", "fp16")
    ended = run_here(capfd, "ofa", *chosen, "--checkpoint", small_ofa, "--output", tmp_path, "--json")
    assert (ended.code, ended.document["parity"]["verdict"]) == (0, "pass"), ended.err
    places = ended.document["external"]["data_file"]["tensors"].values()
    assert {dtype for _, dtype in places} == {"float16" if target == "executorch" else "float32"}


def test_the_data_file_of_onnx_is_the_package_of_the_cloud(
    externals: dict[str, dict], small_ofa_model: Supernet
) -> None:
    document = externals["onnx"]
    structure = [int(digit) for digit in document["selection"]["structure"]]
    file = Path(document["artifact"]) / "weights.safetensors"
    assert load_file(file).keys() == {entry["name"] for entry in document["external"]["tensors"]}
    own, made_by = safetensors.torch.load_file(file), document["source"]["checkpoint_sha256"]
    again = weights_package.to_bytes(small_ofa_model.backbone, structure, own, checkpoint=made_by)
    shapes = {entry["name"]: tuple(entry["shape"]) for entry in document["external"]["tensors"]}
    assert weights.from_bytes(again, shapes, document["external"]["metadata"], "it").tensors.keys() == shapes.keys()


@pytest.mark.parametrize("target", ["onnx", "tflite"])  # a data file, and inputs of the call
def test_what_ranks_has_the_weights_that_ship(
    target: str, externals: dict[str, dict], small_ofa_model: Supernet, capfd: pytest.CaptureFixture[str]
) -> None:
    clicks = externals[target]["selection"]["history"]
    words = ("--history", ",".join(map(str, clicks)), "--top", "299", "--json")
    ended = run_here(capfd, "rank", externals[target]["artifact"], *words)
    assert ended.code == 0, ended.err
    history = np.zeros((1, tiny_ofa.LENGTH), np.int32)
    history[0, : len(clicks)] = clicks
    expected = tiny_ofa.scores(small_ofa_model, history, np.arange(1, 300, dtype=np.int32)[None])[0, 0]
    ranked = ended.document["ranking"]
    np.testing.assert_allclose([item["score"] for item in ranked], np.sort(expected)[::-1], atol=1e-4)
    assert [item["row"] for item in ranked[:10]] == (np.argsort(-expected)[:10] + 1).tolist()


@pytest.mark.parametrize("target", TARGETS)
def test_each_package_gives_its_own_users_scores(
    target: str,
    externals: dict[str, dict],
    small_ofa_model: Supernet,
    users: dict[str, np.ndarray],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Two users of one structure: the package that lies beside the program decides whose scores it gives."""
    artifact = Path(externals[target]["artifact"])
    before = {path.relative_to(artifact): path.read_bytes() for path in artifact.rglob("*") if path.is_file()}
    found = []
    for user in (2, 3):
        row = users["item_ids"][user]
        selection = select(small_ofa_model, users, row[row != 0].tolist(), None)
        file = tmp_path / f"{user}.safetensors"
        own, made_by = selected_weights(small_ofa_model, selection), externals[target]["source"]["checkpoint_sha256"]
        weights_package.write(file, small_ofa_model.backbone, selection.structure, own, checkpoint=made_by)
        ended = run_here(capfd, "swap", artifact, file, "--output", tmp_path / f"{user}", "--json")
        assert (ended.code, ended.document["parity"]["verdict"]) == (0, "pass"), ended.err
        assert ended.document["selection"]["history"] is None  # a package does not say whose it is
        assert store.changed_file(tmp_path / f"{user}", store.read_manifest(tmp_path / f"{user}")) is None
        found.append(_scores_in_place(tmp_path / f"{user}", users, 2))
    expected = tiny_ofa.scores(small_ofa_model, users["item_ids"][2:3], users["candidate_ids"][2:3])
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-4)
    assert np.abs(found[1] - expected).max() > 1e-2  # the other's weights say something else about this user
    assert before == {path.relative_to(artifact): path.read_bytes() for path in artifact.rglob("*") if path.is_file()}
    manifest = tmp_path / "2" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "precision": "fp16"}))
    ended = run_here(capfd, "swap", artifact, file, "--output", tmp_path / "2")
    assert (ended.code, "precision fp16 and not fp32; choose another" in ended.error_line()) == (2, True)


def _scores_in_place(artifact: Path, users: dict[str, np.ndarray], user: int) -> np.ndarray:
    """Return a user's scores with the weights that lie in the artifact: in its data file, or read as an app would."""
    inputs = {name: array[user : user + 1, None] for name, array in users.items()}
    if store.read_manifest(artifact).external.data_file is None:
        weights = load_file(artifact / "weights.safetensors")
        inputs |= {name: tensor[None] for name, tensor in weights.items()}
    return session.run(artifact, inputs).outputs["scores"]


def test_a_session_on_every_target(
    controllers: dict[str, dict],
    externals: dict[str, dict],
    mapper: Path,
    small_ofa_model: Supernet,
    users: dict[str, np.ndarray],
) -> None:
    """Controller, upload, mapper, package and sub-network, each in its runtime, give what torch gives at once."""
    expected = tiny_ofa.scores(small_ofa_model, **users)
    for target in TARGETS:
        subnets = {externals[target]["selection"]["structure"]: Path(externals[target]["artifact"])}
        played = session.play(
            Path(controllers[target]["artifact"]),
            mapper,
            subnets,
            _pack(small_ofa_model, externals[target]),
            users["item_ids"],
            users["candidate_ids"],
        )
        np.testing.assert_allclose(np.stack([one.scores for one in played]), expected, rtol=0, atol=1e-4)
        assert all((one.swap_ms is not None) == (target in {"onnx", "executorch"}) for one in played)


def _pack(small_ofa_model: Supernet, document: dict) -> session.Pack:
    made_by = document["source"]["checkpoint_sha256"]

    def pack(structure: np.ndarray, weights: np.ndarray, stored: Weights) -> bytes:
        chosen = structure[0].astype(int).tolist()
        return weights_package.to_bytes(
            small_ofa_model.backbone,
            chosen,
            assembler.block_weights(small_ofa_model.backbone, torch.from_numpy(weights), chosen),
            stored,
            made_by,
        )

    return pack


def test_no_id_leaves_the_device(controllers: dict[str, dict], users: dict[str, np.ndarray]) -> None:
    """What is serialised can be made from the structure and the latent interest alone."""
    controller = Path(controllers["onnx"]["artifact"])
    sent = session.uploads(controller, users["item_ids"])
    computed = session.run(controller, {"item_ids": users["item_ids"][:, None]}).outputs
    for user, data in enumerate(sent):
        structure, latent = computed["structure"][user, 0], computed["latent"][user, 0]
        bits = int("".join(str(int(runs)) for runs in structure).ljust(8, "0"), 2)
        assert data == bytes([tiny_ofa.BLOCKS, bits]) + latent.tobytes()
        ids = users["item_ids"][user]
        assert not any(np.array(item, kind).tobytes() in data for item in ids[ids != 0] for kind in ("<i4", "<f4"))


def test_a_session_refuses_a_package_for_another_structure(
    externals: dict[str, dict], small_ofa_model: Supernet, users: dict[str, np.ndarray]
) -> None:
    structure = np.array([[1.0, 1.0, 1.0]], np.float32)
    assert externals["onnx"]["selection"]["structure"] != "111"
    data = _pack(small_ofa_model, externals["onnx"])(
        structure, np.zeros((1, 3, 5 * (16 * 16 + 16)), np.float32), "fp32"
    )
    with pytest.raises(weights.PackageError, match="structure '111'"):
        session.open_package(Path(externals["onnx"]["artifact"]), data)


def _other_structure(file: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    save_file(tensors, file, {**metadata, "structure": "111"})


def _other_checkpoint(file: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    save_file(tensors, file, {**metadata, "checkpoint": "0" * 64})


def _no_checkpoint(file: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    save_file(tensors, file, {name: value for name, value in metadata.items() if name != "checkpoint"})


def _missing(file: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    save_file(dict(list(tensors.items())[1:]), file, metadata)


def _extra(file: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    save_file({**tensors, "block9_query_bias": np.zeros(16, np.float32)}, file, metadata)


def _misshapen(file: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    save_file({name: tensor[..., :8].copy() for name, tensor in tensors.items()}, file, metadata)


def _not_finite(file: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    save_file({name: np.full_like(tensor, np.nan) for name, tensor in tensors.items()}, file, metadata)


def _no_metadata(file: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    save_file(tensors, file)


def _null_metadata(file: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    save_file(tensors, file)
    data = file.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]) | {"__metadata__": None}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + data[end:])


def _truncated(file: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    save_file(tensors, file, metadata)
    file.write_bytes(file.read_bytes()[:-1])


def _huge(file: Path, tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
    with file.open("wb") as stream:
        stream.truncate(1 << 32)


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (_other_structure, "structure '111'"),
        (_missing, "is missing"),
        (_extra, "block9_query_bias is not part of it"),
        (_misshapen, "is expected"),
        (_not_finite, "NaN"),
        (_other_checkpoint, f"for checkpoint '{'0' * 64}', not"),
        (_no_checkpoint, "for checkpoint 'None', not"),
        (_no_metadata, "for format 'None'"),
        (_null_metadata, "for format 'None'"),
        (_truncated, "truncated or damaged"),
        (_huge, "is larger than"),
        (lambda file, *_: file.write_bytes(b""), "truncated or damaged"),
        (lambda file, *_: None, "does not exist"),
    ],
)
def test_bad_packages(
    make, part: str, externals: dict[str, dict], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    artifact, file = Path(externals["onnx"]["artifact"]), tmp_path / "package.safetensors"
    make(file, load_file(artifact / "weights.safetensors"), externals["onnx"]["external"]["metadata"])
    output = shutil.copytree(artifact, tmp_path / "earlier")
    ended = run_here(capfd, "swap", artifact, file, "--output", output)
    assert (ended.code, part in ended.error_line()) == (2, True), ended.err
    assert store.changed_file(output, store.read_manifest(output)) is None


@pytest.mark.parametrize("target", TARGETS)
def test_weights_that_give_no_numbers_do_not_pass(
    target: str, externals: dict[str, dict], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each is finite, so the package is whole; the golden cases have weights of their own, and are well."""
    artifact, file = Path(externals[target]["artifact"]), tmp_path / "package.safetensors"
    tensors = load_file(Path(externals["onnx"]["artifact"]) / "weights.safetensors")
    huge = {name: np.full_like(tensor, 3e38) for name, tensor in tensors.items()}
    save_file(huge, file, externals[target]["external"]["metadata"])
    with np.errstate(all="ignore"):
        for words in (("swap", artifact, file, "--output", tmp_path / "out"), ("parity", tmp_path / "out")):
            ended = run_here(capfd, *words, "--json")
            assert (ended.code, ended.document["parity"]["verdict"]) == (1, "fail"), ended.err
            assert "the weights that ship" in ended.document["parity"]["reason"]


def test_what_cannot_be_swapped(
    externals: dict[str, dict], controllers: dict[str, dict], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    weights = Path(externals["onnx"]["artifact"]) / "weights.safetensors"
    ended = run_here(capfd, "swap", controllers["onnx"]["artifact"], weights, "--output", tmp_path / "out")
    assert (ended.code, "subnet_external" in ended.error_line()) == (2, True)
    changed = shutil.copytree(externals["onnx"]["artifact"], tmp_path / "changed")
    (changed / "model.onnx").write_bytes(b"something else")
    ended = run_here(capfd, "swap", changed, weights, "--output", tmp_path / "out")
    assert (ended.code, "SHA-256" in ended.error_line()) == (2, True)
    assert not (tmp_path / "out").exists()


def _names_in_int8(document: dict) -> list[str]:
    return [one["name"] for one in document["scheme"]["stored"] if one["name"] is not None]


def test_a_scheme_is_judged_by_all_golden_users_and_not_by_the_few_whose_weights_are_kept(
    in_int8: dict[str, dict], small_ofa: Path, small_ofa_model: Supernet, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of 16 users two items that change places are 0.0125 of the top 10, and more than a scheme may change."""
    document = in_int8["onnx"]
    scheme, artifact = document["parity"]["scheme"], Path(document["artifact"])
    users = tiny_ofa.read(small_ofa)[1]
    assert (document["parity"]["cases"], scheme["cases"]) == (16, len(users["item_ids"]))
    assert f"scheme over {scheme['cases']} cases: " in document["parity"]["reason"]
    golden = store.read_golden(artifact)
    selection = select(small_ofa_model, users, document["selection"]["history"], document["selection"]["structure"])
    cases = programs._in_order(small_ofa_model, users, selection)
    with torch.no_grad():
        ids, candidates = (torch.from_numpy(cases[name][16:]) for name in ("item_ids", "candidate_ids"))
        state = small_ofa_model.user_state(ids, torch.tensor([selection.structure]).float().expand(len(ids), -1))
        expected = (state[:, None] * small_ofa_model.items(candidates)).sum(axis=-1)
    np.testing.assert_allclose(golden.further_fp32["scores"][:, 0], expected, rtol=0, atol=1e-5)
    moved = np.abs(golden.further_outputs["scores"] - golden.further_fp32["scores"]).max(axis=(1, 2))
    assert (moved > 1e-5).all()
    again = run_here(capfd, "parity", artifact, "--json").document["parity"]["scheme"]
    assert again == scheme


OTHER_GOLDEN: dict[str, tuple[Callable[[store.Golden], store.Golden], str]] = {
    "an output more": (
        lambda old: old._replace(outputs={**old.outputs, "z": old.outputs["scores"]}),
        "has 'z' besides",
    ),
    "in fp32": (lambda old: old._replace(fp32={**old.fp32, "z": old.fp32["scores"]}), "has 'z' besides"),
    "an input more": (lambda old: old._replace(inputs={**old.inputs, "z": old.inputs["item_ids"]}), "has 'z' besides"),
    "a further one": (
        lambda old: old._replace(further_outputs={**old.further_outputs, "z": old.further_outputs["scores"]}),
        "has 'z' besides",
    ),
    "none further": (lambda old: old._replace(further_outputs={}, further_fp32={}), "has 16 cases for the scheme"),
    "one side": (lambda old: old._replace(further_fp32={}), "has no 'scores'"),
    "with positives": (lambda old: old._replace(positive=np.zeros(16, np.int64)), "nothing is judged by them"),
}


@pytest.mark.parametrize(("change", "words"), OTHER_GOLDEN.values(), ids=OTHER_GOLDEN.keys())
def test_golden_cases_of_another_hand_fail_and_end_nothing(
    change: Callable[[store.Golden], store.Golden],
    words: str,
    in_int8: dict[str, dict],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Hashes and sizes in the manifest fit, so that what is wrong is the content alone."""
    artifact = shutil.copytree(in_int8["onnx"]["artifact"], tmp_path / "artifact")
    store.write_golden(artifact, change(store.read_golden(artifact)))
    document = json.loads((artifact / "manifest.json").read_text())
    content = (artifact / "golden.npz").read_bytes()
    entry = next(entry for entry in document["files"] if entry["path"] == "golden.npz")
    entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (artifact / "manifest.json").write_text(json.dumps(document))
    ended = run_here(capfd, "parity", artifact, "--json")
    assert (ended.code, words in ended.document["parity"]["reason"]) == (1, True), ended.err
    package = artifact / "weights.safetensors"
    ended = run_here(capfd, "swap", artifact, package, "--output", tmp_path / "swapped", "--json")
    assert (ended.code, ended.document["parity"]["verdict"]) == (1, "fail"), ended.err


def test_packages_in_int8_pass_on_all_targets(in_int8: dict[str, dict], externals: dict[str, dict]) -> None:
    """What lies beside a program is the package, or what it gives in fp32; golden cases have what packages give."""
    assert in_int8.keys() == set(TARGETS)
    shipped = {target: _beside(document) for target, document in in_int8.items()}
    for target, document in in_int8.items():
        parity, artifact = document["parity"], Path(document["artifact"])
        assert (parity["verdict"], document["external"]["stored"]) == ("pass", "int8"), parity["reason"]
        assert "int8 tables and int8 weights" in parity["scheme"]["reason"]
        tables = [one for one in document["scheme"]["stored"] if one["name"] is None]
        names = [one["name"] for one in document["external"]["tensors"] if len(one["shape"]) == 2]
        assert (len(tables), _names_in_int8(document)) == (1, names)
        for one in document["scheme"]["stored"][1:]:
            assert (one["fp32_bytes"], one["bytes"]) == (4 * 256, 256 + 4 * 16)
            assert 0.002 < one["relative_rmse"] < 0.01
        golden = store.read_golden(artifact)
        for name, tensor in shipped[target].items():
            np.testing.assert_array_equal(tensor, shipped["onnx"][name])
            if name in names:
                np.testing.assert_array_equal(golden.inputs[name][0], tensor)  # the first case is this user's
                assert len(np.unique(golden.inputs[name][1][0])) <= 16
        before = store.read_golden(Path(externals[target]["artifact"]))
        np.testing.assert_array_equal(golden.fp32["scores"], before.outputs["scores"])
        moved = np.abs(golden.outputs["scores"] - golden.fp32["scores"]).max()
        assert 1e-4 < moved < 0.1 * np.abs(golden.fp32["scores"]).max()


def _beside(document: dict) -> dict[str, np.ndarray]:
    external = store.read_manifest(Path(document["artifact"])).external
    layout = None if external.data_file is None else external.data_file.layout
    return weights.beside(Path(document["artifact"]), layout, external.shapes, external.metadata)


def test_the_code_of_a_card_reads_int8(
    in_int8: dict[str, dict], shared_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    artifact = shutil.copytree(in_int8["tflite"]["artifact"], tmp_path / "artifact")
    card_code.assert_as_expected(card_code.run_python(artifact), artifact)
    card_code.assert_as_expected(card_code.run_javascript(artifact, card_code.packages(shared_folder)), artifact)
    assert "`NAME` times `NAME.scale`" in (artifact / "README.md").read_text()
    assert "comes in int8" in (Path(in_int8["onnx"]["artifact"]) / "README.md").read_text()


@pytest.mark.parametrize("target", ["onnx", "tflite"])  # a data file, and inputs of the call
@pytest.mark.parametrize("sent", ["fp32", "int8"])
@pytest.mark.parametrize("kept", ["fp32", "int8"])
def test_a_package_of_either_kind_is_stored_as_the_artifact_says(
    target: str,
    sent: Weights,
    kept: Weights,
    externals: dict[str, dict],
    in_int8: dict[str, dict],
    small_ofa_model: Supernet,
    users: dict[str, np.ndarray],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    document = {"fp32": externals, "int8": in_int8}[kept][target]
    row = users["item_ids"][2]
    selection = select(small_ofa_model, users, row[row != 0].tolist(), None)
    own = selected_weights(small_ofa_model, selection)
    file = tmp_path / "package"
    made_by = document["source"]["checkpoint_sha256"]
    weights_package.write(file, small_ofa_model.backbone, selection.structure, own, sent, made_by)
    ended = run_here(capfd, "swap", document["artifact"], file, "--output", tmp_path / "out", "--json")
    assert (ended.code, ended.document["parity"]["verdict"]) == (0, "pass"), ended.err
    exact = {name: tensor.numpy() for name, tensor in own.items()}
    rounded = {name: weights.through_int8(tensor[None])[0] for name, tensor in exact.items()}
    found = _beside(ended.document)
    for name, tensor in exact.items() if (sent, kept) == ("fp32", "fp32") else rounded.items():
        np.testing.assert_array_equal(found[name], tensor)
    shipped = (tmp_path / "out" / "weights.safetensors").read_bytes()
    assert (b'"I8"' in shipped) == (kept == "int8" and target == "tflite")


def test_the_mildest_scheme_that_fits_has_its_packages_too(
    small_ofa: Path, in_int8: dict[str, dict], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    profile = tmp_path / "small.yaml"
    size = in_int8["tflite"]["size_bytes"]
    profile.write_text(f"name: small\ntargets:\n  tflite:\nbudgets:\n  size_bytes: {size}\n")
    chosen = ("--program", "subnet_external", "--target", "tflite", "--profile", profile, "--precision", "auto")
    ended = run_here(capfd, "ofa", *chosen, "--checkpoint", small_ofa, "--output", tmp_path, "--json")
    document = ended.document
    assert (document["precision"], document["external"]["stored"]) == ("int8", "int8"), ended.err
    assert (document["size_bytes"], _names_in_int8(document)) == (size, _names_in_int8(in_int8["tflite"]))


def test_a_session_in_int8(
    controllers: dict[str, dict],
    externals: dict[str, dict],
    in_int8: dict[str, dict],
    mapper: Path,
    small_ofa_model: Supernet,
    users: dict[str, np.ndarray],
) -> None:
    """The cloud stores what it sends as the artifact's scheme says; all targets install the same."""
    expected, played = tiny_ofa.scores(small_ofa_model, **users), {}
    for name, documents in {"fp32": externals, "int8": in_int8, "int8 elsewhere": in_int8}.items():
        target = "tflite" if name == "int8 elsewhere" else "onnx"
        subnets = {documents[target]["selection"]["structure"]: Path(documents[target]["artifact"])}
        played[name] = session.play(
            Path(controllers[target]["artifact"]),
            mapper,
            subnets,
            _pack(small_ofa_model, documents[target]),
            *users.values(),
        )
    packages = {name: [one.package for one in sessions] for name, sessions in played.items()}
    assert all(len(small) < 0.55 * len(large) for small, large in zip(packages["int8"], packages["fp32"], strict=True))
    scores = {name: np.stack([one.scores for one in sessions]) for name, sessions in played.items()}
    spread = expected.std()
    assert 1e-4 * spread < np.sqrt(((scores["int8"] - expected) ** 2).mean()) < 0.02 * spread
    np.testing.assert_allclose(scores["int8"], scores["int8 elsewhere"], rtol=0, atol=2e-2 * spread)


def test_bytes_that_cross_the_network_are_those_of_the_package(
    in_int8: dict[str, dict], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    down = {}
    for target in ("onnx", "tflite"):
        artifact = shutil.copytree(in_int8[target]["artifact"], tmp_path / target)
        ended = run_here(capfd, "profile", artifact, "--iterations", "20", "--json")
        down[target] = ended.document["network"]["down_bytes"]
    package = load_file(tmp_path / "tflite" / "weights.safetensors")
    assert set(down.values()) == {sum(entry.nbytes for entry in package.values())}


def test_a_corrupted_scale_fails(in_int8: dict[str, dict], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Once in the file that ships; and once in all that the program is given, whose hashes are made to fit."""
    artifact = shutil.copytree(in_int8["tflite"]["artifact"], tmp_path / "artifact")
    file, manifest = artifact / "weights.safetensors", store.read_manifest(artifact)
    name = _names_in_int8(in_int8["tflite"])[-1]
    entries = load_file(file)
    entries[f"{name}.scale"][3] *= 2
    save_file(entries, file, {**manifest.external.metadata, "stored": "int8"})
    ended = run_here(capfd, "parity", artifact, "--json")
    assert (ended.code, ended.document["parity"]["verdict"]) == (1, "fail")
    assert "weights.safetensors" in ended.document["parity"]["reason"]

    golden = store.read_golden(artifact)
    golden.inputs[name][:, 3] *= 2
    (artifact / store.GOLDEN).unlink()
    store.write_golden(artifact, golden)
    document = json.loads((artifact / "manifest.json").read_text())
    for entry in document["files"]:
        data = (artifact / entry["path"]).read_bytes()
        entry.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (artifact / "manifest.json").write_text(json.dumps(document))
    ended = run_here(capfd, "parity", artifact, "--json")
    assert (ended.code, ended.document["parity"]["verdict"]) == (1, "fail")
    assert "lowering: output 'scores' is off by" in ended.document["parity"]["reason"]


def test_an_export_holds_what_it_wrote_to_what_torch_had(
    small_ofa: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = weights.Package.to_bytes

    def corrupted(package: weights.Package) -> bytes:
        package.entries[next(name for name in package.entries if name.endswith(".scale"))][0] *= 2
        return written(package)

    monkeypatch.setattr(weights.Package, "to_bytes", corrupted)
    document = tiny_ofa.export(small_ofa, tmp_path, "subnet_external", "tflite", precision="int8")["tflite"]
    assert document["parity"]["verdict"] == "fail"
    assert "that ship are not those with which torch computed" in document["parity"]["reason"]


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"scale": None}, "is missing"),
        ({"scale": np.ones(16, np.float32)}, "where float32 [16, 1] is expected"),
        ({"scale": np.full((16, 1), np.nan, np.float32)}, "no finite numbers above 0"),
        ({"stored": "int2"}, "stored in 'int2'"),
        ({"for": "me"}, "unknown metadata, 'for'"),
    ],
)
def test_bad_packages_in_int8(
    change: dict, part: str, in_int8: dict[str, dict], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    artifact, file = Path(in_int8["tflite"]["artifact"]), tmp_path / "package.safetensors"
    entries = load_file(artifact / "weights.safetensors")
    metadata = {**in_int8["tflite"]["external"]["metadata"], "stored": "int8"}
    if "scale" in change:
        entries[f"{_names_in_int8(in_int8['tflite'])[0]}.scale"] = change["scale"]
    else:
        metadata |= change
    save_file({name: entry for name, entry in entries.items() if entry is not None}, file, metadata)
    for target in ("tflite", "onnx"):
        output = tmp_path / target
        ended = run_here(capfd, "swap", in_int8[target]["artifact"], file, "--output", output)
        assert (ended.code, part in ended.error_line(), output.exists()) == (2, True, False), ended.err


def test_positives_are_of_programs_that_have_the_checkpoints_own_cases(small_ofa: Path, tmp_path: Path) -> None:
    """Cases that carry weights are 16 of the checkpoint's 24: shapes of the rest would be taken for theirs."""
    saved = checkpoint.read(small_ofa)
    positive = np.arange(tiny_ofa.CASES, dtype=np.int32)[:, None] % tiny_ofa.CANDIDATES
    folder = checkpoint.write(
        tmp_path / "known", saved.config, saved.state, {**saved.golden, checkpoint.POSITIVE: positive}
    )
    found = {
        program: sources.load(ProgramChoice("ofa", program, folder.folder)).positive
        for program in ("subnet", "subnet_external")
    }
    np.testing.assert_array_equal(found["subnet"], positive[:, 0])
    assert found["subnet_external"] is None
