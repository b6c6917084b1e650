"""The optional passes: what they compute is the same, and they leave alone what only looks like what they are for."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from exporter import graph, pipeline
from exporter.core.types import Captured, PassChoice
from exporter.graph.capture import capture
from exporter.graph.editing import Editor
from exporter.graph.rewriting import Pass
from exporter.parity.verdict import PASS_ERROR
from exporter.pipeline import source as sources
from models.layers import ItemEmbedding, LayerNorm, last_position, states_at

N, D, V = 5, 8, 20
ALL = PassChoice(graph.OPTIONAL)
EVERYTHING = {step.name: step for step in graph.PASSES}


def captured_of(module: nn.Module, **examples: np.ndarray) -> Captured:
    return capture("random", "random", module.eval(), examples, ("y",))


def operations(captured: Captured) -> list[str]:
    return [str(node.target) for node in captured.exported.graph.nodes if node.op == "call_function"]


class Rows(nn.Module):
    """Drawn operations of which all but the last two work row by row, then the row of the last click."""

    def __init__(self, steps: list[int], seed: int, pick: str = "marked") -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.steps, self.pick = steps, pick
        self.items = ItemEmbedding(V, D)
        self.items.reset(0.5)
        self.maps = nn.ModuleList(nn.Linear(D, D) for _ in steps)
        self.norms = nn.ModuleList(LayerNorm(D) for _ in steps)
        self.table = nn.Parameter(torch.randn(N, D))
        self.register_buffer("causal", torch.tril(torch.ones(N, N)))

    def forward(self, item_ids: torch.Tensor) -> torch.Tensor:
        x = self.items(item_ids)
        for kind, linear, norm in zip(self.steps, self.maps, self.norms, strict=True):
            x = self.step(kind, x, linear, norm)
        if self.pick == "fixed":
            return x[:, -1]
        if self.pick == "gathered":
            place = torch.relu((item_ids != 0).sum(1) - 1).reshape(1, 1, 1).expand(1, 1, D)
            return torch.gather(x, 1, place).squeeze(1)
        return states_at(x, last_position(item_ids, x.dtype))

    def step(self, kind: int, x: torch.Tensor, linear: nn.Linear, norm: LayerNorm) -> torch.Tensor:
        match kind:
            case 0:
                return x + functional.gelu(linear(x))
            case 1:
                return norm(x) * self.table
            case 2:  # attention by heads, with a mask
                q, k, v = (y.reshape(1, N, 2, D // 2).transpose(1, 2) for y in (x, linear(x), norm(x)))
                mixed = torch.softmax(q @ k.transpose(2, 3) * self.causal, -1) @ v
                return mixed.transpose(1, 2).reshape(1, N, D)
            case 3:
                return torch.cat([x[:, :, : D // 2], torch.tanh(x)[:, :, D // 2 :]], -1)
            case 4:
                return functional.scaled_dot_product_attention(x[:, None], x[:, None], linear(x)[:, None])[:, 0]
            case 5:
                return functional.layer_norm(x, (D,), norm.weight, norm.bias) + x.mean(1, keepdim=True)
            case 6:
                return x.index_select(-1, torch.arange(D - 1, -1, -1)) * (self.table[0] + 1)
            case 7:
                left, right = torch.stack([row * 2 for row in x.unbind(1)], 1).chunk(2, -1)
                return torch.cat([right, left.unsqueeze(0).squeeze(0)], -1)
            case 8:  # axes of one that move, and a product with a batch on one side only
                wide = x.permute(1, 0, 2)[None].transpose(1, 2).reshape(1, 1, N, 2, D // 2).permute(0, 3, 1, 2, 4)
                mixed = torch.matmul(self.causal, wide)[:, :, 0]
                return torch.amax(mixed, 1).repeat(1, 1, 2) + x.narrow(1, 0, 1) + x[:, 2, None]
            case _:
                return torch.cumsum(x, 1) * 0.3  # not row by row: it is left as it is


@settings(deadline=None, max_examples=12)
@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=5),
    st.integers(0, 99),
    st.sampled_from(("marked", "fixed", "gathered")),
    st.sampled_from(graph.OPTIONAL),
)
def test_random_graphs_stay_what_they_are(steps: list[int], seed: int, pick: str, alone: str) -> None:
    captured = captured_of(Rows(steps, seed, pick), item_ids=np.ones((1, N), np.int32))
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, V, (6, 1, N), dtype=np.int32)
    ids[np.arange(N) >= np.arange(6)[:, None, None]] = 0
    ids[5, 0, :2] = (-3, 2**31 - 1)
    for names in (graph.OPTIONAL, (alone,)):
        passes, effects = graph.Proofs(captured, {"item_ids": ids}, PASS_ERROR).prove("captured", PassChoice(names))
        assert [effect.name for effect in effects] == list(names)
        assert all(effect.reason is None and (effect.max_error or 0) <= 1e-5 for effect in effects)
        before, after = captured.exported.module(), graph.rewritten(captured, passes).exported.module()
        with torch.no_grad():
            for case in torch.from_numpy(ids):
                torch.testing.assert_close(after(item_ids=case)["y"], before(item_ids=case)["y"], rtol=1e-5, atol=1e-5)


def test_one_user_has_no_axis() -> None:
    captured = captured_of(Rows([0, 1, 2, 7], 0), item_ids=np.ones((1, N), np.int32))
    simple = graph.rewritten(captured, (EVERYTHING["simplify"],)).exported.graph
    shapes = [node.meta["val"].shape for node in simple.nodes if isinstance(node.meta.get("val"), torch.Tensor)]
    assert not [shape for shape in shapes if len(shape) > 2 and shape[0] == 1]
    assert "aten.matmul.default" not in {str(node.target) for node in simple.nodes}


@pytest.mark.parametrize("pick", ["marked", "fixed", "gathered"])
def test_rows_that_nobody_wants_are_not_computed(pick: str) -> None:
    captured = captured_of(Rows([0, 2], 0, pick), item_ids=np.ones((1, N), np.int32))
    early = graph.rewritten(captured, (EVERYTHING["select_early"],))
    shapes = [
        tuple(node.meta["val"].shape)
        for node in early.exported.graph.nodes
        if str(node.target) == "aten.matmul.default"
    ]
    assert shapes == [(1, 2, 1, N), (1, 2, 1, D // 2)]  # one query per head: of N rows each before


class Unsure(nn.Module):
    """Weights that nearly mark one row: a sum may be of none, of two, or of a fraction."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.map = kind, nn.Linear(D, D)

    def forward(self, x: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(N, dtype=torch.float32)
        match self.kind:
            case "outside":  # any number may come in
                weights = (positions == place).float()
            case "fraction":
                weights = (positions == torch.relu((place != 0).float() * 0.5)).float()
            case "two":
                weights = ((positions / 2).floor() == torch.relu((place != 0).float())).float()
            case _:
                weights = (positions == torch.relu((place != 0).float() * N)).float()  # N - 1 is the last
        return (torch.sigmoid(self.map(x)) * weights[:, None]).sum(1)


@pytest.mark.parametrize("kind", ["outside", "fraction", "two", "behind"])
def test_what_may_mark_none_or_several_rows_stays(kind: str) -> None:
    captured = captured_of(Unsure(kind), x=np.zeros((1, N, D), np.float32), place=np.zeros((1,), np.float32))
    assert operations(graph.rewritten(captured, (EVERYTHING["select_early"],))) == operations(captured)


def test_ids_are_clamped_where_their_table_is_read_in_no_other_way() -> None:
    class Two(nn.Module):
        def __init__(self, ties: bool) -> None:
            super().__init__()
            self.items, self.ties = ItemEmbedding(V, D), ties

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            rows = self.items(ids)
            return rows @ self.items.weight.T if self.ties else rows

    ids = np.array([[0, 1, V - 1, V, -1, -(2**31), 2**31 - 1]], np.int32)
    for ties in (False, True):
        captured = captured_of(Two(ties), ids=ids)
        simple = graph.rewritten(captured, (EVERYTHING["simplify"],))
        assert ("aten.clamp.default" in operations(simple)) != ties  # a second table would be in the file
        expected, found = (one.exported.module()(ids=torch.from_numpy(ids))["y"] for one in (captured, simple))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_a_pass_that_is_wrong_or_fails_is_left_out_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(editor: graph.rewriting.Editor) -> int:
        for node in editor.graph.nodes:
            if str(node.target) == "aten.sigmoid.default":
                node.target = torch.ops.aten.tanh.default
        return 1

    def failing(editor: graph.rewriting.Editor) -> int:
        raise KeyError("a graph that it has not met")

    def breaking(editor: graph.rewriting.Editor) -> int:
        (end,) = editor.graph.output_node().all_input_nodes
        end.args = (end.args[0], editor.graph_module)
        return 1

    class Module(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.sigmoid(x) + torch.sigmoid(x)

    forms = EVERYTHING["simplify"].forms
    named = {"wrong": wrong, "failing": failing, "breaking": breaking}
    steps = (*(Pass(name, "", forms, rewrite) for name, rewrite in named.items()), EVERYTHING["simplify"])
    monkeypatch.setattr(graph, "PASSES", steps)
    cases = {"x": np.ones((3, 2), np.float32)}
    captured = captured_of(Module(), x=cases["x"][0])
    passes, effects = graph.Proofs(captured, cases, PASS_ERROR).prove("captured", PassChoice((*named, "simplify")))
    assert [step.name for step in passes] == ["simplify"]
    assert [(effect.name, effect.applied) for effect in effects] == [
        ("wrong", False),
        ("failing", False),
        ("breaking", False),
        ("simplify", True),
    ]
    assert "'y' differ by" in effects[0].reason and "a graph that it has not met" in effects[1].reason
    assert effects[2].reason
    result = graph.rewritten(captured, passes).exported.module()(x=torch.ones(2))["y"]
    torch.testing.assert_close(result, 2 * torch.sigmoid(torch.ones(2)))
    without = PassChoice(("simplify",), frozenset({"simplify"}))
    left = graph.Proofs(captured, cases, PASS_ERROR).prove("captured", without).effects
    assert [(effect.applied, effect.reason) for effect in left] == [(False, graph.LEFT_OUT)]


def test_weights_from_outside_are_no_constants() -> None:
    source = sources.load(pipeline.ProgramChoice("ofa", "subnet_external"))
    captured = source.captured("parameters", "captured", ALL)
    names = {name.rpartition(".")[2] for name, _ in captured.exported.named_parameters()}
    assert set(source.external.tensors) <= names


def test_constants_that_passes_make_are_whole_tensors() -> None:
    """ExecuTorch reads the storage of a constant from its beginning, wherever in it the constant lies."""

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3 * D, D))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            query, key = (self.weight.narrow(0, start, D) for start in (0, D))
            return functional.linear(x, query) + functional.linear(x, key)

    captured = captured_of(Packed(), x=np.ones((1, D), np.float32))
    folded = graph.rewritten(captured, (EVERYTHING["absorb"],)).exported
    made = [tensor for name, tensor in folded.named_buffers() if "rewritten" in name]
    assert [tuple(tensor.shape) for tensor in made] == [(D, D)] * 2
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in made)


