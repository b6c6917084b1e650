"""Measured memory of artifacts whose need is known: one matrix of 64 MiB, and how often each runtime holds it."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lowering import lower
from torch import Tensor, nn

from exporter.connections.host import HostConnection
from exporter.core.types import RunRequest, TensorSpec
from exporter.targets import TARGETS

ROWS, COLUMNS = 8192, 2048
TABLE_BYTES = 4 * ROWS * COLUMNS


class Product(nn.Module):
    """y = x W, so that every byte of W is touched."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(ROWS, COLUMNS))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is Linux's")
@pytest.mark.parametrize(
    ("target", "options", "copies"),
    [
        ("executorch", {"delegate": "portable"}, 1),  # computes on the file's bytes
        ("executorch", {"delegate": "xnnpack"}, 2),  # the file's bytes, and XNNPACK's packed form of them
        ("tflite", {}, 2),  # the same, the file mapped into memory
        ("onnx", {}, 2),  # the file's bytes while it is loaded, and the initializer made of them
    ],
)
def test_a_known_table_is_measured_to_ten_percent(
    target: str, options: dict[str, str], copies: int, tmp_path: Path
) -> None:
    file = lower(target, Product(), {"x": np.ones((1, ROWS), np.float32)}, tmp_path, **options)
    outputs = (TensorSpec("y", (1, COLUMNS), "float32"),)
    inputs = {"x": np.ones((1, 1, ROWS), np.float32)}
    result = HostConnection().run(RunRequest(TARGETS[target], file, inputs, outputs, warmup=1, iterations=1))
    assert (result.outputs["y"] == ROWS).all()
    assert result.peak_rss_bytes is not None and result.baseline_rss_bytes is not None
    assert result.peak_rss_bytes - result.baseline_rss_bytes == pytest.approx(copies * TABLE_BYTES, rel=0.1)
