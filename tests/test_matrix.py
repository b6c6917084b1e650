"""Every program of every model x every target, on small models of random weights; and SCN's exchange with its cloud."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch
from commands import run_here
from filelock import FileLock
from one_page import OnePage, one_page
from torch.utils.flop_counter import FlopCounterMode

from exporter import pipeline
from exporter.core.errors import BadInputError
from exporter.core.types import PassChoice
from exporter.measure import growth
from exporter.pipeline import session
from exporter.pipeline import source as sources
from exporter.targets import TARGETS
from models import checkpoint
from models.zoo import load_spec

# `topk` is a user's side, which is that of `rerank`, and one product; tests/models/test_topk.py has that of all models.
PAIRS = [
    (model, program)
    for model in tiny_models.SIZES
    for program in load_spec(model).programs
    if program != "topk" or model == "scn"
]
LARGER = {"scn": {"length": 10, "dimension": 64, "heads": 4, "mini_batch": 10}}
OF_TWO = "scn of two mini-batches"
EXCHANGED = ("hidden_state", "correct", "rerank_corrected")
WITHOUT_TABLES = {("scn", "correct"), ("scn", "rerank_cached")}
TAKE_FLOATS = [
    (model, program)
    for model, program in PAIRS
    if any(spec.dtype == "float32" for spec in load_spec(model).programs[program].inputs)
]


def export(
    model: str, program: str, folder: Path, output: Path, target: str = "all", precision: str | None = None
) -> dict[str, dict]:
    choice = pipeline.ProgramChoice(model, program, folder)
    request = pipeline.ExportRequest(choice, target, output, precision=precision)
    documents = [result.to_json() for result in pipeline.export(request, lambda _: None)]
    assert not [document["error"] for document in documents if "error" in document]
    return {document["target"]: document for document in documents}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small checkpoint of each model; SCN's has the paper's sizes but for the catalogue, for its exchange below."""
    place = tmp_path_factory.mktemp("checkpoints")
    of_two = tiny_models.write("scn", place / "long", **LARGER["scn"] | {"length": 20})
    plain = {name: tiny_models.write(name, place / name, **LARGER.get(name, {})) for name in tiny_models.SIZES}
    return {**plain, OF_TWO: of_two}


def sized(model: str, program: str) -> str:
    """Return which checkpoint a program has: what goes to the cloud and back is of two mini-batches, of one below."""
    return OF_TWO if (model, program) in [("scn", name) for name in EXCHANGED] else model


Made = Callable[..., dict[str, dict]]


@pytest.fixture
def made(folders: dict[str, Path], shared_folder: Path) -> Made:
    """`export` of a small checkpoint, once for all test processes: what one test exports, another runs in a browser."""

    def export_once(model: str, program: str, target: str = "all", precision: str | None = None) -> dict[str, dict]:
        place = shared_folder / "matrix" / "-".join((model, program, target, str(precision)))
        record = place / "documents.json"
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{place}.lock"):
            if not record.exists():
                record.write_text(
                    json.dumps(export(model, program, folders[sized(model, program)], place, target, precision))
                )
            return json.loads(record.read_text())

    return export_once


