"""The HTML report in a real browser: what it does, what it asks for, and whether a person can use it."""

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import drawn
import pytest
from browser import Page

from exporter.report.html import html

HOSTILE = (
    "\"'><script>window.hit=1</script><img src=x onerror=window.hit=2><svg onload=window.hit=3>"
    "</title></style></script><script>window.hit=4</script>{{7*7}}<a href=javascript:window.hit=5>x</a>"
    "<meta http-equiv=refresh content=0;url=http://127.0.0.1:9/>\u202e"
)
LONG = "a/model-with-a-name-that-never-ends/" + "x" * 300
DESKTOP, PHONE = 1280, 360
LOOKS = tuple(itertools.product((DESKTOP, PHONE), ("light", "dark")))


# figure -> by how much it changed: as texts in another order than as numbers
CHANGES = {"size": 1.0, "flops": -0.9992, "memory": None, "kendall_tau": 0.09, "instructions": 0.0, "uncounted": -0.02}


def opened(page: Page, folder: Path, name: str, width: int = DESKTOP, scheme: str = "light") -> str:
    """Open the page of a report with such names, in which figures moved as in CHANGES; return its URL."""
    word = drawn.words((name,))
    report = drawn.report(word)
    moved = tuple(replace(drawn.limit(word, "kept"), figure=figure, change=by) for figure, by in CHANGES.items())
    first, *others = report.artifacts
    report = replace(report, artifacts=(replace(first, limits=(*first.limits, *moved)), *others))
    file = folder / "report.html"
    file.write_text(html(report))
    page.look(width, scheme=scheme)
    page.open(file.as_uri())
    return file.as_uri()


def column(page: Page, at: int) -> list[str]:
    """Return what the cells of a column of the sortable table say, from top to bottom."""
    body = "document.querySelector('table:has(th button)').tBodies[0]"
    rows: list[str] = page.evaluate(f"[...{body}.rows].map(row => row.cells[{at}].textContent.trim())")
    return rows


def sorted_by(page: Page) -> list[Any]:
    """Return aria-sort of all headers of that table."""
    headers = "[...document.querySelectorAll('table:has(th button) th:has(button)')]"
    orders: list[Any] = page.evaluate(f"{headers}.map(header => header.getAttribute('aria-sort'))")
    return orders


@pytest.mark.parametrize("name", ["scn/rerank", HOSTILE, LONG], ids=["plain", "hostile", "long"])
@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_it_is_all_in_the_page(page: Page, tmp_path: Path, name: str, width: int, scheme: str) -> None:
    url = opened(page, tmp_path, name, width, scheme)
    assert page.complaints() == []
    assert page.requests() == [url]
    assert page.evaluate("window.hit") is None
    assert page.evaluate("document.querySelectorAll('script').length") == 1
    assert page.evaluate("innerWidth") == width
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_names_are_shown_as_they_are(page: Page, tmp_path: Path) -> None:
    opened(page, tmp_path, HOSTILE)
    assert HOSTILE.removesuffix("\u202e") in page.evaluate("document.body.textContent")
    made = "[...document.querySelectorAll('main img, main script, a[href^=javascript], [onload], [onerror]')].length"
    assert page.evaluate(made) == 0


def test_a_page_that_is_not_right_is_noticed(page: Page, tmp_path: Path) -> None:
    """Without this, the tests above would pass a browser that told of nothing."""
    policy = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">"
    file = tmp_path / "bad.html"
    file.write_text(f"{policy}<p style='width:2000px'><script>window.hit=1</script><img src=http://127.0.0.1:9/x.png>")
    page.look(PHONE)
    page.open(file.as_uri())
    assert len([line for line in page.complaints() if "ContentSecurityPolicyIssue" in line]) >= 3
    assert page.requests() == [file.as_uri(), "http://127.0.0.1:9/x.png"]
    file.write_text("<script>console.error('a'); lost()</script>")
    page.open(file.as_uri())
    assert len(page.complaints()) == 2


def test_a_click_sorts(page: Page, tmp_path: Path) -> None:
    opened(page, tmp_path, "scn")
    assert set(sorted_by(page)) <= {None, "none"}
    headers = page.evaluate("[...document.querySelectorAll('table:has(th button) th')].map(th => th.textContent)")
    at = next(n for n, text in enumerate(headers) if "figure" in text.lower())
    before = column(page, at)
    button = f"table:has(th button) th:nth-child({at + 1}) button"
    page.click(button)
    ascending = column(page, at)
    assert ascending == sorted(ascending, key=str.lower) and ascending != before
    assert sorted_by(page).count("ascending") == 1
    page.click(button)
    assert column(page, at) == sorted(ascending, key=str.lower, reverse=True)
    assert sorted_by(page).count("descending") == 1 and "ascending" not in sorted_by(page)
    assert page.complaints() == []


