"""Where what is fetched for connections lies: the user's cache folder (XDG_CACHE_HOME, else ~/.cache)."""

import os
from pathlib import Path

from exporter.core.errors import RuntimeMissingError


def cache_folder(part: str) -> Path:
    """Return the folder of one part; raises RuntimeMissingError for a user who has no place for a cache."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if not base.is_absolute():
        try:
            base = Path.home() / ".cache"
        except RuntimeError as error:  # a user id without an account, as in some containers
            raise RuntimeMissingError("this user has no home folder; name a cache folder in XDG_CACHE_HOME") from error
    return base / "cocorr-export" / part
