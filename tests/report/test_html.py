"""The HTML report: one page that needs nothing else, in which names are names and figures those of the manifest."""

import base64
import hashlib
import math
import re
from dataclasses import dataclass, field, replace
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import drawn
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.artifact import store
from exporter.artifact.results import Checked, Report, Result
from exporter.core.sections import Growth, GrowthLine, GrowthLines, GrowthPoint
from exporter.report import plots
from exporter.report.console import print_artifacts
from exporter.report.html import html
from exporter.report.units import bytes_, count, microseconds
from safeio.errors import printable

Capsys = pytest.CaptureFixture[str]
VOID = {"meta", "link", "img", "br", "hr", "input"}
# Attributes that hold a text: what a table is of, and by what a row is sorted.
OF_TEXT = {"aria-label", "data-key"}


@dataclass
class Page(HTMLParser):
    """A page as a browser reads it: elements with their attributes in their order, and the text in each."""

    source: str
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    open: list[int] = field(default_factory=list)
    texts: dict[int, str] = field(default_factory=dict)
    other: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.feed(self.source)
        self.close()
        assert not self.open, [self.elements[at] for at in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.open.pop()][0] == tag

    def handle_data(self, data: str) -> None:
        for at in self.open:
            self.texts[at] = self.texts.get(at, "") + data

    def handle_comment(self, data: str) -> None:
        self.other.append(data)

    def unknown_decl(self, data: str) -> None:
        self.other.append(data)

    def text_of(self, tag: str, **attributes: str) -> str:
        """Return the text of the first element with these attributes."""
        return self.all_texts(tag, **attributes)[0]

    def all_texts(self, tag: str, **attributes: str) -> list[str]:
        found = (
            at for at, (name, has) in enumerate(self.elements) if name == tag and attributes.items() <= has.items()
        )
        return [self.texts.get(at, "") for at in found]

    def skeleton(self) -> list[tuple[str, dict[str, str]]]:
        return [
            (tag, {name: "" if name in OF_TEXT else value for name, value in attributes.items()})
            for tag, attributes in self.elements
        ]


@cache
def plain_skeleton() -> list[tuple[str, dict[str, str]]]:
    return Page(html(drawn.report(drawn.words(("plain",))))).skeleton()


@settings(deadline=None, max_examples=40)
@given(drawn.texts())
def test_no_element_and_no_attribute_comes_of_a_name(name: str) -> None:
    page = Page(html(drawn.report(drawn.words((name,)))))
    assert page.skeleton() == plain_skeleton()
    assert page.other == []
    assert page.source.replace("\n", "").isprintable()  # no control characters, no turned direction
    assert page.text_of("h2", id="artifact-3").startswith(printable(name))
    for _, attributes in page.elements:
        assert not {key for key in attributes if key.startswith("on") or key in {"style", "src", "srcdoc"}}
        assert attributes.get("href", "#").startswith("#")


def test_the_policy_allows_the_one_script_and_the_one_style() -> None:
    source = html(drawn.report(drawn.words(drawn.HOSTILE)))
    page = Page(source)
    (policy,) = (has["content"] for _, has in page.elements if has.get("http-equiv") == "Content-Security-Policy")
    for tag in ("style", "script"):
        (text,) = page.all_texts(tag)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert not re.search(
        r"url\(|@import|fetch|XMLHttp|https?://(?!www\.w3\.org)|innerHTML",
        page.text_of("script") + page.text_of("style"),
    )
    source.encode()


def test_what_has_not_passed_is_never_green() -> None:
    page = Page(html(drawn.report(drawn.words(("x",)))))
    cards = [has["class"] for tag, has in page.elements if tag == "li" and has.get("class", "").startswith("card")]
    assert cards == ["card bad"] * 3
    unverified = replace(drawn.report(drawn.words(("x",))), artifacts=(_unverified(),), gone=())
    page = Page(html(unverified))
    assert "card unsure" in {has.get("class") for _, has in page.elements}
    assert page.text_of("title") == "cocorr-export: unverified"
    assert "badge good" not in {has.get("class") for _, has in page.elements}


def _unverified() -> Checked:
    return Checked(name="x", place="x", manifest=drawn.manifest(drawn.words(("x",)), "unverified"))


@settings(deadline=None, max_examples=20)
@given(drawn.outcomes())
def test_a_report_of_any_outcome_is_a_page(report: Report) -> None:
    page = Page(html(report))
    words = {0: "pass", 1: "fail", 3: "unverified"}
    word = words[report.exit_code] if report.artifacts else "nothing checked"
    assert page.text_of("title") == f"cocorr-export: {word}"
    greens = sum(has.get("class") == "card good" for _, has in page.elements)
    assert greens == sum(checked.exit_code == 0 for checked in report.artifacts)


