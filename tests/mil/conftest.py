"""What every test of the interpreter shares: converters from torch and from MIL builders to packages on disk."""

import json
import logging
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

Convert = Callable[..., Path]


@pytest.fixture(scope="session")
def coremltools():
    """coremltools, with its notes on versions and missing macOS libraries kept out of the test output."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import coremltools as ct
        import torch

        torch.set_num_threads(1)
        import coremltools.converters.mil.frontend.torch
    return ct


@pytest.fixture(scope="session")
def packages(tmp_path_factory) -> Path:
    """A folder for the packages of this session."""
    return tmp_path_factory.mktemp("packages")


@pytest.fixture(scope="session")
def convert(coremltools, packages) -> Convert:
    """Convert a torch module with ct.convert and save it; returns the package's path."""

    def run(module, example: tuple, target: str = "iOS17", precision: str = "FLOAT32", **options) -> Path:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.export.export(module.eval(), example).run_decompositions({})
            model = coremltools.convert(
                exported,
                minimum_deployment_target=getattr(coremltools.target, target),
                compute_precision=getattr(coremltools.precision, precision),
                skip_model_load=True,
                **options,
            )
            path = packages / f"{uuid.uuid4().hex}.mlpackage"
            model.save(str(path))
        return path

    return run


@pytest.fixture(scope="session")
def write_package(packages) -> Callable[..., Path]:
    """Write bytes of a model file, and optionally of weight.bin, as a package."""

    def run(model: bytes, weights: bytes | None = None, manifest: object = None) -> Path:
        path = packages / f"{uuid.uuid4().hex}.mlpackage"
        folder = path / "Data" / "com.apple.CoreML"
        folder.mkdir(parents=True)
        (folder / "model.mlmodel").write_bytes(model)
        if weights is not None:
            (folder / "weights").mkdir()
            (folder / "weights" / "weight.bin").write_bytes(weights)
        if manifest is None:
            manifest = {
                "fileFormatVersion": "1.0.0",
                "itemInfoEntries": {"root": {"path": "com.apple.CoreML/model.mlmodel"}},
                "rootModelIdentifier": "root",
            }
        (path / "Manifest.json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
        return path

    return run
