"""What is counted in the files of four targets, against counts by hand and torch's own counter of products."""

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Ended
from lowering import OPTIONS, read
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from exporter.core import kinds
from exporter.measure.flops import DIVISION, ELEMENTARY, count
from exporter.pipeline import ProgramChoice, lengths
from exporter.pipeline import source as sources
from exporter.targets import TARGETS
from models.layers import GRU, LayerNorm

N, D, HEADS, WIDE = 6, 32, 2, 64
LAYER_NORM = 7  # per element: mean 1, centre 1, square 1, mean 1, scale by 1/std 1, gamma 1, beta 1
SIGMOID, TANH = ELEMENTARY + DIVISION + 2, ELEMENTARY


class TransformerLayer(nn.Module):
    """Post-norm, no mask: x = LN(x + attention), LN(x + feed-forward)."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(D, D) for _ in range(4))
        self.wide, self.narrow = nn.Linear(D, WIDE), nn.Linear(WIDE, D)
        self.first, self.second = LayerNorm(D), LayerNorm(D)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            part(x).reshape(N, HEADS, D // HEADS).transpose(0, 1) for part in (self.query, self.key, self.value)
        )
        weights = torch.softmax(torch.bmm(query, key.transpose(1, 2)) * 0.25, -1)
        mixed = torch.bmm(weights, value).transpose(0, 1).reshape(1, N, D)
        x = self.first(x + self.out(mixed))
        return self.second(x + self.narrow(torch.relu(self.wide(x))))


def transformer_layer() -> tuple[int, int]:
    macs = 4 * N * D * D + 2 * N * N * D + 2 * N * D * WIDE
    biases = 4 * N * D + N * WIDE + N * D
    scores = HEADS * N * N
    softmax = scores * (1 + ELEMENTARY + DIVISION) + 2 * (scores - HEADS * N)
    return macs, 2 * macs + biases + scores + softmax + N * WIDE + 2 * N * D + 2 * N * D * LAYER_NORM


class Cell(nn.Module):
    """One step of a GRU from a state."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = GRU(D, D)

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        return self.gru.step(x, hidden)


def cell() -> tuple[int, int]:
    macs = 2 * 3 * D * D  # W_ih x and W_hh h, three gates each
    return macs, 2 * macs + 2 * 3 * D + 2 * D + 2 * SIGMOID * D + (1 + 1 + TANH) * D + 4 * D  # biases, gates, n, h'


class CausalConvolution(nn.Module):
    """Width 3, dilation 2, so many zeros before the first token that none sees a later one."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv1d(D, WIDE, 3, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(functional.pad(x.transpose(1, 2), (4, 0)))


def causal_convolution() -> tuple[int, int]:
    macs = N * 3 * D * WIDE
    return macs, 2 * macs + N * WIDE


X = np.zeros((1, N, D), np.float32)
PIECES = {
    "transformer layer": (TransformerLayer, {"x": X}, transformer_layer),
    "GRU cell": (Cell, {"x": X[:, 0], "hidden": X[:, 0]}, cell),
    "causal convolution": (CausalConvolution, {"x": X}, causal_convolution),
}


@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("piece", PIECES)
def test_pieces_cost_what_they_cost_by_hand(piece: str, target: str, tmp_path: Path) -> None:
    """Products to the last one; everything else within 2 % of the whole, as converters write it in different ways."""
    make, examples, by_hand = PIECES[piece]
    module = make().eval()
    macs, flops = by_hand()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*(torch.from_numpy(array) for array in examples.values()))
    assert counter.get_total_flops() == 2 * macs
    counted = count(read(target, module, examples, tmp_path).operations)
    assert (counted.macs, dict(counted.uncounted)) == (macs, {})
    assert counted.total == pytest.approx(flops, rel=0.02)


def scn_by_hand(n: int, b: int, d: int, heads: int, candidates: int) -> int:
    """MACs of SCN's rerank for one whole mini-batch, whose next state nobody reads, and of which one row is scored."""
    assert n == b
    width = d // heads
    projections = 2 * n * d * d + d * d + n * d * heads  # K, V, Q of one row, and the learning rates
    state_products = heads * n * width * width + heads * width * width  # K W0, and Q W0 of one row
    dual_form = 2 * heads * n * width  # one row each of Q K^T, and of (eta + eta * A) G
    pick = n * d  # that row of H; all else of it is a row of a table, by the number of clicks
    last = d * d  # W_o, for the last token
    head = candidates * d * d + d * d + d + candidates * d  # W_1 of each candidate, u W_2, u c_2, their products
    return projections + state_products + dual_form + pick + last + head


