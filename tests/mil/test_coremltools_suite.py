"""A share of coremltools' own tests, with the interpreter in the place of Core ML; benchmarks/sweep_mil.py runs all."""

import re
import subprocess
from pathlib import Path

import coremltools_suite

# Where the expected values were made by hand from the runtime's behaviour, or no other judge exists.
FILES = (
    "iOS14/test_control_flow.py",
    "iOS14/test_recurrent.py",
    "iOS15/test_image_resizing.py",
    "iOS16/test_image_resizing.py",
    "iOS17/test_image_resizing.py",
    "iOS17/test_normalization.py",
    "iOS17/test_scatter_gather.py",
    "iOS18/test_compression.py",
    "iOS18/test_states.py",
)
MOST = 1


def test_a_share_of_coremltools_own_tests_passes(coremltools):
    folder = Path(coremltools.__file__).parent / "converters" / "mil" / "mil" / "ops" / "tests"
    command, environment = coremltools_suite.command([folder / name for name in FILES], MOST)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    counts = {kind: int(number) for number, kind in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    assert done.returncode == 0, done.stdout[-3000:]
    assert counts.get("passed", 0) >= 10, done.stdout[-500:]
    # Each dispute is with a test that exists and fails for the reason given.
    for number, (_, reason) in enumerate(coremltools_suite.DISPUTED):
        assert f"dispute {number}: {reason}" in done.stdout
