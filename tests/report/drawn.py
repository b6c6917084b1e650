"""Reports that are made up: all texts in them come from the test, and may be anything."""

from collections.abc import Callable, Iterator
from itertools import cycle
from typing import get_args

from hypothesis import strategies as st

from exporter.artifact.manifest import Manifest
from exporter.artifact.results import Checked, Report
from exporter.core.checks import Evidence, LimitCheck, Outcome
from exporter.core.explanation import Located, OffValue
from exporter.core.sections import (
    Budget,
    Comparison,
    Exchange,
    Flops,
    Growth,
    GrowthLine,
    GrowthLines,
    GrowthPoint,
    Latency,
    Memory,
    Network,
    Parity,
    Source,
    Tensor,
    Tolerance,
    Transfer,
    Uncounted,
)
from exporter.core.types import Verdict

HOSTILE = (
    "<script>document.title='owned'</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "]]>",
    "--><!-- </style></script></svg></title>",
    "{{ 7 * 7 }}{% raw %}",
    "a | b | c",
    "`code` ``` more",
    "@here @octocat/team a@b.example",
    "[x](javascript:alert(1)) ![y](https://evil.example/y.png)",
    "https://evil.example www.evil.example <https://evil.example>",
    "#1 GH-2 owner/name#3",
    "<!-- gone",
    "</details><h1>",
    "**bold** _soft_ ~~out~~ $x$ &lt; &#60; \\",
    "line\n\n# next\r\n- more\n\n    code",
    "\x00\x01\x1b[31m\x7f\x9f",
    "\u202egnp.exe\u2066\u200b\ufeff",
    "\ud800 \ufffe",
    "%0A::error::owned",
)
Words = Callable[[], str]


def words(texts: tuple[str, ...]) -> Words:
    """Return what gives one text after the other, from the first again after the last."""
    endless: Iterator[str] = cycle(texts)
    return lambda: next(endless)


def texts() -> st.SearchStrategy[str]:
    """Draw texts of strangers: known tricks, and what hypothesis finds."""
    return st.sampled_from(HOSTILE) | st.text(min_size=1, max_size=30).filter(str.strip)


def manifest(word: Words, verdict: Verdict = "pass", budgets: tuple[Budget, ...] | None = ()) -> Manifest:
    """Return a manifest in which each figure is known, and each text is one of `word`."""
    line = GrowthLine(2.5, 10.0, 0.99, 1.0, (2.5, 2.5))
    points = tuple(GrowthPoint(n, 1000 * n, 400 * n, 64 * n, 4096 * n, 1.5 * n, word()) for n in (10, 15, 20))
    output = word()
    return Manifest(
        model=word(),
        program=word(),
        target=word(),
        profile=word(),
        precision="fp32",
        options={},
        threads=1,
        model_file="model",
        files=(),
        size_bytes=3_256_761,
        parameters=800_974,
        inputs=(Tensor(word(), (1, 10), "int32"),),
        outputs=(Tensor(output, (1, 100), "float32"),),
        ranking=output,
        exchange=Exchange((output,), ()),
        source=Source(),
        parity=Parity(
            verdict=verdict,
            reason=word(),
            executed_on=word(),
            cases=256,
            max_abs_error=3.8e-6,
            max_rel_error=1.2e-5,
            top10_overlap=1.0,
            kendall_tau=0.999,
            flip_margin=2.7e-5,
            could_flip=3,
            ranking_reason=word(),
            tolerance=Tolerance({output: 1e-4}, 1.0),
        ),
        flops=Flops(
            unit=word(),
            total=1_220_325,
            macs=571_072,
            moved_bytes=44_162,
            uncounted=(Uncounted(word(), 2),),
            by_kind={word(): 5},
            delegates=(),
            per_token=None,
            per_token_method=None,
            per_token_reason=word(),
        ),
        memory=Memory(
            constant_bytes=3_248_772,
            embedding_bytes=3_104_880,
            body_bytes=127_228,
            head_bytes=16_664,
            planned_activation_bytes=51_456,
            plan_method=word(),
            peak_rss_bytes=64_126_976,
            baseline_rss_bytes=48_574_464,
            artifact_rss_bytes=15_552_512,
            rss_method=word(),
            reason=word(),
        ),
        latency=Latency(
            connection=word(),
            threads=1,
            warmup=20,
            iterations=200,
            load_ms=24.5,
            first_us=2699.3,
            p50_us=116.6,
            p90_us=129.1,
            p99_us=144.6,
            call_us=6.6,
            call_method=word(),
            instructions=686_361,
            conditions={word(): word()},
            reason=word(),
        ),
        budgets=budgets,
        growth=Growth(method=word(), points=points, lines=GrowthLines(line, line, line, line, line)),
        network=Network(
            method=word(),
            up={output: 400},
            down={},
            up_bytes=400,
            down_bytes=0,
            device_us=116.6,
            links=tuple(Transfer(word(), 0.08, 0.01, trip, 0.09 + (trip or 0), 0.7) for trip in (None, 20.0)),
        ),
    )


