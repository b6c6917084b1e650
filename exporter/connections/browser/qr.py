"""A URL as a QR code for a terminal."""

import io
import os
import sys

_BLACK_ON_WHITE, _AS_BEFORE = "\x1b[97;40m", "\x1b[0m"  # the light parts are drawn: a phone wants them light


def qr_code(url: str) -> str | None:
    """Return the lines of a code, some 40 columns wide, or None where stderr lacks the signs or the width."""
    import segno

    drawn = io.StringIO()
    segno.make_qr(url, error="L").terminal(drawn, border=2, compact=True)
    text = drawn.getvalue()
    try:
        text.encode(sys.stderr.encoding or "ascii")
    except UnicodeEncodeError:
        return None
    lines = text.rstrip("\n").split("\n")
    if sys.stderr.isatty():
        if 0 < os.get_terminal_size(sys.stderr.fileno()).columns < len(lines[0]):  # 0: it does not tell
            return None
        lines = [f"{_BLACK_ON_WHITE}{line}{_AS_BEFORE}" for line in lines]
    return "\n".join(lines) + "\n"
