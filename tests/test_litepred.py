"""LitePred from the command: a predictor is made and moved, and a structure is chosen by it and held to the limit."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_ofa
from commands import load_benchmark, run_here

from exporter.connections import running
from exporter.connections.running import Ran
from exporter.core.types import PairedTimes, RunResult
from exporter.pipeline import structure_times
from exporter.pipeline.source import Source
from exporter.pipeline.structure_times import Timed
from models.forward_ofa.programs import select

SECOND = 1e6
"""Microseconds: no call takes a second, so that no limit here hangs on how fast the machine is."""


def by_hand(structure: str) -> float:
    return SECOND * (1 + sum(cost for cost, digit in zip((1, 2, 4), structure, strict=True) if digit == "1"))


@pytest.fixture
def timed_by_hand(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let structures take so many times what `by_hand` says; nothing is lowered."""

    def by(factor: float) -> None:
        def time(sources: Sequence[Source], *_: object) -> Timed:
            times = np.array([factor * by_hand(source.structure) for source in sources])
            return Timed(times, "a clock by hand")

        monkeypatch.setattr(structure_times, "time_in_rounds", time)

    return by


def predictor_file(folder: Path, **changes: Any) -> Path:
    """Write what a fit to `by_hand` gives for ONNX, with some of it changed."""
    conditions = {
        "model": "ofa",
        "program": "subnet",
        "architecture": tiny_ofa.ARCHITECTURE,
        "history_length": tiny_ofa.LENGTH,
        "candidates": tiny_ofa.CANDIDATES,
        "target": "onnx",
        "options": {"opset": 20},
        "precision": "fp32",
        "fold": "same_size",
        "without_passes": [],
        "profile": "small",
        "connection": "host",
        "threads": 1,
    }
    document = {
        "schema_version": 1,
        "conditions": conditions | changes.pop("conditions", {}),
        "executed_on": "a clock by hand",
        "versions": {},
        "costs": {"call_us": SECOND, "block_us": [SECOND, 2 * SECOND, 4 * SECOND]},
        "error": {"median": 0.1, "p90": 0.2, "method": "none"},
        "samples": [{"structure": "111", "p50_us": 8 * SECOND}],
        "method": "by hand",
        "transferred_from": None,
    }
    file = folder / "predictor.json"
    stated = {
        key: value for key, value in (document | changes).items() if key == "transferred_from" or value is not None
    }
    file.write_text(json.dumps(stated))
    return file


def profile_file(folder: Path, limit_us: float) -> Path:
    file = folder / "small.yaml"
    file.write_text(f"name: small\ntargets:\n  onnx:\n    opset: 20\nbudgets:\n  latency_us: {limit_us}\n")
    return file


def auto(capfd: pytest.CaptureFixture[str], small_ofa: Path, folder: Path, predictor: Path, limit_us: float):
    words = ("--target", "onnx", "--checkpoint", small_ofa, "--output", folder / "out", "--json")
    chosen = ("--structure", "auto", "--predictor", predictor, "--profile", profile_file(folder, limit_us))
    return run_here(capfd, "ofa", *words, *chosen)


def test_a_predictor_is_made_and_moved_to_another_target(
    small_ofa: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], timed_by_hand: Callable[[float], None]
) -> None:
    timed_by_hand(1)
    command = ("ofa", "predict-latency", "--checkpoint", small_ofa, "--json")
    made = run_here(capfd, *command, "--target", "onnx", "--samples", "7", "--output", tmp_path / "onnx.json")
    assert made.code == 0, made.err
    np.testing.assert_allclose(made.document["costs"]["block_us"], [SECOND, 2 * SECOND, 4 * SECOND], rtol=1e-6)
    assert (len(made.document["samples"]), made.document["transferred_from"]) == (7, None)
    timed_by_hand(3)
    moving = (
        "--target",
        "tflite",
        "--samples",
        "3",
        "--from",
        tmp_path / "onnx.json",
        "--output",
        tmp_path / "lite.json",
    )
    moved = run_here(capfd, *command, *moving)
    assert moved.code == 0, moved.err
    np.testing.assert_allclose(moved.document["costs"]["block_us"], [3 * SECOND, 6 * SECOND, 12 * SECOND], rtol=1e-6)
    origin = {"profile": "generic", "target": "onnx", "connection": "host", "samples": 7}
    assert moved.document["transferred_from"] == origin
    again = run_here(capfd, *command, *moving)
    assert (again.code, "is there already" in again.error_line()) == (2, True)
    (tmp_path / "link.json").symlink_to("nowhere")
    linked = run_here(capfd, *command, *moving[:-1], tmp_path / "link.json")
    assert (linked.code, (tmp_path / "link.json").is_symlink()) == (2, True), linked.err
    few = run_here(capfd, *command, "--target", "onnx", "--samples", "5", "--output", tmp_path / "few.json")
    assert (few.code, "6 structures or more are needed, and 5 were asked for" in few.error_line()) == (2, True), few.err
    assert "states no budgets.latency_us" in few.err and not (tmp_path / "few.json").exists()


