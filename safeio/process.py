"""A process that is a command's own: nobody else's code runs in it, and nobody goes on with it.

Two seconds of an export went into looks for garbage while torch and a converter were imported, two more into taking
apart at the end what the system takes back at once, and six of one for Core ML into packages that nothing used.
"""

import atexit
import contextlib
import gc
import os
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

_alone = False


def alone(main: Callable[[], NoReturn]) -> NoReturn:
    """Run a command in a process of its own, and end the process as soon as `main` raises SystemExit.

    What was registered to run at the end does run; objects are not taken apart, and threads are not waited for.
    """
    global _alone
    _alone, code = True, 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    atexit._run_exitfuncs()
    os._exit(code)


def is_alone() -> bool:
    """Say whether the process is a command's own."""
    return _alone


@contextlib.contextmanager
def importing(*unneeded: str) -> Iterator[None]:
    """Import large packages in the body, without looks for garbage: what a module makes stays.

    In a process of our own these objects are left out of all later looks too, and `unneeded` are packages that what is
    imported would use where they are installed: for that time they are not. Elsewhere others may want them.
    """
    collects = gc.isenabled()
    absent = [name for name in unneeded if _alone and name not in sys.modules]
    gc.disable()
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None is how Python is told so
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]
        if _alone:
            gc.freeze()
        if collects:
            gc.enable()
