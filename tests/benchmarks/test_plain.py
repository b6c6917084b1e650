"""The plain modules that the tool is compared with compute what its own models compute."""

from pathlib import Path

import plain
import pytest
import tiny_models
import tiny_ofa
import torch

from exporter import pipeline
from exporter.pipeline import source as sources


def tiny(name: str, folder: Path) -> sources.Source:
    tiny_ofa.write(folder) if name == "ofa" else tiny_models.write(name, folder)
    return sources.load(pipeline.ProgramChoice(name, checkpoint=folder))


@pytest.mark.parametrize("name", plain.WRITTEN)
def test_a_plain_module_has_the_scores_of_the_tools_own(name: str, tmp_path: Path) -> None:
    source = tiny(name, tmp_path / name)
    module = plain.plain(source)
    first = [torch.from_numpy(array[0]) for array in source.inputs.values()]
    assert module(*first).shape == source.outputs["scores"].shape[1:]
    assert not [part for part in module.modules() if type(part).__module__.startswith("models")]


def test_several_mini_batches_carry_their_state(tmp_path: Path) -> None:
    tiny_models.write("scn", tmp_path / "scn", length=11, mini_batch=4)
    plain.plain(sources.load(pipeline.ProgramChoice("scn", checkpoint=tmp_path / "scn")))


def test_other_scores_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tiny("din", tmp_path / "din")

    def spoilt(model: torch.nn.Module) -> torch.nn.Module:
        module = plain.din.plain(model)
        with torch.no_grad():
            module.items.weight[0] += 1  # padding has no click to show it; ids that are not in the table do
        return module

    monkeypatch.setattr(plain, "WRITTEN", {"din": spoilt})
    with pytest.raises(AssertionError, match="plain din is"):
        plain.plain(source)
