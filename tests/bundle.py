"""The ARM64 bundle, installed once for all test processes, into a cache folder of the tests' own."""

from pathlib import Path

from installations import installed_once

# What a machine may lack: everything else that goes wrong in an installation is a failure.
LACKING = ("error: apt could not", "error: pip could not", "error: the apt sources", "error: apt-get is not")


def installed(base: Path) -> Path:
    """Return the cache folder (XDG_CACHE_HOME) that holds the bundle; skips where its parts cannot be had."""
    return installed_once(base, "emulator", LACKING)
