"""Tables in fewer bits: their stored form by an independent reading of it, and which tables have it."""

from operator import attrgetter

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from exporter import graph
from exporter.core.errors import BadInputError
from exporter.core.precision import Tables
from exporter.core.types import PassChoice
from exporter.graph import Proofs, Twin
from exporter.graph.capture import capture
from exporter.graph.quantise import FORMS
from exporter.parity.verdict import PASS_ERROR
from models.layers import ItemEmbedding


class Lookup(nn.Module):
    """Rows of a table, as a program gives them; `also` reads the table in another way."""

    def __init__(self, table: np.ndarray, also: str = "") -> None:
        super().__init__()
        self.table, self.also = nn.Parameter(torch.from_numpy(table)), also
        self.flags = nn.Parameter(torch.randn(table.shape[0], table.shape[1]))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        rows = nn.functional.embedding(ids, self.table)
        match self.also:
            case "product":
                return rows @ self.table.mT
            case "counted":  # no id, but how many clicks there are
                return rows + nn.functional.embedding((ids != 0).sum(-1, keepdim=True), self.flags)
            case _:
                return rows


def twin_of(module: nn.Module, tables: Tables, ids: np.ndarray) -> tuple[Twin, list[np.ndarray]]:
    """Return what a program with stored tables gives, and the constants of its graph that are no fp32 table."""
    captured = capture("drawn", "drawn", module.eval(), {"ids": ids[0]}, ("rows",))
    proofs = Proofs(captured, {"ids": ids}, PASS_ERROR)
    passes, _ = proofs.prove("captured", PassChoice((), tables=tables))
    after = graph.rewritten(captured, passes).exported.module(check_guards=False)
    names = [str(node.target) for node in after.graph.find_nodes(op="get_attr") if node.users]
    constants = [attrgetter(name)(after).detach() for name in names]
    return proofs.twin(passes), [value.numpy() for value in constants if value.dtype != torch.float32 or value.ndim]


@st.composite
def drawn_tables(draw: st.DrawFn) -> np.ndarray:
    rows, width = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    numbers = st.floats(-4, 4, width=32) | st.sampled_from([0.0, 1e-30, 3e38, -3e38])
    table = draw(st.lists(st.lists(numbers, min_size=width, max_size=width), min_size=rows, max_size=rows))
    return np.array(table, np.float32)


def unpacked(stored: np.ndarray, width: int, tables: Tables) -> np.ndarray:
    """Return the whole numbers in stored bytes, by divisions of whole numbers and not as the graph computes them."""
    if tables == "int8":
        return stored.astype(int)
    high, low = np.divmod(stored.astype(int), 16)
    return np.concatenate([low - 8, high], -1)[:, :width]


@settings(deadline=None)
@given(drawn_tables(), st.sampled_from(["int8", "int4"]))
@example(np.array([[2.75, 2.65625]], np.float32), "int8")
def test_rows_are_what_their_bytes_say_and_near_the_table(table: np.ndarray, tables: Tables) -> None:
    form = FORMS[tables](torch.from_numpy(table))
    assert form.scales is not None
    scales, most = form.scales.numpy(), {"int8": 127, "int4": 7}[tables]
    numbers = unpacked(form.rows.numpy(), table.shape[1], tables)
    assert np.abs(numbers).max() <= most
    assert scales.min() > 0
    np.testing.assert_array_equal(form.restored.numpy(), numbers.astype(np.float32) * scales)
    exact = table.astype(float)
    plain = np.abs(exact).max(-1, keepdims=True) / most  # the scale that cuts nothing
    steps = np.divide(exact, plain, out=np.zeros_like(exact), where=plain > 0)
    least = np.abs(np.round(steps) * plain - exact)
    error = ((numbers * scales.astype(float) - exact) ** 2).sum(-1)
    # fp32 rounds the scale, of which a number has up to `most`, and the quotient; it has none below its smallest.
    assert (error <= ((least + most * plain * 2.0**-23 + 2.0**-110) ** 2).sum(-1)).all()


