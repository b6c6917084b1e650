"""What a long history costs: the benchmark still runs, and passes leave what is linear in the history linear."""

import itertools
import json
import sys
from pathlib import Path

import lengths
import pytest
import tiny_models
import torch
from commands import run_here
from torch.export import ExportedProgram
from torch.utils.flop_counter import FlopCounterMode

from exporter.core.types import PassChoice
from exporter.graph import OPTIONAL
from exporter.pipeline import ProgramChoice
from exporter.pipeline import source as sources

B = 6
LENGTHS = (3 * B, 4 * B, 5 * B)
"""One mini-batch more each time, so that what is linear grows by the same number twice."""


def grown(figures: list[int]) -> list[int]:
    return [second - first for first, second in itertools.pairwise(figures)]


def constants_read(exported: ExportedProgram) -> int:
    """Return the bytes of the constants that a graph reads."""
    signature, tensors = exported.graph_signature, {**exported.state_dict, **exported.constants}
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    names |= signature.inputs_to_lifted_tensor_constants
    read = {names[node.name] for node in exported.graph.nodes if node.name in names and node.users}
    return sum(tensors[name].nbytes for name in read)


def test_a_row_for_each_way_and_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny_models.write("scn", tmp_path / "scn")
    words = ["--targets", "onnx", "--calls", "20", "--lengths", ",".join(map(str, LENGTHS)), "--mini-batches", str(B)]
    words += ["--ways", "chunk,rerank", "--checkpoints", str(tmp_path), "--json", str(tmp_path / "figures.json")]

    def export(*command: str) -> lengths.Spent:
        ended = run_here(capfd, *command)
        assert ended.code == 0, ended.err
        return lengths.Spent(1.0, 1)

    monkeypatch.setattr(lengths, "export", export)
    monkeypatch.setattr(lengths, "MOST_MINI_BATCHES", 2)
    monkeypatch.setattr(sys, "argv", ["lengths.py", *words])
    lengths.main()
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [(row["way"], row["length"]) for row in figures] == [("chunk", length) for length in LENGTHS]
    printed = capfd.readouterr().out
    assert all(f"| {B} | {length} | rerank | 1 | refused: over 2 mini-batches |" in printed for length in LENGTHS)
    assert [row["calls"] for row in figures] == [4, 5, 6]
    assert len({row["bytes"] for row in figures}) == 1
    more = grown([row["macs"] for row in figures])
    assert more[0] == more[1] > 0
    assert all(row["us"] > 0 and row["to_chunk"]["ratio"] > 0 for row in figures)


def test_passes_leave_a_linear_graph_linear(tmp_path: Path) -> None:
    tiny_models.write("scn", tmp_path / "scn")
    source = sources.load(ProgramChoice("scn", checkpoint=tmp_path / "scn"))
    figures = []
    for length in LENGTHS:
        # The table of `tabulate` has N + 1 rows with two numbers for each mini-batch, and is bounded by itself.
        passes = PassChoice(tuple(name for name in OPTIONAL if name != "tabulate"), fold="double")
        captured = source.captured("inputs", "captured", passes, length)
        exported = captured.exported
        inputs = {name: torch.from_numpy(array) for name, array in captured.examples.items()}
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            exported.module(check_guards=False)(**inputs)
        figures.append((len(exported.graph.nodes), counter.get_total_flops(), constants_read(exported)))
    nodes, flops, constants = (grown(list(column)) for column in zip(*figures, strict=True))
    assert nodes[0] == nodes[1] > 0
    assert flops[0] == flops[1] > 0
    assert constants[0] == constants[1] >= 0
