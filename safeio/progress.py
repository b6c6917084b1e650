"""How long work tells of itself: on stderr, in a line that begins with `... ` for each step."""

import sys

from safeio.errors import one_line

_WARNING = "warning: "


def tell(message: str) -> None:
    """Tell of one step in a line of its own; a message that begins with `warning: ` is one."""
    line = one_line(message)
    sys.stderr.write(f"{'' if line.startswith(_WARNING) else '... '}{line}\n")


class PassingLine:
    """A line that is written again and again, for what changes too often to be told of: on a terminal only."""

    def __init__(self) -> None:
        self.is_shown = sys.stderr.isatty()
        self._is_open = False

    def show(self, message: str) -> None:
        """Write the line anew, where there is a terminal."""
        if self.is_shown:
            sys.stderr.write(f"\r{f'... {one_line(message)}':<100}")
            sys.stderr.flush()
            self._is_open = True

    def stay(self, message: str) -> None:
        """Tell of one step in the line's place, and begin a new one."""
        if self.is_shown:
            self.show(message)
            self.end()
        else:
            tell(message)

    def end(self) -> None:
        """Let the line stand as it is, so that others follow below it."""
        if self._is_open:
            sys.stderr.write("\n")
        self._is_open = False
