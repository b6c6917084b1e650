"""Limits as people write them, and what holds of figures beside a baseline."""

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.core.checks import Counted
from exporter.core.errors import ConfigError
from exporter.core.sections import Comparison
from exporter.gate import config, judge, limits, lock
from exporter.gate.figures import FIGURES
from exporter.gate.judge import Timed
from exporter.gate.lock import Lock, Locked

SHA = "0" * 64


@pytest.mark.parametrize(
    ("figure", "written", "sort", "amount"),
    [
        ("size", "+2%", "share of the baseline", Fraction(2, 100)),
        ("size", "+10 kB", "change", Fraction(10_000)),
        ("size", "at most 3 MiB", "at most", Fraction(3 << 20)),
        ("flops", 0, "change", Fraction(0)),
        ("flops", "at most 1.2 M", "at most", Fraction(1_200_000)),
        ("top10_overlap", -0.001, "change", Fraction(1, 1000)),
        ("top10_overlap", "at least 0.99", "at least", Fraction(99, 100)),
        ("max_abs_error", "at most 1e-5", "at most", Fraction(1, 100_000)),
        ("latency", "no slower", "slower by", Fraction(2, 100)),
        ("latency", "+5%", "slower by", Fraction(5, 100)),
        ("precision", "same", "same", Fraction(0)),
        ("kendall_tau", -0.3, "change", Fraction(3, 10)),
    ],
)
def test_a_limit_is_what_is_written(figure: str, written: object, sort: str, amount: Fraction) -> None:
    (limit,) = limits.parse(figure, written, 3)
    assert (limit.sort, limit.amount, limit.line) == (sort, amount, 3)


@pytest.mark.parametrize(
    ("figure", "written", "words"),
    [
        ("size", "at most 3 us", "'us' is no unit of size; its units: B, kB"),
        ("size", "+10", "give the unit of size"),
        ("size", "-2%", "how far it may grow"),
        ("size", "at least 3 MB", "'at most 3 MB'"),
        ("size", True, "a limit is"),
        ("size", [], "a limit is"),
        ("flops", "+1 MB", "'MB' is no unit of flops"),
        ("flops", float("nan"), "a limit of flops is"),
        ("kendall_tau", "+0.1", "how far it may fall"),
        ("max_abs_error", "+1%", "in no baseline; give 'at most'"),
        ("latency", "2 ms", "latency_us in the budgets of a profile"),
        ("checkpoint", "any", "'same' or 'none'"),
    ],
)
def test_a_wrong_limit_says_what_is_allowed(figure: str, written: object, words: str) -> None:
    with pytest.raises(limits.LimitError, match=words):
        limits.parse(figure, written)


@given(
    st.sampled_from([name for name, figure in FIGURES.items() if figure.in_lock]),
    st.integers(1, 10**12),
    st.integers(-1000, 1000),
    st.integers(0, 1000),
)
@example("top10_overlap", 1_000_000, -1000, 1000)  # 1 - 0.001 is less than 0.999 to a float
def test_a_change_is_kept_up_to_its_limit(name: str, before: int, moved: int, allowed: int) -> None:
    figure = FIGURES[name]
    scale = 1_000_000 if figure.kind == "share" else 1
    unit = " B" if figure.kind == "bytes" else ""
    amount = f"{allowed / scale:.6f}" if scale > 1 else f"{allowed}{unit}"
    (limit,) = limits.parse(name, f"{'+' if figure.lower_is_better else '-'}{amount}")
    now = (before + moved) / scale if scale > 1 else before + moved
    was = before / scale if scale > 1 else before
    worse = moved if figure.lower_is_better else -moved
    assert judge._outcome(limit, figure, was, now) == ("kept" if worse <= allowed else "broken")


def baseline(**instructions: int) -> Locked:
    return Locked(source=SHA, precision="fp32", model_sha256=SHA, figures={}, instructions=dict(instructions))


def test_an_absolute_limit_holds_the_baseline_itself_too() -> None:
    (limit,) = limits.parse("instructions", "at most 999")
    check = judge._instructions(limit, baseline(this=1000), Counted(None, "this", "the same artifact"))
    assert check is not None and check.outcome == "broken"


def test_what_nothing_could_count_is_told_of() -> None:
    (limit,) = limits.parse("instructions", "+1%")
    check = judge._instructions(limit, baseline(), Counted(None, None, "no valgrind"))
    assert check is not None and check.outcome == "unknown"
    assert judge._instructions(limit, baseline(), Counted(None, None)) is None  # it never has any here


@pytest.mark.parametrize(
    ("counted", "outcome"),
    [
        (Counted(1010, "this"), "kept"),
        (Counted(1011, "this"), "broken"),
        (Counted(5000, "that"), "unknown"),  # of another processor: nothing is compared
        (Counted(None, None, "no valgrind"), "unknown"),
        (Counted(None, "this", "the same artifact"), "kept"),
    ],
)
def test_instructions_are_compared_with_those_of_the_same_processor(counted: Counted, outcome: str) -> None:
    (limit,) = limits.parse("instructions", "+1%")
    check = judge._instructions(limit, baseline(this=1000), counted)
    assert check is not None and check.outcome == outcome


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(1.03, 1.2, "broken"), (0.98, 1.02, "kept"), (0.99, 1.5, "unknown"), (1.01, 1.019, "kept")],
)
def test_latency_breaks_only_where_all_of_the_interval_is_slower(low: float, high: float, outcome: str) -> None:
    (limit,) = limits.parse("latency", "no slower")
    comparison = Comparison(first="a", second="b", ratio=(low + high) / 2, low=low, high=high, reason=None)
    assert judge._latency(limit, Timed(comparison, None)).outcome == outcome


