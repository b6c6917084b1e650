"""What runs artifacts in a browser, installed once for all test processes, into a cache folder of the tests' own."""

from pathlib import Path

from installations import installed_once

from exporter.connections import cache
from exporter.connections.browser import packages
from exporter.pipeline import reach

# What a machine may lack: everything else that goes wrong in an installation is a failure.
LACKING = ("error: npm could not fetch", "error: npm, from which")


def web_packages(base: Path) -> Path:
    """Return the cache folder (XDG_CACHE_HOME) that holds the pinned packages; skips where npm cannot fetch them.

    Where this user has them, those are taken.
    """
    if all(map(packages.is_whole, reach.web_packages())):
        return cache.cache_folder("browser").parent.parent
    return installed_once(base, "browser", LACKING)