def test_the_best_structure_within_the_limit_is_chosen_and_measured(
    small_ofa: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = auto(capfd, small_ofa, tmp_path, predictor_file(tmp_path), 4.5 * SECOND)
    assert ended.code == 0, ended.err
    selection, searched = ended.document["selection"], ended.document["selection"]["searched"]
    # Within are 100, 010 and 110; the others take five seconds or more.
    model, golden = tiny_ofa.read(small_ofa)
    own = tiny_ofa.scores(model, golden["item_ids"], golden["candidate_ids"])[:, 0]
    scores = {digits: agreement(model, golden, own, digits) for digits in ("100", "010", "110")}
    assert selection["structure"] == selection["chosen"] == max(scores, key=lambda digits: scores[digits])
    assert searched["score"] == pytest.approx(scores[selection["structure"]], abs=1e-6)
    assert (searched["considered"], searched["too_slow"], searched["ndcg10"]) == (3, [], None)
    assert searched["predicted_us"] == by_hand(selection["structure"])
    assert searched["measured_us"] == ended.document["latency"]["p50_us"] < searched["limit_us"] == 4.5 * SECOND
    assert ended.document["parity"]["verdict"] == "pass"


def agreement(model: Any, golden: dict[str, np.ndarray], own: np.ndarray, digits: str) -> float:
    """Return Kendall's tau of the model's own rankings and those of a structure, by scipy and user by user."""
    import torch
    from scipy.stats import kendalltau

    taus = []
    for item_ids, candidate_ids, scores in zip(golden["item_ids"], golden["candidate_ids"], own, strict=True):
        with torch.no_grad():
            state = model.user_state(torch.from_numpy(item_ids[None]), torch.tensor([[float(one) for one in digits]]))
            ranked = (state @ model.items(torch.from_numpy(candidate_ids)).T)[0].numpy()
        taus.append(kendalltau(scores, ranked).statistic)
    return float(np.mean(taus))


def test_what_is_too_slow_when_measured_gives_way_to_a_faster_one(
    small_ofa: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    costs = {"call_us": 0.0, "block_us": [1e-4] * 3}
    predictor = predictor_file(tmp_path, costs=costs, error={"median": 0.4, "p90": 0.4, "method": "none"})
    ended = auto(capfd, small_ofa, tmp_path, predictor, 2.5e-4)
    selection = ended.document["selection"]
    assert ended.code == 1, ended.err  # no call takes a nanosecond
    # The best of two blocks first, and then one that is predicted to be faster by more than the predictor is off.
    assert [sum(map(int, digits)) for digits in selection["searched"]["too_slow"]] == [2]
    assert selection["chosen"] == selection["searched"]["too_slow"][0] != selection["structure"]
    assert sum(map(int, selection["structure"])) == 1
    assert (selection["left_out"], [row["within"] for row in ended.document["budgets"]]) == ([], [False])
    model, golden = tiny_ofa.read(small_ofa)  # the user whose weights are inside is the one who is named
    user = select(model, golden, None, selection["structure"])
    assert (tuple(selection["history"]), selection["logits"]) == (user.history, pytest.approx(user.logits))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"schema_version": 2}, "schema_version is wrong"),
        ({"schema_version": None}, "is no predictor: it states no schema_version"),
        ({"schema_version": True}, "is no predictor: it states no schema_version"),
        ({"costs": {"call_us": float("nan"), "block_us": [1.0] * 3}}, "is not JSON"),
        ({"costs": {"call_us": 1e300, "block_us": [1.0] * 3}}, "costs.call_us is wrong"),
        ({"costs": {"call_us": 1.0, "block_us": [1.0] * 2}}, "differ in blocks"),
        ({"samples": [{"structure": "1x1", "p50_us": 1.0}]}, "structure is wrong"),
        ({"error": {"median": -1.0, "p90": 0.2, "method": "none"}}, "error.median is wrong"),
        ({"conditions": {"architecture": {**tiny_ofa.ARCHITECTURE, "dimension": 32}}}, "is for architecture"),
        ({"conditions": {"target": "tflite"}}, "is for target 'tflite'"),
        ({"conditions": {"profile": "host"}}, "is for profile 'host'"),
        ({"conditions": {"profile": "host"}}, "or move this one here by a few: --from "),
        ({"conditions": {"threads": 0}}, "conditions.threads is wrong"),
        ({"costs": {"call_us": 1.0, "block_us": [-1.0] * 3}}, "less than no time"),
        ({"error": {"median": 1.5, "p90": 2.0, "method": "none"}}, "is off by 150 % in the median"),
    ],
)
def test_forged_predictors(
    changes: dict[str, Any], part: str, small_ofa: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = auto(capfd, small_ofa, tmp_path, predictor_file(tmp_path, **changes), 4.5 * SECOND)
    assert (ended.code, part in ended.error_line()) == (2, True), ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--structure", "auto"], "wants --predictor FILE"),
        (["--structure", "101", "--predictor", "p.json"], "goes with --structure auto"),
        (["--structure", "auto", "--predictor", "p.json", "--target", "onnx,tflite"], "is for one --target"),
        (["--structure", "auto", "--predictor", "p.json"], "budgets.latency_us"),
        (["--structure", "auto", "--predictor", "p.json", "--profile", "small.yaml"], "does not exist"),
    ],
)
def test_what_auto_wants(
    words: list[str],
    part: str,
    small_ofa: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    profile_file(tmp_path, 5.0)
    monkeypatch.chdir(tmp_path)
    ended = run_here(capfd, "ofa", "--target", "onnx", "--checkpoint", small_ofa, "--output", tmp_path / "out", *words)
    assert (ended.code, part in ended.error_line()) == (2, True), ended.err


def test_the_benchmark_times_structures_in_turn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark, words = load_benchmark("litepred"), "--backbones sasrec --targets onnx --samples 3 --unseen 1"
    monkeypatch.setattr(benchmark, "BLOCKS", {"sasrec": 3})
    monkeypatch.setattr(benchmark.structures, "LEAST_SAMPLES", 3)
    monkeypatch.setattr(structure_times, "ROUNDS", 1)
    monkeypatch.setattr("sys.argv", ["litepred.py", *words.split(" ")])
    benchmark.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| sasrec, 3 | ONNX Runtime")
    assert "fitted to 3" in lines[2]
    assert [line.split(":")[-1].strip() in ("kept", "over") for line in lines[3:]] == [True] * 3


def test_a_machine_that_is_slow_for_a_while_costs_no_block(monkeypatch: pytest.MonkeyPatch) -> None:
    speed = iter([1.0, 3.0, 1.0, 2.0, 1.0, 5.0, 1.0, 4.0, 1.0, 2.0, 3.0, 1.0])
    own = {"first": 20.0, "second": 50.0, "last": 80.0}

    def run(subject: Any, *_: object) -> Ran:
        times = (own[subject.label] * next(speed),) * 20
        return Ran(RunResult({}, "by hand", None, None, times, None, None, 1), "pass")

    def compare_times(first: Any, second: Any, *_: object) -> PairedTimes:
        now = next(speed)
        one, other = ((own[subject.label] * now,) * 20 for subject, _ in (first, second))
        return PairedTimes(("by hand", "by hand"), one, other, (1, 1))

    monkeypatch.setattr(running, "run", run)
    monkeypatch.setattr(running, "compare_times", compare_times)
    cases = [structure_times.Case(SimpleNamespace(label=name), {}) for name in own]  # type: ignore[arg-type]
    timed = structure_times.times_of(cases, lambda _: None)
    level = timed.times_us[0] / 20
    np.testing.assert_allclose(timed.times_us, level * np.array(list(own.values())))
    assert level in (1.0, 2.0, 3.0, 4.0, 5.0)  # that of one of the three rounds
