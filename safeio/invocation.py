"""`python -m MODULE` of a module that is no command would do nothing and exit 0, as if all were well: it is refused."""

import sys
from collections.abc import Iterable
from pathlib import Path


def require_command(package: str, folders: Iterable[str]) -> None:
    """Exit 2 where Python was started with -m and a module of `package`, found in `folders`, that is no command.

    A package calls it while it is imported. Only while Python looks for the module of -m, `-m` stands in the place of
    the program's name.
    """
    if sys.argv[:1] != ["-m"]:
        return
    module = sys.orig_argv[len(sys.orig_argv) - len(sys.argv)].removeprefix("-m")
    if not module.startswith(f"{package}."):
        return
    for folder in folders:
        place = Path(folder, *module.removeprefix(f"{package}.").split("."))
        source = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
        if source.is_file() and '__name__ == "__main__"' not in source.read_text(encoding="utf-8"):
            sys.stderr.write(f"error: {module} is no command; run cocorr-export or cocorr-train, see their --help\n")
            sys.exit(2)
