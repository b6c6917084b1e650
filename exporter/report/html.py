"""A report as one page of HTML that needs nothing else: no network, no other file, no script but its own.

What the page may do is in its content policy: the one script and the one style, by their SHA-256. All texts go through
the template's escaping, and what does not print in them is shown as an escape.
"""

import base64
import hashlib
from functools import cache
from typing import TypeVar

import jinja2
from markupsafe import Markup

from exporter.artifact.results import Report
from exporter.report.figures import figures_of
from exporter.report.standing import TONES, headline, what_else_moved
from exporter.report.views import artifact_view, figures_table, limits_table
from safeio.errors import printable

_SIGNS = {"good": "✓", "bad": "✗", "unsure": "?"}

Value = TypeVar("Value")


def html(report: Report) -> str:
    """Return the page of a report."""
    environment, style, script = _templates()
    word, counts = headline(report)
    page: str = environment.get_template("report.html.j2").render(
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; base-uri 'none'",
        style=style,
        script=script,
        word=word,
        counts=counts,
        tone=TONES[report.exit_code] if report.artifacts else "unsure",
        signs=_SIGNS,
        config=report.config,
        lock=report.lock,
        else_moved=what_else_moved(report),
        limits=limits_table(report),
        figures=figures_table(report),
        artifacts=[
            artifact_view(name, checked, figures_of(name, checked))
            for name, checked in ((f"artifact-{at}", checked) for at, checked in enumerate(report.artifacts, start=1))
        ],
    )
    return page


@cache
def _templates() -> tuple[jinja2.Environment, Markup, Markup]:
    """Return what renders templates, and the page's style and script, which are ours and have no name in them."""
    loader = jinja2.PackageLoader(str(__package__))
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (Markup(loader.get_source(environment, name)[0]) for name in ("report.css", "report.js"))  # noqa: S704
    return environment, style, script


def _hash(source: Markup) -> str:
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _shown(value: Value) -> Value | str:
    """Return a value as the page shows it: texts with escapes for what does not print or would turn their direction."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value