def sums_by_hand(n: int, d: int) -> int:
    """MACs of the sums that ExecuTorch computes as products with ones: no mean of Z, which its matrix has centred."""
    by_click = 3 * n * d  # of H^2, of LN(Z)'s squares, and of G LN(Z); that of G vanishes in the next norm
    return by_click + 5 * d  # of one row two layer norms' means and squares, and an RMS norm's


def test_scn_costs_what_it_costs_by_hand(exported: Ended) -> None:
    """The four targets agree to 2 % in all, but for how each gets RoPE's partners, and on each product."""
    costs = {one["target"]: one["flops"] for one in exported.document["artifacts"]}
    by_hand, rows = scn_by_hand(10, 10, 64, 4, 100), 10 + 1  # all keys and one query have partners
    partners = {"onnx": rows * 64 * 64, **dict.fromkeys(("executorch", "tflite"), rows * 64 * 16), "coreml": 0}
    sums = {"executorch": sums_by_hand(10, 64)}
    expected = {target: by_hand + partners[target] + sums.get(target, 0) for target in costs}
    assert {target: flops["macs"] for target, flops in costs.items()} == expected
    totals = [flops["total"] - 2 * partners[target] for target, flops in costs.items()]
    assert max(totals) <= 1.02 * min(totals)


def test_what_a_delegate_took_is_listed(exported: Ended) -> None:
    for one in exported.document["artifacts"]:
        flops = one["flops"]
        assert sum(row["flops"] for row in flops["delegates"]) == flops["total"] == sum(flops["by_kind"].values())
        assert sum(row["flops"] for row in flops["by_operation"]) == flops["total"]
        listed = sum(sum(row["operations"].values()) for row in flops["delegates"])
        assert listed == len(flops["by_operation"])  # nothing is uncounted here
        named = {row["delegate"] for row in flops["delegates"]}
        assert named == ({None, "XnnpackBackend"} if one["target"] == "executorch" else {None})


@pytest.mark.parametrize("delegate", ["portable", "coreml", "vulkan"])
def test_delegates_that_cannot_run_here_are_counted(delegate: str, tmp_path: Path) -> None:
    """The same layer inside Core ML's package, Vulkan's graph and ExecuTorch's own kernels has the same products."""
    module, examples, by_hand = PIECES["transformer layer"]
    counted = count(read("executorch", module(), examples, tmp_path, delegate=delegate).operations)
    macs, flops = by_hand()
    assert (counted.macs, dict(counted.uncounted)) == (macs, {})
    assert counted.total == pytest.approx(flops, rel=0.02)
    names = {"portable": None, "coreml": "CoreMLBackend", "vulkan": "VulkanBackend"}
    doing_products = {row.delegate for row in counted.by_operation if row.cost.macs}
    assert doing_products == {names[delegate]}
    assert kinds.MATMUL in counted.by_kind


@pytest.mark.parametrize("program", ["controller", "subnet", "mapper"])
def test_products_of_forward_ofa_are_those_that_torch_counts(program: str, small_ofa: Path, tmp_path: Path) -> None:
    source = sources.load(ProgramChoice("ofa", program, small_ofa))
    captured = lengths.Lowering("onnx", "fp32", OPTIONS["onnx"]).captured(source)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        captured.exported.module()(**{name: torch.from_numpy(array[0]) for name, array in source.inputs.items()})
    counted = count(TARGETS["onnx"].read(TARGETS["onnx"].lower(captured, "fp32", OPTIONS["onnx"], tmp_path)).operations)
    assert (2 * counted.macs, dict(counted.uncounted)) == (counter.get_total_flops(), {})
