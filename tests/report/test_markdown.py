"""Markdown for a pull request: what moved, in GitHub's bounds, and no markup of anybody's names."""

import re
from dataclasses import replace
from functools import cache

import drawn
from hypothesis import example, given, settings
from markdown_it import MarkdownIt
from markdown_it.token import Token

from exporter.artifact.results import Checked, Report
from exporter.report.markdown import MOST_BYTES, markdown
from safeio.errors import printable

# GitHub's own Markdown as far as there is a reader of it in Python: tables, bare links, HTML.
GFM = MarkdownIt("gfm-like", {"html": True, "linkify": True})
TEXTS = {"text", "text_special", "softbreak", "html_block"}
# What GitHub makes of words after it has read the Markdown: it calls people, and links issues and addresses.
CALLS = re.compile(r"(?i)@[\w-]|#\d|\bGH-\d|://|\bwww\.")


def tokens(text: str) -> list[Token]:
    """Return the tokens of a text in their order, those of a line in the place of the line."""
    return [inner for token in GFM.parse(text) for inner in (token.children or [token])]


def skeleton(text: str) -> list[tuple[str, str]]:
    return [(token.type, token.tag) for token in tokens(text) if token.type not in TEXTS]


@cache
def plain_skeleton() -> list[tuple[str, str]]:
    return skeleton(markdown(drawn.report(drawn.words(("plain",)))))


@settings(deadline=None, max_examples=60)
@example("-")
@example("1. one")
@example("+ one")
@given(drawn.texts())
def test_a_name_makes_no_markup(name: str) -> None:
    made = markdown(drawn.report(drawn.words((name,))))
    made.encode()
    assert skeleton(made) == plain_skeleton()
    for token in tokens(made):
        if token.type in TEXTS - {"html_block"}:
            assert not CALLS.search(token.content), token.content
        if token.type == "html_block":  # ours, with a name in <code>
            tags = re.sub(r"<code>[^<>]*</code>", "", token.content)
            assert set(re.findall(r"<[^>]*>", tags)) <= {"<details>", "</details>", "<summary>", "</summary>"}
    names = {token.content for token in tokens(made) if token.type == "code_inline"}
    assert names == {printable(name).replace("`", r"\x60").replace("|", r"\x7c").strip()}


def test_the_verdict_and_what_moved_come_first() -> None:
    made = markdown(drawn.report(drawn.words(("scn",))))
    lines = made.splitlines()
    assert lines[0] == "### ❌ cocorr-export of `scn`: fail"
    counts = "1 limit broken; 1 unverified, over budget, budget not known; 1 no artifact"
    assert lines[2] == f"3 artifacts: {counts}; 1 in the baseline and not checked."
    table = [line for line in lines if line.startswith("| `scn` |")]
    assert table[0] == "| `scn` | scn | 3,256,761 B | 3,354,464 B | +3 % | scn (line 12) | ❌ broken: scn |"
    outcomes = [row.split(" | ")[-1].split(":")[0].split(" ")[1] for row in table]
    assert outcomes == ["broken", "broken", "unknown", "unknown", "kept"]
    assert made.index("| max abs error | 3.80e-06 |") > made.index("<details>") > made.index(table[-1])
    assert "- scn was scn in the baseline and is scn" in lines


def test_a_report_of_many_artifacts_fits_and_says_what_it_leaves_out() -> None:
    word = drawn.words(("n" * 400, "#1 |" * 80))
    broken = drawn.report(word).artifacts[0]
    many = Report(artifacts=tuple(replace(broken, name=f"artifact {at}") for at in range(300)))
    made = markdown(many)
    assert len(made.encode()) <= MOST_BYTES
    reasons = made.count("**limit broken**")
    assert f"- and {300 - reasons} more artifacts do not pass" in made
    rows = sum(line.startswith("| `artifact") for line in made.splitlines())
    moved = 300 * 4
    assert f"{moved - rows} more rows are left out here" in made
    folded = made.count("<details>")
    assert f"The figures of {300 - folded} more artifacts are left out here" in made
    assert min(reasons, rows, folded) >= 1


def test_figures_that_stay_are_counted_and_not_listed() -> None:
    word = drawn.words(("x",))
    still = replace(drawn.limit(word, "kept"), value=3_256_761, change=0.0)
    passing = Checked(name="x", place="x", manifest=drawn.manifest(word), limits=(still, still))
    made = markdown(Report(artifacts=(passing,)))
    assert made.startswith("### ✅ cocorr-export: pass")
    assert "Nothing that has a limit." in made
    assert "| artifact |" not in made