WRONG = {
    "unknown key": ("artifacts:\n- model: scn\n  target: [onnx]", ":3: artifacts.0.target: unknown key (did you mean"),
    "unknown figure": (
        "artifacts:\n- {model: scn, targets: [onnx]}\nlimits:\n  sise: +2%",
        ":4: limits.sise: no such figure (did you mean 'size'?)",
    ),
    "wrong unit": (
        "artifacts:\n- model: scn\n  targets: [onnx]\n  limits:\n    size: at most 3 ms",
        ":5: artifacts.0.limits.size: 'at most 3 ms': 'ms' is no unit of size",
    ),
    "no targets": ("artifacts:\n- model: scn", ":2: artifacts.0.targets: this key is missing"),
    "neither": ("artifacts:\n- targets: [onnx]", ":2: artifacts.0: give 'model', or 'file' and 'inputs'"),
    "both": (
        "artifacts:\n- {model: scn, file: a.pt2, inputs: a.npz, targets: [onnx]}",
        "give 'model', or 'file' and 'inputs'",
    ),
    "of the other": (
        "artifacts:\n- model: scn\n  ranking: scores\n  targets: [onnx]",
        ":3: artifacts.0.ranking: does not go with 'model'",
    ),
    "a precision": (
        "artifacts:\n- model: scn\n  targets: [onnx]\n  precisions: [int9]",
        ":4: artifacts.0.precisions.0: 'int9' is not one of",
    ),
    "twice": ("artifacts:\n- model: scn\n  targets: [onnx, onnx]", ":3: artifacts.0.targets: one of them stands twice"),
    "nothing": ("artifacts: []", ":1: artifacts: []"),
    "a list": ("- a", "a configuration is a mapping"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_configuration_is_shown_with_its_line(name: str, tmp_path: Path) -> None:
    text, words = WRONG[name]
    path = tmp_path / "cocorr.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    assert words in str(caught.value), str(caught.value)
    assert str(path) in str(caught.value)


def test_limits_of_an_entry_stand_before_common_ones_and_these_before_defaults(tmp_path: Path) -> None:
    path = tmp_path / "cocorr.yaml"
    path.write_text(
        "artifacts:\n- {model: scn, targets: [onnx], limits: {size: [+1%, at most 4 MB], flops: none}}\n"
        "- {model: din, targets: [onnx]}\nlimits: {size: +5%}"
    )
    first, second = config.load(path).entries
    assert [limit.text for limit in first.limits["size"]] == ["+1%", "at most 4 MB"]
    assert first.limits["flops"] == () and [limit.text for limit in second.limits["flops"]] == ["0"]
    assert [limit.text for limit in second.limits["size"]] == ["+5%"]


def test_what_init_writes_is_read_and_has_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "cocorr.yaml"
    path.write_text(config.first_text([("scn", 'a "folder": #1'), ("din", "é")], ["onnx", "tflite"]))
    first, second = config.load(path).entries
    assert first.checkpoint == tmp_path / 'a "folder": #1' and second.checkpoint == tmp_path / "é"
    assert first.targets == ("onnx", "tflite")
    stated = {name: [limit.text for limit in several] for name, several in first.limits.items()}
    assert stated == {name: [limit.text for limit in several] for name, several in limits.defaults().items()}


NAMES = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=20)


@given(st.dictionaries(NAMES, st.integers(0, 2**60) | st.floats(0, 1), max_size=3))
def test_a_lock_is_read_as_it_was_written_and_written_the_same(
    tmp_path_factory: pytest.TempPathFactory, figures: dict
) -> None:
    path = tmp_path_factory.mktemp("lock") / "cocorr.lock.json"
    locked = Locked(source=SHA, precision="int8", model_sha256=SHA, figures=figures)
    written = Lock(dict.fromkeys(figures, locked), {"torch": "2"})
    lock.write(path, written)
    assert lock.read(path) == written
    assert path.read_bytes() == lock.serialised(written)


@pytest.mark.parametrize(
    ("config_file", "lock_file"),
    [("cocorr.yaml", "cocorr.lock.json"), ("cocorr.yml", "cocorr.yml.lock.json"), ("gate", "gate.lock.json")],
)
def test_each_configuration_has_a_lock_of_its_own(config_file: str, lock_file: str) -> None:
    assert lock.path_of(Path("a") / config_file) == Path("a") / lock_file


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"<<<<<<< HEAD\n",
        b"[]",
        b'{"schema_version":1,"artifacts":{"a":{"source":"../../x"}},"versions":{}}',
    ],
)
def test_a_lock_that_cannot_be_used_says_what_to_do(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cocorr.lock.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="--update"):
        lock.read(path)
