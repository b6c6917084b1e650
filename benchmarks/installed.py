"""The wheel in a new environment of each Python that is here, without torch: does it judge and profile artifacts?

    python benchmarks/installed.py ARTIFACTS [--python /path/to/python3.12 ...]

ARTIFACTS is the folder of a program under a profile, such as artifacts/scn/rerank/generic, with one for each target.
Downloads what the extras onnx, coreml and tflite name, some 80 MB for each Python, into a temporary place.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("python3.11", "python3.12", "python3.13")
EXTRAS = ("onnx", "coreml", "tflite")
# What the installed package needs is measured, not what comes with every environment.
SIZE = """
import importlib.metadata as metadata
names = [one for one in metadata.distributions() if one.name not in ("pip", "setuptools")]
files = {file.locate().resolve() for one in names for file in one.files or () if file.suffix != ".pyc"}
print(sum(file.stat().st_size for file in files if file.is_file()))
"""


def found(pythons: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Give version and path of each Python that is here and starts."""
    for python in pythons:
        path = shutil.which(python)
        if path is not None:
            done = subprocess.run([path, "--version"], capture_output=True, text=True)
            if done.returncode == 0:
                yield done.stdout.split()[-1], path


def smoke(python: str, wheel: Path, artifacts: Path, folder: Path) -> str:
    """Install the wheel into a new environment in `folder` and use it; return a line of what came out."""
    subprocess.run([python, "-m", "venv", folder / "venv"], check=True)
    own = folder / "venv" / "bin" / "python"
    wanted = f"cocorr-export[{','.join(EXTRAS)}] @ {wheel.as_uri()}"
    subprocess.run([own, "-m", "pip", "install", "--quiet", wanted], check=True)
    size = int(subprocess.run([own, "-c", SIZE], check=True, capture_output=True, text=True).stdout)
    if subprocess.run([own, "-c", "import torch"], capture_output=True).returncode == 0:
        raise RuntimeError("torch came with the extras that run artifacts")
    said = [f"{size / 1e6:.0f} MB"]
    for target in EXTRAS:
        copy = shutil.copytree(artifacts / target, folder / target)
        for words in (["parity", copy], ["profile", copy, "--iterations", "20"]):
            done = subprocess.run([own, "-m", "cocorr", *words], cwd=folder, capture_output=True, text=True)
            said.append(f"{words[0]} {target} {'ok' if done.returncode == 0 else done.stderr.splitlines()[-1]}")
    return ", ".join(said)


def main(words: Sequence[str] | None = None) -> int:
    """Try each Python; return 1 where something did not work, 2 where there is none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifacts", type=Path)
    parser.add_argument("--python", action="append", help="A Python to try; default: 3.11 to 3.13, those on the PATH.")
    request = parser.parse_args(words)
    pythons = list(found(request.python or PYTHONS))
    if not pythons:
        print("error: none of these Pythons is here", file=sys.stderr)
        return 2
    failed = False
    with tempfile.TemporaryDirectory() as place:
        build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", place, str(ROOT)]
        subprocess.run(build, check=True)
        wheel = next(Path(place).glob("*.whl"))
        for version, python in pythons:
            folder = Path(place, version)
            folder.mkdir()
            line = smoke(python, wheel, request.artifacts.resolve(), folder)
            failed = failed or line.count(" ok") != 2 * len(EXTRAS)
            print(f"{version}: {line}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