@pytest.mark.parametrize("tables", ["int8", "int4"])
def test_a_graph_looks_the_stored_rows_up(tables: Tables) -> None:
    table = np.random.default_rng(0).standard_normal((9, 5), np.float32)
    table[3] = 0
    form = FORMS[tables](torch.from_numpy(table))
    twin, constants = twin_of(Lookup(table), tables, np.array([[[0, 3, 8]], [[8, 7, 1]]], np.int32))
    np.testing.assert_array_equal(twin.outputs["rows"][:, 0], form.restored.numpy()[[[0, 3, 8], [8, 7, 1]]])
    assert sorted(value.nbytes for value in constants) == sorted([form.rows.nbytes, form.scales.nbytes])
    (stored,) = twin.stored
    assert (stored.rows, stored.width, stored.lookups, stored.fp32_bytes) == (9, 5, 1, table.nbytes)
    assert stored.bytes == 9 * ({"int8": 5, "int4": 3}[tables] + 4)
    assert stored.relative_rmse == pytest.approx(
        np.linalg.norm(form.restored.numpy() - table) / np.linalg.norm(table), rel=1e-5
    )


def test_a_table_of_halves() -> None:
    table = np.array([[1.0, 1.0 + 2**-12], [2.0**-25, 65_504.0]], np.float32)
    twin, constants = twin_of(Lookup(table), "fp16", np.array([[[0, 1]]], np.int32))
    np.testing.assert_array_equal(twin.outputs["rows"][0, 0], table.astype(np.float16).astype(np.float32))
    assert [value.dtype for value in constants] == [np.float16]
    with pytest.raises(BadInputError, match="in row 1 that fp16 cannot hold; choose another --precision"):
        twin_of(Lookup(table * 2), "fp16", np.array([[[0, 1]]], np.int32))


@pytest.mark.parametrize("tables", ["int8", "int4"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_refused(tables: Tables, value: float) -> None:
    table = np.array([[1.0, value]], np.float32)
    with pytest.raises(BadInputError, match="has NaN or infinite values in row 0"):
        twin_of(Lookup(table), tables, np.array([[[0]]], np.int32))


def test_only_embeddings_that_lookups_alone_read_are_stored_in_fewer_bits() -> None:
    table, ids = np.random.default_rng(0).standard_normal((9, 4), np.float32), np.array([[[1, 2]]], np.int32)
    assert twin_of(Lookup(table, "product"), "int8", ids)[0].stored == ()
    counted, _ = twin_of(Lookup(table, "counted"), "int8", ids)
    assert [one.lookups for one in counted.stored] == [1]


class Two(nn.Module):
    """A table that clicks and candidates share, behind a map that folds into it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.items, self.map = ItemEmbedding(50, 8), nn.Linear(8, 8)
        self.items.reset(0.5)

    def forward(self, ids: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        user = self.items(ids).mean(1)
        return (torch.tanh(self.map(self.items(candidates))) @ user[:, :, None]).squeeze(-1)


def test_a_table_that_a_pass_made_is_stored_in_fewer_bits_too() -> None:
    cases = {"ids": np.array([[[1, 2, 99]]], np.int32), "candidates": np.array([[[3, 4, -1]]], np.int32)}
    captured = capture("two", "two", Two().eval(), {name: array[0] for name, array in cases.items()}, ("y",))
    proofs = Proofs(captured, cases, PASS_ERROR)
    stored = {}
    for fold in ("none", "double"):
        wanted = PassChoice(("simplify", "absorb", "fold_rows"), fold=fold, tables="int8")
        twin = proofs.twin(proofs.prove("captured", wanted).passes)
        stored[fold] = [(one.width, one.lookups) for one in twin.stored]
        np.testing.assert_allclose(
            twin.outputs["y"],
            captured.exported.module()(
                ids=torch.from_numpy(cases["ids"][0]), candidates=torch.from_numpy(cases["candidates"][0])
            )["y"][None].detach(),
            atol=0.02,
        )
    assert stored == {"none": [(8, 2)], "double": [(8, 1), (8, 1)]}
