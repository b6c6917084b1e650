"""The exhaustive side of the interpreter's tests, one part per run.

    python benchmarks/sweep_mil.py networks      six networks x iOS 15 to 18 x fp32, fp16, palettised, int8 (20 minutes)
    python benchmarks/sweep_mil.py zoo           some 500 torch functions x iOS 15 to 18 x fp32, fp16 (15 minutes)
    python benchmarks/sweep_mil.py suite         coremltools' own tests of its operations (5 hours; --most 24: 1 hour)
    python benchmarks/sweep_mil.py torch-suite   coremltools' own tests of its torch frontend (a day; --most 1)

Each prints what it did and what failed; exit status 1 if anything did.
"""

import argparse
import logging
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests" / "mil"
SUITES = {"suite": "mil/ops/tests", "torch-suite": "frontend/torch/test/test_torch_ops.py"}


def main() -> int:
    """Parse the command line and run one part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=["networks", "zoo", *SUITES])
    parser.add_argument("--most", type=int, default=0, help="parametrisations of each test of a suite; 0 for all")
    options = parser.parse_args()
    sys.path.insert(0, str(TESTS))
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if options.part in SUITES:
        return suite(SUITES[options.part], options.most)
    with tempfile.TemporaryDirectory() as folder:
        return {"networks": networks, "zoo": zoo}[options.part](Path(folder))


def suite(name: str, most: int) -> int:
    """Run coremltools' own tests with the interpreter in the place of Core ML."""
    import coremltools
    import coremltools_suite

    target = Path(coremltools.__file__).parent / "converters" / "mil" / name
    command, environment = coremltools_suite.command([target], most)
    return subprocess.run(command, env=environment).returncode


def networks(folder: Path) -> int:
    """Compare every network at every release and precision with torch."""
    import coremltools
    import numpy as np
    from mil_networks import NAMES
    from test_networks import BOUNDS, PRECISIONS, RELEASES, converter

    from exporter import mil

    convert = converter(coremltools, folder)
    failed = 0
    for name in NAMES:
        for release in RELEASES:
            for precision in PRECISIONS:
                if release == 15 and not precision.startswith("fp"):
                    continue
                path, given, expected, _ = convert(name, release, precision)
                program = mil.load(path)
                (output,) = program.run({program.inputs[0].name: given}).values()
                error = float(np.abs(output - expected).max() / np.abs(expected).max())
                verdict = "ok" if error <= BOUNDS[precision] else "FAILED"
                failed += verdict != "ok"
                print(
                    f"{name:10} iOS{release} {precision:10} {error:.1e} of {BOUNDS[precision]:.0e} {verdict}",
                    flush=True,
                )
    print(f"{failed} failed")
    return int(failed > 0)


def zoo(folder: Path) -> int:
    """Compare every function of the zoo at every release in both precisions with torch."""
    import coremltools
    from test_zoo import BATCHES, RELEASES, agree, evaluate

    checked = failed = 0
    for number, batch in enumerate(BATCHES):
        for release in RELEASES:
            for half in (False, True):
                for name, (ours, expected) in evaluate(coremltools, folder, batch, release, half).items():
                    checked += 1
                    try:
                        agree(ours, expected, half)
                    except AssertionError:
                        failed += 1
                        print(f"{name} iOS{release} {'fp16' if half else 'fp32'} FAILED", flush=True)
        print(f"batch {number + 1} of {len(BATCHES)}", flush=True)
    print(f"{checked} comparisons, {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
