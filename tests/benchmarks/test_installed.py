"""The smoke test of the installed wheel: what of it runs without downloads."""

import sys
from pathlib import Path

import pytest
from commands import load_benchmark


def test_only_pythons_that_are_here_are_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    installed = load_benchmark("installed")
    (version, path), *rest = installed.found([sys.executable, "no-such-python"])
    assert (version, path, rest) == (sys.version.split()[0], sys.executable, [])
    assert installed.main([str(tmp_path), "--python", "no-such-python"]) == 2
    assert "none of these Pythons is here" in capsys.readouterr().err