def test_a_graph_that_changes_values_in_place_stays_as_it_is() -> None:
    class InPlace(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first, second = x * 2, x * 2  # equal, and one of them is written to
            return torch.relu_(first - 1) + second.sub_(1) * torch.sigmoid(x * 2)

    cases = {"x": np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4)}
    captured = captured_of(InPlace(), x=cases["x"][0])
    assert "aten.sub_.Tensor" in operations(captured)
    passes, effects = graph.Proofs(captured, cases, PASS_ERROR).prove("captured", ALL)
    assert passes == () and all("in place" in effect.reason for effect in effects)


def test_a_proved_graph_is_not_rewritten_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pass runs once for a program and what lists have in common, and what is lowered is what was proved."""
    calls: list[str] = []

    def counted(step: Pass) -> Pass:
        def rewrite(editor: Editor) -> int:
            calls.append(step.name)
            return step.rewrite(editor)

        return replace(step, rewrite=rewrite)

    monkeypatch.setattr(graph, "PASSES", tuple(map(counted, graph.PASSES)))
    ids = np.ones((2, 1, N), np.int32)
    captured = captured_of(Rows([0, 1], 0, "marked"), item_ids=ids[0])
    proofs = graph.Proofs(captured, {"item_ids": ids}, PASS_ERROR)
    proven = proofs.prove("captured", ALL)
    again = graph.rewritten(captured, proven.passes)
    assert len(calls) == len(graph.OPTIONAL) + len(proven.passes)
    calls.clear()
    once = proofs.rewritten(proven.passes)
    # A list without the last pass that is applied, and without one that found nothing, is tried already.
    found = [step.name for step in proven.passes]
    assert len(found) > 1
    shorter = proofs.prove("captured", PassChoice(tuple(found[:-1])))
    assert (calls, shorter.passes) == ([], proven.passes[:-1])
    codes = [proofs.rewritten(passes).exported.graph_module.code for passes in (shorter.passes, proven.passes)]
    assert codes[0] != codes[1] and proofs.rewritten(proven.passes) is once
    assert once.exported.graph_module.code == again.exported.graph_module.code
