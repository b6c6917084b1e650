"""What torch makes like another tensor has its type in Core ML too; the same program is the same package."""

from pathlib import Path

import numpy as np
import torch
from lowering import OPTIONS, lower
from torch import nn

from exporter import mil
from exporter.graph.capture import capture
from exporter.targets import TARGETS


class Masks(nn.Module):
    """What torch's attention does with a padding mask: floats made like a mask of true and false, or like ids."""

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        padding = ids == 0
        mask = torch.zeros_like(padding, dtype=torch.float32).masked_fill_(padding, -7.5)
        ones = torch.ones_like(ids, dtype=torch.float32) + torch.full_like(padding, 0.25, dtype=torch.float32)
        return x + mask + ones + torch.zeros_like(x)


def test_floats_like_a_mask_are_floats(tmp_path: Path) -> None:
    inputs = {"x": np.ones((1, 4), np.float32), "ids": np.array([[3, 0, 2, 0]], np.int32)}
    program = mil.load(lower("coreml", Masks(), inputs, tmp_path))
    expected = Masks()(*map(torch.from_numpy, inputs.values())).numpy()
    np.testing.assert_array_equal(program.run(inputs)["y"], expected)


class Best(nn.Module):
    """The place of the largest number."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.topk(x, 1).indices.to(torch.int32)


def test_a_place_that_16_bits_do_not_hold_is_found_at_fp16(tmp_path: Path) -> None:
    x = np.zeros((1, 70_000), np.float32)
    x[0, 69_990] = 1.0
    captured = capture("test", "piece", Best(), {"x": x}, ("y",))
    program = mil.load(TARGETS["coreml"].lower(captured, "fp16", OPTIONS["coreml"], tmp_path))
    assert program.run({"x": x})["y"].tolist() == [[69_990]]


def test_the_same_program_is_the_same_package(tmp_path: Path) -> None:
    inputs = {"x": np.ones((1, 4), np.float32), "ids": np.array([[3, 0, 2, 0]], np.int32)}
    packages = []
    for name in ("first", "second"):  # of other names, since tests keep what they lowered of a program before
        (tmp_path / name).mkdir()
        captured = capture(name, "program", Masks().eval(), inputs, ("y",))
        package = TARGETS["coreml"].lower(captured, "fp32", OPTIONS["coreml"], tmp_path / name)
        paths = sorted(path for path in package.rglob("*") if path.is_file())
        packages.append({path.relative_to(package): path.read_bytes() for path in paths})
    assert packages[0] == packages[1] and len(packages[0]) >= 2