def test_the_page_has_what_those_need_who_do_not_see_it() -> None:
    page = Page(html(drawn.report(drawn.words(("x",)))))
    tags = [tag for tag, _ in page.elements]
    assert page.elements[0] == ("html", {"lang": "en"})
    assert all(tags.count(tag) == 1 for tag in ("h1", "header", "nav", "main", "footer"))
    levels = [int(tag[1]) for tag in tags if re.fullmatch(r"h\d", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [has["id"] for _, has in page.elements if "id" in has]
    assert len(set(ids)) == len(ids)
    for tag, has in page.elements:
        assert set(has.get("aria-labelledby", ids[0]).split()) <= set(ids), tag
        assert has.get("href", f"#{ids[0]}").removeprefix("#") in ids
        if tag == "svg":
            assert (has["role"], len(has["aria-labelledby"].split())) == ("img", 2)
        if tag == "th":
            assert has["scope"] in {"col", "row"}
        if has.get("role") == "region":
            assert (has["tabindex"], bool(has["aria-label"])) == ("0", True)
    assert tags.count("table") == tags.count("caption") == [has.get("role") for _, has in page.elements].count("region")
    assert tags.count("svg") == tags.count("title") - 1 == tags.count("desc") == 9 + 6
    first_link = next(has for tag, has in page.elements if tag == "a")
    assert first_link == {"class": "skip", "href": "#main"}


def test_the_page_shows_the_figures_of_the_manifest(artifacts: dict[str, Path], capsys: Capsys) -> None:
    """Of a real artifact, and as the console shows them."""
    folder = artifacts["onnx"]
    manifest = store.read_manifest(folder)
    page = Page(html(Report(artifacts=(Checked(name="scn", place=str(folder), manifest=manifest),))))
    print_artifacts([Result(manifest, str(folder))])
    console = capsys.readouterr().out
    shown = dict(re.findall(r"^ *(\S.*?) {2,}(\S.*)$", console, re.M))
    at = next(at for at, (tag, has) in enumerate(page.elements) if has.get("id") == "figures")
    texts = [line for line in page.texts[at].splitlines() if line.strip()]
    rows = dict(zip(texts[3::2], texts[4::2], strict=True))
    rows.pop("verdict")
    assert {label.removeprefix("… "): text for label, text in rows.items()} == {
        label: text for label, text in shown.items() if label in {name.removeprefix("… ") for name in rows}
    }
    assert len(rows) >= 15
    assert manifest.flops is not None
    assert manifest.memory is not None
    factors = {"k": 1e3, "M": 1e6, "kB": 1e3, "MB": 1e6, "": 1.0}
    for label, figure in (
        ("FLOPs per call", manifest.flops.total),
        ("MACs per call", manifest.flops.macs),
        ("constants", manifest.memory.constant_bytes),
        ("planned activations", manifest.memory.planned_activation_bytes),
        ("model size", manifest.size_bytes),
        ("max abs error", manifest.parity.max_abs_error),
        ("Kendall tau", manifest.parity.kendall_tau),
    ):
        number, _, unit = rows[label].partition(" ")
        assert float(number) * factors[unit] == pytest.approx(figure, rel=5e-3), label
    # What is not there says why.
    assert "this report was made without running the artifact" in page.source
    assert str(manifest.flops.per_token_reason) in page.text_of("main")


def test_drawings_say_their_numbers() -> None:
    made = drawn.manifest(drawn.words(("x",)))
    page = Page(html(Report(artifacts=(Checked(name="x", place="x", manifest=made),))))
    words = " ".join(page.all_texts("svg"))
    assert made.memory is not None
    assert made.growth is not None
    for size in (made.memory.embedding_bytes, made.memory.head_bytes, made.memory.planned_activation_bytes):
        assert bytes_(size) in words
    for point in made.growth.points:
        assert f"{count(point.flops)} at {point.tokens} clicks" in words
        assert f"{microseconds(point.p50_us)} at {point.tokens} clicks" in words
    assert "20.090 ms" in words


def numbers_in(drawing: str) -> list[float]:
    """Return all coordinates of a drawing, and hold it to be well-formed."""
    root = ElementTree.fromstring(drawing)
    found = []
    for element in root.iter():
        for name in ("x", "y", "x1", "x2", "y1", "y2", "width", "height", "d"):
            found += [float(text) for text in re.findall(r"-?[\d.]+(?:e[+-]?\d+)?|nan|inf", element.get(name, ""))]
    return found


FLOATS = st.floats(-1e300, 1e300) | st.floats(-10, 10) | st.just(0.0)


@settings(deadline=None)
@given(
    st.lists(st.tuples(FLOATS, FLOATS), min_size=1, max_size=30),
    st.none() | st.floats(0, 1e300),
    st.none() | st.floats(0, 1e300),
)
def test_any_scores_can_be_drawn(
    pairs: list[tuple[float, float]], margin: float | None, tolerance: float | None
) -> None:
    pairs = [(torch, artifact) for torch, artifact in pairs if math.isfinite(artifact - torch)]
    if pairs:
        _is_inside(plots.errors("x", pairs, margin, tolerance))


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e300), min_size=1, max_size=50), st.none() | st.floats(0, 1e300))
def test_any_times_can_be_drawn(samples: list[float], p50: float | None) -> None:
    _is_inside(plots.latencies("x", samples, [("p50", p50), ("p90", None)]))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2**63 - 1), st.none() | st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=6)
)
def test_any_growth_can_be_drawn(figures: list[tuple[int, int | None]]) -> None:
    points = tuple(GrowthPoint(n, 1, 1, None, figure, None, None) for n, figure in figures)
    line = GrowthLine(1e300, -1e300, None, 0.0, ())
    grown = Growth(points=points, lines=GrowthLines(line, line, None, line, None))
    if any(figure is not None for _, figure in figures):
        plots.growth("x", "x", grown, [("x", "artifact_rss_bytes")], bytes_)


def _is_inside(drawing: str) -> None:
    assert all(-20 <= number <= 440 for number in numbers_in(drawing)), drawing