@pytest.fixture(scope="module")
def page(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OnePage]:
    """A page in Chromium, for all programs."""
    with one_page(shared_folder, tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


def in_fewer_bits(place: int) -> list[tuple[str, str]]:
    """Return the schemes that the pair at `place` is exported in, each with its target: all are had in turn."""
    names = [*TARGETS]
    return [(scheme, names[at % len(names)]) for scheme, at in (("int8", place), ("int4", place + 2))]


def products(model: str, program: str, folder: Path) -> dict[str, int]:
    """MACs of the matrix products of what each target lowers, as torch's own counter sees them while it runs."""
    source = sources.load(pipeline.ProgramChoice(model, program, folder))
    case = {name: torch.from_numpy(array[0].copy()) for name, array in source.inputs.items()}
    counts = {}
    for passes in {target.passes for target in TARGETS.values()}:
        rewritten = source.captured("inputs", "captured", PassChoice(passes)).exported.module()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            rewritten(**case)
        counts[passes] = int(counter.get_total_flops()) // 2
    return {name: counts[target.passes] for name, target in TARGETS.items()}


def known_difference(model: str, program: str, target: str) -> int:
    """MACs by which a file differs from torch.

    TFLite's converter writes Mamba's projection of the step, 1 by 2 D, twice, for softplus reads it twice.
    """
    dimension, blocks = 16, 2
    if model == "mamba4rec" and target == "tflite":
        return blocks * 2 * dimension * (1 if program == "step" else tiny_models.LENGTH)
    return 0


@pytest.mark.parametrize(("model", "program"), PAIRS)
def test_every_program_passes_on_every_target(model: str, program: str, folders: dict[str, Path], made: Made) -> None:
    documents = made(model, program)
    assert set(documents) == set(TARGETS)
    spec = load_spec(model).programs[program]
    counted_by_torch = products(model, program, folders[sized(model, program)])
    for target, document in documents.items():
        parity = document["parity"]
        assert (target, parity["verdict"], parity["cases"]) == (target, "pass", tiny_models.CASES), parity["reason"]
        assert parity["max_abs_error"] <= 1e-4
        assert parity["top10_overlap"] == (None if spec.ranking is None else 1.0)
        # How many comparisons a selection takes is the runtime's own affair, and depends on the scores.
        assert [row["count"] for row in document["flops"]["uncounted"]] == ([] if spec.ranked is None else [1])
        assert document["flops"]["macs"] == counted_by_torch[target] + known_difference(model, program, target)
        assert document["state"] == dict(spec.state)


@pytest.mark.parametrize(("place", "model", "program"), [(place, *pair) for place, pair in enumerate(PAIRS)])
def test_every_program_has_its_tables_in_fewer_bits(
    place: int, model: str, program: str, folders: dict[str, Path], tmp_path: Path, made: Made
) -> None:
    """Each in int8 on one target and in int4 on another, in turn; benchmarks/all_programs.py has all of them on all."""
    if (model, program) in WITHOUT_TABLES:
        with pytest.raises(BadInputError, match="has no table that only lookups read"):
            export(model, program, folders[sized(model, program)], tmp_path, "onnx", "int8")
        return
    for scheme, target in in_fewer_bits(place):
        document = made(model, program, target, scheme)[target]
        # Random networks make their tables' errors larger, so that the scheme itself may fail.
        assert (target, document["parity"]["lowering"]) == (target, "pass"), document["parity"]["reason"]
        assert document["scheme"]["stored"]


@pytest.mark.parametrize(("place", "model", "program"), [(place, *pair) for place, pair in enumerate(PAIRS)])
def test_every_program_passes_in_a_browser(place: int, model: str, program: str, page: OnePage, made: Made) -> None:
    """Also in the fewer bits that it has above, where the target is one that runs in a browser."""
    documents = [document for document in made(model, program).values() if is_for_browsers(document["target"])]
    if (model, program) not in WITHOUT_TABLES:
        for scheme, target in in_fewer_bits(place):
            documents += made(model, program, target, scheme).values() if is_for_browsers(target) else ()
    assert {document["target"] for document in documents} == {"onnx", "tflite"}
    for document in documents:
        parity = page.parity(Path(document["artifact"]))
        name, verdict = (document["target"], document["precision"]), parity.lowering or parity.verdict
        assert (name, verdict, parity.cases) == (name, "pass", tiny_models.CASES), parity.reason
        assert " in headless Chrome" in str(parity.executed_on)
        assert parity.max_abs_error is not None
        assert parity.max_abs_error <= 1e-4
        assert parity.top10_overlap == document["parity"]["top10_overlap"]


def is_for_browsers(target: str) -> bool:
    """Say whether something runs a target's files in a browser."""
    return TARGETS[target].runtime.web is not None


@pytest.mark.parametrize(("model", "program"), TAKE_FLOATS)
def test_states_and_embeddings_go_into_a_16_bit_program(
    model: str, program: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = folders[sized(model, program)]
    parity = export(model, program, folder, tmp_path, "executorch", "fp16")["executorch"]["parity"]
    assert parity["cases"] == tiny_models.CASES
    for name, limit in parity["tolerance"]["max_abs_error"].items():
        assert parity["output_errors"][name] <= limit, name
    assert parity["max_abs_error"] > 1e-5  # it is fp16 indeed


def test_a_state_of_thousands_passes_and_says_what_it_was_allowed(tmp_path: Path) -> None:
    # After training, Mamba4Rec's scan holds thousands, where 32-bit numbers are further apart than 1e-4.
    model = tiny_models.build("mamba4rec")
    with torch.no_grad():
        for block in model.blocks:
            mixer = block.mixer
            _, into_state, out_of_state = mixer.x_proj.weight.split([mixer.rank, mixer.state, mixer.state])
            into_state *= 2_000
            out_of_state /= 2_000
    documents = export("mamba4rec", "step", tiny_models.write("mamba4rec", tmp_path / "large", model=model), tmp_path)
    assert set(documents) == set(TARGETS)
    for target, document in documents.items():
        parity = document["parity"]
        assert (target, parity["verdict"], parity["top10_overlap"]) == (target, "pass", 1.0), parity["reason"]
        limits = parity["tolerance"]["max_abs_error"]
        assert limits == {"scores": 1e-4, "next_convolution": 1e-4, "next_scan": limits["next_scan"]}
        errors = parity["output_errors"]
        assert 1e-4 < errors["next_scan"] == parity["max_abs_error"] < limits["next_scan"] < 1e-2
        assert max(errors["scores"], errors["next_convolution"]) <= 1e-4
        assert "output 'next_scan', whose values reach" in parity["reason"]


@pytest.fixture(scope="module")
def full_size(folders: dict[str, Path]) -> Path:
    """An SCN of the paper's sizes but for the catalogue, with a GCN."""
    return folders["scn"]


@pytest.fixture(scope="module")
def cloud(full_size: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cloud's artifact, in ONNX."""
    output = tmp_path_factory.mktemp("cloud")
    return Path(export("scn", "correct", full_size, output, "onnx")["onnx"]["artifact"])


@pytest.mark.parametrize("target", TARGETS)
def test_a_device_and_its_cloud_score_as_torch_does(target: str, full_size: Path, cloud: Path, tmp_path: Path) -> None:
    device = {
        program: Path(export("scn", program, full_size, tmp_path, target)[target]["artifact"])
        for program in ("hidden_state", "rerank_corrected")
    }
    saved = checkpoint.read(full_size)
    ids = {name: saved.golden[name][:, None] for name in ("item_ids", "candidate_ids")}
    hidden = session.run(device["hidden_state"], {"item_ids": ids["item_ids"]}).outputs["hidden_state"]
    up = [one.tobytes() for one in hidden]
    received = np.stack([np.frombuffer(data, "<f4").reshape(1, 10, 64) for data in up])
    corrections = session.run(cloud, {"hidden_state": received}).outputs
    down = [one.tobytes() + two.tobytes() for one, two in zip(*corrections.values(), strict=True)]
    assert ({len(data) for data in up}, {len(data) for data in down}) == ({2_560}, {4_160})  # Table 5
    scores = session.run(device["rerank_corrected"], {**ids, **corrections}).outputs["scores"]
    model = checkpoint.build(saved, load_spec("scn"))
    with torch.no_grad():
        pairs = [(torch.from_numpy(i), torch.from_numpy(c)) for i, c in zip(*ids.values(), strict=True)]
        expected = np.stack([model.corrected(*pair).numpy() for pair in pairs])
        alone = np.stack([model(*pair).numpy() for pair in pairs])
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)
    assert np.abs(expected - alone).max() > 0.01  # the correction matters


def test_two_mini_batches_cost_twice_what_one_does(
    folders: dict[str, Path], made: Made, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud, device = made("scn", "correct")["onnx"], made("scn", "rerank_corrected")["onnx"]
    assert cloud["any_batch"] is True and cloud["parity"]["in_one_call"]["verdict"] == "pass"
    inputs = {entry["name"]: entry["shape"] for entry in (*cloud["inputs"], *device["inputs"])}
    assert inputs["item_ids"] == [1, 20] and inputs["hidden_state"] == [1, 20, 64]
    # of each mini-batch of 10 clicks 4 heads, of 10 x 10 numbers and of 10 x 16
    assert inputs["attention_correction"] == [1, 2 * 4, 10, 10] and inputs["bias_correction"] == [1, 2 * 4, 10, 16]
    monkeypatch.setattr(growth, "LENGTHS", (10, 15))  # 15 is one mini-batch and a half, and left out
    words = ["--checkpoint", folders[OF_TWO], "--iterations", "20", "--no-write", "--json"]
    profiled = run_here(capfd, "profile", cloud["artifact"], *words)
    assert profiled.code == 0, profiled.err
    network, points = profiled.document["network"], profiled.document["growth"]["points"]
    assert (network["up_bytes"], network["down_bytes"]) == (20 * 64 * 4, 2 * (4 * 10 * 10 + 4 * 10 * 16) * 4)
    assert (network["up_bytes"], network["down_bytes"]) == (2 * 2_560, 2 * 4_160)  # twice what Table 5 has
    assert [point["tokens"] for point in points] == [10, 20]
    assert 2 * points[0]["macs"] == points[1]["macs"] == cloud["flops"]["macs"]  # each by itself


@pytest.mark.parametrize("program", ["correct", "rerank_corrected"])
def test_programs_say_what_their_checkpoint_lacks(
    program: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    without = checkpoint.read(tiny_models.write("scn", tmp_path / "with"))
    config = {**without.config, "architecture": {k: v for k, v in without.architecture.items() if k != "gcn"}}
    state = {name: tensor for name, tensor in without.state.items() if not name.startswith("gcn.")}
    checkpoint.write(tmp_path / "without", config, state, without.golden)
    arguments = ["--program", program, "--target", "onnx", "--output", tmp_path / "out", "--checkpoint"]
    ended = run_here(capfd, "scn", *arguments, tmp_path / "without")
    assert (ended.code, "no GCN" in ended.error_line()) == (2, True), ended.err
    tiny_models.write("scn", tmp_path / "long", length=9)
    ended = run_here(capfd, "scn", *arguments, tmp_path / "long")
    assert (ended.code, "whole mini-batches of 6 clicks, and these histories have 9" in ended.error_line()) == (
        2,
        True,
    ), ended.err
    assert not (tmp_path / "out").exists()