def evidence(word: Words) -> Evidence:
    """Return what a run might have shown, one value of its graph beyond its bound and one not finite."""
    scores = tuple(i / 7 - 5 for i in range(70))
    values = tuple(
        OffValue(
            module=word(),
            operation=word(),
            node=word(),
            own_name=word(),
            own_operation=word(),
            matched_by="name",
            shape=(1, 64),
            max_abs_error=error,
            relative_rms=error,
            bound=1e-4,
            not_finite=0 if error is not None else 7,
            is_beyond=error is None or error > 1e-4,
            growth=None,
        )
        for error in (0.0, 1e-7, 3e-7, 2e-3, None)
    )
    return Evidence(
        torch=scores,
        artifact=tuple(score + 1e-6 * (at % 5 - 2) for at, score in enumerate(scores)),
        sampling=word(),
        samples_us=tuple(110 + at % 13 + (400 if at == 90 else 0) for at in range(200)),
        executed_on=word(),
        located=Located(method=word(), executed_on=word(), values=values, first_beyond=3, reason=word()),
    )


def limit(word: Words, outcome: Outcome, value: float | str | None = 3_354_464) -> LimitCheck:
    """Return a limit of a figure that moved."""
    return LimitCheck(
        figure=word(),
        unit="B",
        limit=word(),
        line=12,
        baseline=3_256_761 if value is not None else word(),
        value=value if value is not None else word(),
        change=0.03,
        outcome=outcome,
        reason=word(),
    )


def report(word: Words) -> Report:
    """Return a report with an artifact of each kind: one that passes, one that is unverified, and none."""
    comparison = Comparison(
        first=word(),
        second=word(),
        p50_us=(100.0, 90.0),
        ratio=0.9,
        low=0.88,
        high=0.92,
        faster=word(),
        reason=word(),
    )
    limits = (*(limit(word, outcome) for outcome in get_args(Outcome)), limit(word, "kept", None))
    over = (Budget("size_bytes", 3_000_000, 3_256_761, False, word()), Budget("latency_us", 5, None, None, word()))
    return Report(
        artifacts=(
            Checked(
                name=word(),
                place=word(),
                manifest=manifest(word),
                limits=limits,
                comparison=comparison,
                evidence=evidence(word),
            ),
            Checked(
                name=word(), place=word(), manifest=manifest(word, "unverified", over), evidence=Evidence(reason=word())
            ),
            Checked(name=word(), place=None, manifest=None, error=word(), line=31),
        ),
        config=word(),
        lock=word(),
        versions={word(): (word(), word())},
        gone=(word(),),
    )


@st.composite
def outcomes(draw: st.DrawFn) -> Report:
    """Draw reports whose artifacts stand in any way, with plain names."""
    word = words(("x",))
    found = []
    for _ in range(draw(st.integers(0, 4))):
        limits = tuple(limit(word, outcome) for outcome in draw(st.lists(st.sampled_from(get_args(Outcome)))))
        within = draw(st.lists(st.sampled_from((True, False, None)), max_size=2))
        budgets = tuple(Budget("size_bytes", 10, 5, state, None) for state in within)
        made = draw(st.none() | st.sampled_from(get_args(Verdict)).map(lambda v, b=budgets: manifest(word, v, b)))
        found.append(Checked(name="x", place="x", manifest=made, limits=limits, error=None if made else "x"))
    return Report(artifacts=tuple(found), gone=("x",) * draw(st.integers(0, 2)))