def test_numbers_sort_as_numbers_and_what_is_not_known_comes_last(page: Page, tmp_path: Path) -> None:
    opened(page, tmp_path, "scn")
    headers = page.evaluate("[...document.querySelectorAll('table:has(th button) th')].map(th => th.textContent)")
    at = next(n for n, text in enumerate(headers) if "change" in text.lower())
    page.click(f"table:has(th button) th:nth-child({at + 1}) button")
    shown = column(page, at)
    known = [text for text in shown if text != "-"]
    assert shown[: len(known)] == known and len(known) < len(shown)
    changes = [float(re.sub(r"[% ]", "", text)) for text in known]
    assert changes == sorted(changes) and changes[0] < 0 < changes[-1]


def test_keys_reach_all_that_can_be_used(page: Page, tmp_path: Path) -> None:
    opened(page, tmp_path, "scn", PHONE)
    can = "document.querySelectorAll('a[href], button, [role=region][tabindex=\"0\"]')"
    count = page.evaluate(f"{can}.length")
    reached = set()
    for _ in range(count):
        page.press("Tab")
        reached.add(page.evaluate(f"[...{can}].indexOf(document.activeElement)"))
    assert reached == set(range(count))
    page.evaluate("document.querySelector('th button').focus()")
    page.press("Enter")
    assert "ascending" in sorted_by(page)
    page.press(" ")
    assert "descending" in sorted_by(page)
    wide = (
        "[...document.querySelectorAll('[role=region][tabindex=\"0\"]')].find(one => one.scrollWidth > one.clientWidth)"
    )
    page.evaluate(f"{wide}.focus()")
    page.press("ArrowRight")
    assert page.evaluate(
        f"new Promise(done => {{ const one = {wide}; const look = () => one.scrollLeft > 0 ? done(true)"
        " : requestAnimationFrame(look); look(); })"
    )


def test_what_has_the_focus_is_seen(page: Page, tmp_path: Path) -> None:
    opened(page, tmp_path, "scn")
    for _ in range(12):
        page.press("Tab")
        outline = page.evaluate("(({outline}) => outline)(getComputedStyle(document.activeElement))")
        assert "none" not in outline and not re.search(r"\b[01]px", outline)


def test_it_prints(page: Page, tmp_path: Path) -> None:
    opened(page, tmp_path, "scn", DESKTOP, "dark")
    page.look(DESKTOP, scheme="dark", media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") in (
        "rgb(255, 255, 255)",
        "rgba(0, 0, 0, 0)",
    )
    hidden = (
        "[...document.querySelectorAll('[role=region]')].filter(one => getComputedStyle(one).overflowX != 'visible')"
    )
    assert page.evaluate(f"{hidden}.length") == 0
    assert page.print().startswith(b"%PDF")
    assert page.complaints() == []


def serious(page: Page, axe: str) -> list[tuple[str, list[Any]]]:
    """Return the rules of axe-core that a page breaks seriously or worse, and where."""
    page.evaluate(f"{axe}; 0")
    result = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    assert len(result["passes"]) > 5
    rows = [rule for rule in result["violations"] if rule["impact"] in ("serious", "critical")]
    return [(rule["id"], [node["target"] for node in rule["nodes"]][:3]) for rule in rows]


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_axe_finds_nothing_serious(page: Page, tmp_path: Path, axe: str, width: int, scheme: str) -> None:
    opened(page, tmp_path, "scn", width, scheme)
    assert serious(page, axe) == []


# The least contrast of words in plots with the ground that they stand on, by WCAG 2's formula.
CONTRAST = """
(() => {
  const light = (color) => {
    const [r, g, b] = color.match(/[0-9.]+/g).slice(0, 3).map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    const color = getComputedStyle(node).backgroundColor;
    return color === "rgba(0, 0, 0, 0)" ? ground(node.parentElement) : color;
  };
  const ratios = [...document.querySelectorAll("svg text")].map((text) => {
    const [low, high] = [light(getComputedStyle(text).fill), light(ground(text.parentElement))].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  });
  return [ratios.length, Math.min(...ratios)];
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_in_plots_can_be_read(page: Page, tmp_path: Path, scheme: str) -> None:
    """axe-core says of these that it cannot tell."""
    opened(page, tmp_path, "scn", DESKTOP, scheme)
    count, least = page.evaluate(CONTRAST)
    assert count > 20 and least >= 4.5


def test_axe_would_find_it(page: Page, tmp_path: Path, axe: str) -> None:
    file = tmp_path / "bad.html"
    file.write_text("<html lang=en><title>a</title><main><h1>a</h1><p style='color:#ccc'>pale</p><svg role=img></svg>")
    page.open(file.as_uri())
    assert {rule for rule, _ in serious(page, axe)} == {"color-contrast", "svg-img-alt"}
