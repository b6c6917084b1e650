"""The command that installs what is missing: it names the packages themselves, so that it works as it is written."""

import importlib.metadata
import platform
import shlex
import sys
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement

from safeio import packages

REQUIRES = [
    "numpy<3,>=2",
    'torch==2.13.0; extra == "train"',
    'onnx<1.24,>=1.23; extra == "onnx"',
    'litert-torch==0.10.0; (sys_platform == "darwin" or platform_machine == "no such") and extra == "lower"',
    'cocorr-export[train]; extra == "lower"',
]


@pytest.fixture(autouse=True)
def metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    """The project as it is installed: what it asks for, and a machine that has no build of one of these."""
    project = SimpleNamespace(requires=REQUIRES, metadata=SimpleNamespace(get_all=lambda _: ["train", "onnx", "lower"]))
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: project)
    monkeypatch.setattr(sys, "platform", "linux")


def test_the_command_is_made_of_the_projects_own_requirements() -> None:
    error = packages.MissingExtraError(("onnx", "no_such_package"), "onnx")
    assert error.exit_code == 2
    said, _, command = str(error).partition("; get them with: ")
    assert said == "onnx and no_such_package are not installed"
    words = shlex.split(command.partition(" (part of the extra [onnx])")[0])
    assert words[:2] == ["pip", "install"]
    assert [str(Requirement(word)) for word in words[2:]] == ["onnx<1.24,>=1.23", "no-such-package"]


def test_torch_comes_from_the_index_of_cpu_builds_on_linux_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        packages.how_to_get(["torch"])
        == f"get it with: pip install --extra-index-url {packages.CPU_BUILDS} 'torch==2.13.0'"
    )
    monkeypatch.setattr(sys, "platform", "darwin")
    assert packages.how_to_get(["torch"]) == "get it with: pip install 'torch==2.13.0'"


def test_what_this_system_has_no_build_of_is_missing_and_no_command_is_advised() -> None:
    assert packages.missing(("json", "no_such_package")) == ("no_such_package",)
    sentence = packages.how_to_get(["torch", "litert_torch"])
    assert sentence.startswith(f"there is no build of litert-torch for {platform.system()} {platform.machine()}")


def test_a_folder_of_sources_has_no_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> None:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    assert packages.how_to_get(["ai_edge_litert"]) == "get it with: pip install 'ai-edge-litert'"
