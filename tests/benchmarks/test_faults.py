"""The benchmark of faults in small: kills, full disks and damaged inputs do no harm, and what would do some is seen."""

import random
import sys
from pathlib import Path

import fault_formats
import fault_kills
import fault_mutations
import faults
import pytest
from fault_kinds import INPUTS
from fault_processes import Ended
from fault_processes import faults as faults_of
from fault_workload import Workload

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark watches processes at /proc")


@pytest.fixture(scope="module")
def workload(artifacts: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Workload:
    """The shipped model's artifacts; all else is made when it is asked for."""
    return Workload(tmp_path_factory.mktemp("faults"), artifacts)


def outcomes(workload: Workload, chosen: dict[str, int]) -> dict[str, list[faults.Outcome]]:
    """Run some cases of these kinds, those of the first seeds."""
    workload.make({part for name in chosen for part in faults.kinds()[name].needs()})
    found: dict[str, list[faults.Outcome]] = {}
    with faults.pool(1) as processes:
        for name, count in chosen.items():
            found[name] = processes.submit(faults.run, name, range(count), workload).result()
    return found


@pytest.mark.parametrize(
    "chosen",
    [
        {"run-mlmodel": 5, "run-weight-bin": 2, "run-package-manifest": 3, "run-inputs": 15, "kill-run-earlier-out": 3}
        | {"kill-run-new-half": 2, "disk-run-earlier-out": 1, "disk-run-new-size": 2, "disk-run-earlier-denied": 1},
        {"manifest": 12, "golden": 3, "device-profile": 15, "history": 3, "profile-onnx": 1},
        {"data-clicks.csv.gz": 4, "data-reviews.json": 4, "kill-train-new-out": 2},
    ],
    ids=lambda chosen: next(iter(chosen)),
)
def test_nothing_goes_wrong(chosen: dict[str, int], workload: Workload) -> None:
    found = outcomes(workload, chosen)
    assert {name: len(those) for name, those in found.items()} == chosen
    assert faults.wrong(found) == []


def test_every_file_that_is_read_has_a_kind() -> None:
    files = {Path(file).name for kind in INPUTS for file in kind.files}
    models = {"model.onnx", "model.pte", "model.tflite", "model.mlmodel", "weight.bin", "Manifest.json"}
    artifact = {"manifest.json", "golden.npz", "package.safetensors", "own.yaml", "history.txt", "inputs.npz"}
    artifact |= {"items.tsv"}
    training = {
        "model.safetensors",
        "config.json",
        "ck.resume",
        "ratings.dat",
        "clicks.csv",
        "clicks.csv.gz",
        "clicks.tsv",
    }
    assert files >= models | artifact | training | {"reviews.json", "amazon.csv"}
    assert sum(kind.count for kind in INPUTS) >= 10_000


@pytest.mark.parametrize(
    "mutate, data",
    [
        (fault_mutations.damage, bytes(range(256))),
        (fault_mutations.json_document, b'{"a": [1, {"b": "c"}], "d": null}'),
        (fault_mutations.yaml_document, b"a: 1\nb:\n  c: x\n"),
        (fault_mutations.lines_of_text, b"user,item,timestamp\n1,2,3\n"),
        (fault_formats.protobuf, b"\x08\x01\x12\x04\x0a\x02hi"),
        (fault_formats.flatbuffer, bytes([8, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0])),
    ],
)
def test_a_seed_repeats_a_mutation_and_most_change_something(mutate: fault_kills.Callable, data: bytes) -> None:
    first, second = ([mutate(random.Random(seed), data) for seed in range(50)] for _ in range(2))
    assert first == second
    assert sum(mutated != data for mutated in first) > 40 and len(set(first)) > 25


def test_what_counts_as_wrong() -> None:
    def found(code: int | None, err: str, peak: int = 0) -> list[str]:
        return faults_of(Ended(("cocorr-export",), code, "", err, 0.1, peak), 1 << 20)

    assert found(2, "... reading\nerror: x is damaged; export it again\n") == found(0, "") == []
    trace = 'Traceback (most recent call last):\n  File "/p/exporter/cli.py", line 3, in main\nKeyError: 1\n'
    assert found(1, trace) == ["traceback: KeyError: 1 at cli.py:3"]
    wrong = [(None, ""), (-11, ""), (-24, ""), (4, "error: x"), (1, "... reading"), (2, "error: x\nmore\n"), (2, "x\n")]
    assert all(
        found(*each) for each in [*wrong, (2, "error: \x1b[1m\n"), (2, f"error: {'x' * 5000}\n"), (0, "", 2 << 20)]
    )
