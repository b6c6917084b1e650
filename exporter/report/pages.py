"""Pages of HTML that need nothing else: no network, no other file, no script but the project's own.

What a page may do is in its content policy: the one style, and the one script where it has one, by their SHA-256. All
texts go through the template's escaping, and what does not print in them is shown as an escape.
"""

import base64
import hashlib
from functools import cache
from typing import TypeVar

import jinja2
from markupsafe import Markup

from safeio.errors import printable

_SIGNS = {"good": "✓", "bad": "✗", "unsure": "?"}

Value = TypeVar("Value")


def render(name: str, *, has_script: bool, **shown: object) -> str:
    """Return the page that a template makes of what is shown; with `has_script`, it can sort its tables."""
    environment, style, script = _templates()
    may_run = _hash(script) if has_script else "'none'"
    return environment.get_template(name).render(
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {may_run}; base-uri 'none'",
        style=style,
        script=script if has_script else None,
        signs=_SIGNS,
        **shown,
    )


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
