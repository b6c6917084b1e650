"""What every model promises: what `encode` computes for each click, as Table 4 counts it, and what programs need."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from models.checking import check
from models.listed import SHIPPED
from models.spec import External
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


RERANK = load_spec("gru4rec").programs["rerank"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"programs": 5}, "programs is 5; give a dict of ProgramSpec"),
        ({"programs": {}}, "programs is {}; give"),
        ({"programs": {"../x": RERANK}}, "'../x'; give a name of letters"),
        ({"programs": {"other": RERANK}}, "programs['other'].name is 'rerank'; give 'other'"),
        ({"default_program": [1]}, "default_program is [1]; give one of rerank, topk, step"),
        ({"default_program": "none"}, "default_program is 'none'; give one of"),
        ({"build": None}, "build is None; give a function"),
        ({"architecture": 5}, "architecture is 5; give a dict"),
        ({"description": "a\x1b[2J"}, "give a line of text that can be printed"),
        (
            {"programs": {"rerank": replace(RERANK, needs_selection=True)}, "default_program": "rerank"},
            "select is None; give a function: rerank needs it",
        ),
    ],
)
def test_a_part_of_a_spec_that_is_none_is_named(changes: dict[str, object], words: str) -> None:
    spec = load_spec("gru4rec")
    check(spec)
    with pytest.raises(ValueError) as refused:
        check(replace(spec, **changes))
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": ()}, "inputs is (); give a tuple of InputSpec, at least one"),
        ({"inputs": RERANK.inputs[:1] * 2}, "two inputs or outputs is 'item_ids'; give each its own"),
        ({"inputs": (replace(RERANK.inputs[0], name="../x"),)}, "'../x'; give up to 64 letters"),
        ({"inputs": (replace(RERANK.inputs[0], name="class"),)}, "'class'; give up to 64 letters"),
        ({"inputs": (replace(RERANK.inputs[0], dtype="int64"),)}, "dtype of item_ids is 'int64'; give 'int32' or"),
        ({"inputs": (replace(RERANK.inputs[0], shape=(1, 9)),)}, "shape of item_ids is (1, 9); give a function"),
        ({"outputs": ()}, "outputs is (); give a tuple of names"),
        ({"outputs": "scores"}, "outputs is 'scores'; give a tuple of names"),
        ({"outputs": ("item_ids",), "ranking": "item_ids"}, "two inputs or outputs is 'item_ids'"),
        ({"ranking": "best"}, "ranking is 'best'; give one of the outputs, scores"),
        ({"ranked": "best"}, "ranked is 'best'; give one of the outputs"),
        ({"state": {"scores": "total"}}, "state is {'scores': 'total'}; give outputs"),
        ({"sends": ("x",)}, "sends is ('x',); give some of scores, each once"),
        ({"sends": ("scores", "scores")}, "sends is ('scores', 'scores'); give some of scores, each once"),
        ({"receives": ["item_ids"] * 2}, "each once"),
        (
            {"outputs": ("a", "b"), "ranking": None, "state": {"a": "item_ids", "b": "item_ids"}},
            "give outputs, of a, b, each with an input of its own",
        ),
        ({"inputs": (replace(RERANK.inputs[0], holds_items="yes"),)}, "holds_items of item_ids is 'yes'; give True or"),
        ({"needs_selection": 1}, "needs_selection is 1; give True or False"),
        ({"external": External(dict, dict)}, "needs_selection is False; give True, since external is of"),
        ({"output_meanings": 5}, "output_meanings is 5; give texts"),
        ({"cases": None}, "cases is None; give a function"),
    ],
)
def test_a_part_of_a_program_that_is_none_is_named(changes: dict[str, object], words: str) -> None:
    spec = load_spec("gru4rec")
    with pytest.raises(ValueError, match=r"^program rerank: ") as refused:
        check(replace(spec, programs={**spec.programs, "rerank": replace(RERANK, **changes)}))
    assert words in str(refused.value)


@pytest.mark.parametrize("name", MODELS)
def test_the_specs_that_ship_are_whole(name: str) -> None:
    check(load_spec(name))


def test_the_default_programs_are_known_without_torch() -> None:
    assert {name: load_spec(name).default_program for name in MODELS} == DEFAULT_PROGRAMS


def test_what_lists_say_of_the_models_that_ship_is_what_their_specs_say():
    told = {
        name: (model.description, {title: (part.runs_on, part.description) for title, part in model.programs.items()})
        for name, model in SHIPPED.items()
    }
    specs = {name: load_spec(name) for name in MODELS}
    assert told == {
        name: (spec.description, {part.name: (part.runs_on, part.description) for part in spec.programs.values()})
        for name, spec in specs.items()
    }
    assert {name: list(spec.programs) for name, spec in specs.items()} == {
        name: list(model.programs) for name, model in SHIPPED.items()
    }
