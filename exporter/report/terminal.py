"""The one console: text is shown as it is, since names and messages of strangers may look like rich's own markup."""

import sys

from rich.console import Console

VERDICT_STYLES = {"pass": "bold green", "fail": "bold red", "unverified": "bold yellow"}


def console(soft_wrap: bool = False) -> Console:
    """Return a console on stdout; with `soft_wrap`, a line is never folded, so that it can be copied."""
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False, soft_wrap=soft_wrap)
