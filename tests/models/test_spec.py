"""What every model promises: what `encode` computes for each click, as Table 4 counts it, and what programs need."""

import pytest
import torch
from torch import Tensor, nn

from models.untrained import untrained
from models.zoo import DEFAULT_PROGRAMS, MODELS, load_spec

# Table 4 of CoCorrRec before its batch of 1,024: multiply-accumulates that hooks on modules see, per token
PER_TOKEN = {
    "scn": (16_640, {"dimension": 64, "heads": 4, "mini_batch": 10}),
    "gru4rec": (29_504, {"dimension": 64}),
    "sasrec": (37_376, {"dimension": 64, "heads": 4, "history_length": 25}),
    "din": (12_288, {"dimension": 64}),
    "bert4rec": (98_304, {"dimension": 64, "heads": 4, "blocks": 2, "history_length": 25}),
    "mamba4rec": (66_816, {"dimension": 64, "blocks": 2, "state": 32}),
}


def seen_by_hooks(model: nn.Module, name: str, length: int) -> int:
    """Count as thop does: in * out for each row of a Linear, 4 for each element of a LayerNorm, and its GRU rule."""
    total = 0

    def count(module: nn.Module, arguments: tuple[Tensor, ...], _result: Tensor) -> None:
        nonlocal total
        rows = arguments[0].numel() // arguments[0].shape[-1]
        if isinstance(module, nn.Linear):
            total += rows * module.in_features * module.out_features
        elif isinstance(module, nn.LayerNorm):
            total += rows * 4 * arguments[0].shape[-1]
        elif type(module).__name__ == "GRU":
            size = module.hidden_size
            total += rows * (3 * ((size + module.input_size) * size + 3 * size) + 4 * size)

    for module in model.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        load_spec(name).encode(model, torch.ones(1, length, dtype=torch.int32))
    return total


@pytest.mark.parametrize("name", PER_TOKEN)
def test_hooks_see_of_encode_what_the_published_table_counts(name):
    expected, architecture = PER_TOKEN[name]
    model = load_spec(name).build({"vocabulary": 50, **architecture}).eval()
    assert seen_by_hooks(model, name, 25) == 25 * expected


def test_encode_of_forward_ofa_runs_both_grus_and_all_blocks():
    architecture = {"vocabulary": 50, "dimension": 16, "blocks": 3, "history_length": 6, "backbone": "sasrec"}
    model = load_spec("ofa").build(architecture).eval()
    gru = 3 * (2 * 16 * 16 + 3 * 16) + 4 * 16
    once = 3 * 16 + 16 * 3 * 5 * (16 * 16 + 16)  # the controller's head and the mapper, whatever the length
    assert seen_by_hooks(model, "ofa", 6) == once + 6 * (2 * gru + 3 * 2 * 4 * 16)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_built_without_a_selection_is_what_says_that_it_needs_none(name):
    spec = load_spec(name)
    model, checkpoint = untrained(spec, None, 3)
    for program in spec.programs.values():
        if program.needs_selection:
            assert spec.select is not None
            with pytest.raises(ValueError, match="built for a selection"):
                program.build(model, None)
            with pytest.raises(ValueError, match="built for a selection"):
                program.cases(model, checkpoint.golden, None)
        else:
            assert isinstance(program.build(model, None), nn.Module)
            assert list(program.cases(model, checkpoint.golden, None)) == [spec.name for spec in program.inputs]


def test_the_default_programs_are_known_without_torch() -> None:
    assert {name: load_spec(name).default_program for name in MODELS} == DEFAULT_PROGRAMS
