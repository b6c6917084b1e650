"""What is said where other things stand at a place than those that shall go there."""

from pathlib import Path

import pytest

from safeio import places
from safeio.errors import OutputError

HELD = {"sample": "all", "versions": {"torch": "2.9", "numpy": "1", "old": "3"}, "options": {"a": 1}}
ASKED = {"sample": 5, "versions": {"torch": "2.9", "numpy": "2", "new": "4"}, "options": {"a": 1}}


def test_of_facts_with_parts_those_that_differ_are_named() -> None:
    told = "sample all and not 5, versions numpy 1 and not 2, versions new nothing and not 4, versions old 3 and not"
    with pytest.raises(OutputError, match=f"x holds another run: {told} nothing; choose another --packages, or"):
        places.check_facts(Path("x"), "run", HELD, ASKED, "--packages")
