"""Which tests run first and which can run apart, so that two test processes end at about the same time.

pytest-xdist hands a file's tests to one process (`--dist loadfile`), which makes what they share once. In some files
the tests share nothing but what all processes share anyway; each of those is handed out by itself.
"""

import pytest
from xdist.scheduler import LoadFileScheduling

# The files that take long, those that take longest first; all others come after them, in their own order.
LONG = (
    "connections/test_remote.py",
    "test_export.py",
    "test_ofa_weights.py",
    "connections/test_emulator.py",
    "test_matrix.py",
    "test_ofa.py",
    "benchmarks/test_faults.py",
    "models/test_training.py",
    "test_profile.py",
    "connections/test_browser_phones.py",
    "connections/test_browser.py",
    "mil/test_networks.py",
    "mil/test_zoo.py",
    "test_importing.py",
    "test_cli.py",
    "connections/test_host_runtimes.py",
    "test_profiles.py",
    "gate/test_check.py",
    "ci/test_action.py",
    "report/test_page.py",
    "targets/test_counts.py",
    "targets/test_read.py",
    "mil/test_scn.py",
    "benchmarks/test_state_drift.py",
    "benchmarks/test_accuracy.py",
    "connections/test_host_failures.py",
    "safeio/test_command.py",
    "models/test_resume.py",
    "models/test_forward_ofa.py",
)
APART = {"connections/test_emulator.py", "test_matrix.py", "test_ofa.py", "test_profile.py"}
APART |= {"models/test_training.py", "test_cli.py", "test_profiles.py", "benchmarks/test_accuracy.py"}


def file_of(nodeid: str) -> str:
    """Return the file of a test, below tests/."""
    return nodeid.partition("::")[0].removeprefix("tests/")


def longest_first(items: list[pytest.Item]) -> None:
    """Sort tests by their files; those of one file stay as they are."""
    rank = {file: place for place, file in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(file_of(item.nodeid), len(LONG)))


class LongestFirst(LoadFileScheduling):
    """Hands out a file at a time, and of the files in APART a test at a time."""

    def __init__(self, config: pytest.Config, log: object) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False  # it would put first what has the most tests, not the longest ones

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if file_of(nodeid) in APART else super()._split_scope(nodeid)
