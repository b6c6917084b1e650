"""`cocorr-export check` in a repository: each change alone breaks its limit, and what changes no figure breaks none."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from commands import Ended, run_here
from safetensors.numpy import load_file, save_file
from torch import nn

from exporter.connections import valgrind
from exporter.pipeline.cache import Cache

Capfd = pytest.CaptureFixture[str]
CONFIG = "artifacts:\n- model: scn\n  checkpoint: ck\n  targets: [onnx]\n"
NAME = "scn/rerank onnx generic fp32"
OWN = """
from dataclasses import replace
from pathlib import Path
from torch import nn
from models.baselines.gru4rec import SPEC as GRU4REC
TIMES = int((Path(__file__).parent / "times.txt").read_text())
class Slower(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
    def forward(self, *ids):
        scores = self.inner(*ids)
        for _ in range(TIMES):
            scores = scores * 2.0 - scores
        return scores
def slower(program):
    return replace(program, build=lambda model, selection: Slower(program.build(model, selection)))
SPEC = replace(GRU4REC, name="shop", programs={"rerank": slower(GRU4REC.programs["rerank"])})
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a repository with a checkpoint of random weights, the lock of its one artifact, and the cache."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("gate")
        patch.chdir(folder)
        tiny_models.write("scn", folder / "ck")
        (folder / "cocorr.yaml").write_text(CONFIG)
        from exporter import pipeline

        checked = pipeline.check(pipeline.CheckRequest(Path("cocorr.yaml"), update=True), lambda _: None)
        assert checked.exit_code == 0
    return folder


@pytest.fixture
def repository(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """Return a copy of it, in which instructions are counted only where a test is about them: it takes long."""
    if request.node.get_closest_marker("skipif") is None:
        monkeypatch.setattr(valgrind, "why_not", lambda: "not counted in this test")
    shutil.copytree(written, tmp_path / "repository")
    monkeypatch.chdir(tmp_path / "repository")
    return tmp_path / "repository"


def checked(capfd: Capfd, *options: str) -> Ended:
    return run_here(capfd, "check", *options, "--json")


def broken(ended: Ended) -> set[str]:
    """Return the limits that the document says are broken."""
    rows = ended.document["artifacts"]
    return {limit["figure"] for row in rows for limit in row["limits"] if limit["outcome"] == "broken"}


def cached_file(repository: Path) -> Path:
    (file,) = repository.glob(".cocorr/*/artifacts/*/model.onnx")
    return file


def change_a_weight(repository: Path) -> None:
    state = load_file(repository / "ck" / "model.safetensors")
    name = next(name for name in sorted(state) if state[name].size > 1)
    state[name] = state[name].copy()
    state[name].flat[1] += np.float32(0.5)
    save_file(state, repository / "ck" / "model.safetensors")


def train_again(repository: Path) -> None:
    shutil.rmtree(repository / "ck")
    model = tiny_models.build("scn")
    model.items.weight.data[5] += 0.25
    tiny_models.write("scn", repository / "ck", model=model)


def store_in_fewer_bits(repository: Path) -> None:
    with (repository / "cocorr.yaml").open("a") as file:
        file.write("  precisions: [int4]\n")


def leave_a_pass_out(repository: Path) -> None:
    with (repository / "cocorr.yaml").open("a") as file:
        file.write("  without_passes: [select_early]\n")


def pad(repository: Path) -> None:
    file = cached_file(repository)
    file.write_bytes(file.read_bytes() + bytes(file.stat().st_size * 3 // 100 + 1))


def make_it_slower(repository: Path) -> None:
    with (repository / "cocorr.yaml").open("a") as file:
        file.write("  without_passes: [simplify, absorb, recognise, fold_rows, select_early]\n")
        file.write("  limits: {flops: none, uncounted: none, size: none, memory: none}\n")


def widen_the_lock(repository: Path) -> None:
    """Say that the baseline was smaller than it was."""
    edit_lock(repository, lambda lock: lock["artifacts"][NAME]["figures"].update(flops=1))


def edit_lock(repository: Path, edit: Callable[[Any], object]) -> None:
    path = repository / "cocorr.lock.json"
    lock = json.loads(path.read_bytes())
    edit(lock)
    path.write_text(json.dumps(lock))


@pytest.mark.parametrize(
    ("change", "limit"),
    [
        (change_a_weight, "checkpoint"),
        (train_again, "checkpoint"),
        (store_in_fewer_bits, "precision"),
        (store_in_fewer_bits, "top10_overlap"),
        (leave_a_pass_out, "flops"),
        (pad, "size"),
        (widen_the_lock, "flops"),
    ],
)
def test_each_change_alone_breaks_its_limit(
    change: Callable[[Path], None], limit: str, repository: Path, capfd: Capfd
) -> None:
    change(repository)
    ended = checked(capfd)
    assert ended.code == 1, ended.err
    assert limit in broken(ended)


@pytest.mark.skipif(valgrind.why_not() is not None, reason=valgrind.why_not() or "")
def test_a_slower_graph_is_found_by_its_instructions(repository: Path, capfd: Capfd) -> None:
    make_it_slower(repository)
    ended = checked(capfd)
    assert ended.code == 1, ended.err
    (row,) = ended.document["artifacts"]
    assert "instructions" in broken(ended) <= {"instructions", "latency"}
    assert row["comparison"]["pairs"] == 1500 and row["comparison"]["ratio"] > 0


def test_what_changes_no_figure_breaks_no_limit(repository: Path, capfd: Capfd) -> None:
    def other_versions(lock: Any) -> None:
        lock["versions"]["torch"] = "2.12.0"

    edit_lock(repository, other_versions)
    ended = checked(capfd)
    assert ended.code == 0, ended.out
    assert ended.document["versions"]["torch"][0] == "2.12.0"


def test_nothing_is_made_again_that_is_there_and_a_report_shows_it(repository: Path, capfd: Capfd) -> None:
    before = cached_file(repository).stat().st_mtime_ns
    ended = run_here(
        capfd, "check", "--junit", "j.xml", "--markdown", "m.md", "--html", "r.html", "--annotations", "a.txt"
    )
    assert ended.code == 0, ended.err
    assert "capturing" not in ended.err and cached_file(repository).stat().st_mtime_ns == before
    assert NAME in ended.out and "::error" not in (repository / "a.txt").read_text()
    for name in ("j.xml", "m.md", "r.html"):
        assert NAME in (repository / name).read_text()


def test_update_writes_the_same_bytes_for_the_same_figures(repository: Path, capfd: Capfd) -> None:
    before = (repository / "cocorr.lock.json").read_bytes()
    assert checked(capfd, "--update").code == 0
    assert (repository / "cocorr.lock.json").read_bytes() == before


def test_update_writes_over_a_lock_that_a_merge_broke(repository: Path, capfd: Capfd) -> None:
    (repository / "cocorr.lock.json").write_text("<<<<<<< HEAD\n")
    assert "write it with --update" in run_here(capfd, "check").error_line()
    assert checked(capfd, "--update").code == 0 and checked(capfd).code == 0


def test_update_accepts_what_moved_and_the_next_check_passes(repository: Path, capfd: Capfd) -> None:
    leave_a_pass_out(repository)
    ended = checked(capfd, "--update")
    (row,) = ended.document["artifacts"]
    moved = {limit["figure"] for limit in row["limits"] if limit["value"] != limit["baseline"]}
    assert ended.code == 0 and broken(ended) == set() and "flops" in moved
    assert checked(capfd).code == 0
    assert len([*repository.glob(".cocorr/*/artifacts/*")]) == 1  # the one before is nobody's


def test_a_failure_is_no_baseline(repository: Path, capfd: Capfd) -> None:
    before = (repository / "cocorr.lock.json").read_bytes()
    pad(repository)
    ended = run_here(capfd, "check", "--update")
    assert ended.code == 1 and "cocorr.lock.json is as it was" in ended.out
    assert (repository / "cocorr.lock.json").read_bytes() == before


def test_what_only_one_of_the_two_has_breaks_the_gate(repository: Path, capfd: Capfd) -> None:
    edit_lock(repository, lambda lock: lock["artifacts"].update(other=lock["artifacts"].pop(NAME)))
    ended = checked(capfd)
    assert ended.code == 1
    assert broken(ended) == {"baseline"} and ended.document["gone"] == ["other"]


def test_bad_input_ends_before_anything_is_made(repository: Path, capfd: Capfd) -> None:
    shutil.rmtree(repository / ".cocorr")
    (repository / "cocorr.lock.json").rename(repository / "kept")
    assert "--update" in run_here(capfd, "check").error_line()
    (repository / "kept").rename(repository / "cocorr.lock.json")
    for config, words in (
        (
            "artifacts:\n- {model: scm, targets: [onnx]}",
            "cocorr.yaml:2: model: unknown model 'scm' (did you mean 'scn'?)",
        ),
        (
            "artifacts:\n- {model: scn, targets: [onix]}",
            "cocorr.yaml:2: targets: unknown target 'onix' (did you mean 'onnx'?)",
        ),
        (CONFIG + "  without_passes: [nothing]", "cocorr.yaml:5: without_passes: unknown pass 'nothing'"),
        (CONFIG + CONFIG.partition("\n")[2], "two artifacts are called"),
    ):
        (repository / "cocorr.yaml").write_text(config)
        ended = run_here(capfd, "check")
        assert ended.code == 2 and words in ended.error_line()
    assert not [*repository.glob(".cocorr/*/artifacts/*")]
    (repository / "cocorr.yaml").write_text(CONFIG)
    ended = run_here(capfd, "check", "--html", "no/where.html")
    assert ended.code == 2 and not [*repository.glob(".cocorr/*/artifacts/*")]


@pytest.mark.parametrize("place", ["cocorr.lock.json", "cocorr.yaml", ".cocorr/page.html"])
def test_a_report_does_not_take_the_place_of_the_gates_own_files(place: str, repository: Path, capfd: Capfd) -> None:
    before = (repository / "cocorr.lock.json").read_bytes(), (repository / "cocorr.yaml").read_bytes()
    ended = run_here(capfd, "check", "--html", repository / place)
    assert ended.code == 2 and "the gate's own" in ended.error_line()
    assert before == ((repository / "cocorr.lock.json").read_bytes(), (repository / "cocorr.yaml").read_bytes())


def test_no_line_begins_with_a_name(repository: Path, capfd: Capfd) -> None:
    """A CI's runner would take it for a command."""
    name = "::error file=x::pwned"
    (repository / "cocorr.yaml").write_text(f"{CONFIG}  name: '{name}'\n  without_passes: [select_early]\n")
    edit_lock(repository, lambda lock: lock["versions"].update({"torch": name}))
    edit_lock(repository, lambda lock: lock["artifacts"].update({f"{name} gone": lock["artifacts"][NAME]}))
    ended = run_here(capfd, "check")
    assert ended.code == 1 and name in ended.out
    assert not [line for line in (ended.out + ended.err).splitlines() if line.strip().startswith(":")]


def test_a_changed_pt2_is_another_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capfd) -> None:
    monkeypatch.chdir(tmp_path)

    def save(seed: int) -> None:
        torch.manual_seed(seed)
        module = nn.Linear(4, 3)
        torch.export.save(torch.export.export(module, (torch.ones(4),)), tmp_path / "m.pt2")

    save(1)
    np.savez(tmp_path / "in.npz", input=np.ones((3, 4), np.float32))
    limits = "  limits: {latency: none, instructions: none}\n"
    Path("cocorr.yaml").write_text(f"artifacts:\n- file: m.pt2\n  inputs: in.npz\n  targets: [onnx]\n{limits}")
    assert checked(capfd, "--update").code == 0
    assert checked(capfd).code == 0
    save(2)
    ended = checked(capfd)
    assert ended.code == 1 and broken(ended) == {"checkpoint"}


def test_an_own_model_is_made_again_when_anything_that_it_reads_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capfd
) -> None:
    """Its code reads a number from a file that no import shows; twice as many times the work is another program."""
    monkeypatch.chdir(tmp_path)
    about = tiny_models.write("gru4rec", tmp_path / "ck") / "config.json"
    about.write_text(about.read_text().replace('"gru4rec"', '"shop"'))
    (tmp_path / "shop.py").write_text(OWN)
    (tmp_path / "times.txt").write_text("1")
    limits = "  limits: {latency: none, instructions: none, size: none, memory: none}\n"
    Path("cocorr.yaml").write_text(f"artifacts:\n- model: shop.py:SPEC\n  checkpoint: ck\n  targets: [onnx]\n{limits}")
    assert checked(capfd, "--update").code == 0
    again = run_here(capfd, "check")
    assert again.code == 0 and "lowering" not in again.err
    (tmp_path / "times.txt").write_text("3")
    ended = checked(capfd)
    assert ended.code == 1 and "flops" in broken(ended), ended.out


def test_an_artifact_of_other_weights_in_the_cache_is_not_taken(repository: Path, capfd: Capfd) -> None:
    """As if somebody had put the old artifact where that of the changed weights would be."""
    from exporter.gate import config
    from exporter.pipeline.gating import jobs_of

    (old,) = repository.glob(".cocorr/*/artifacts/*")
    change_a_weight(repository)
    (job,) = jobs_of(config.load(Path("cocorr.yaml")), lambda _: None)[0]
    shutil.copytree(old, old.with_name(job.key[:16]))
    ended = checked(capfd)
    assert ended.code == 1 and broken(ended) == {"checkpoint"}


def test_two_checks_of_one_configuration_do_not_meet(repository: Path, capfd: Capfd) -> None:
    with Cache(Path("cocorr.yaml")).held():
        ended = run_here(capfd, "check")
    assert ended.code == 2 and "in use by another check" in ended.error_line()
    (repository / "other.yaml").write_text(CONFIG)
    (repository / "cocorr.lock.json").rename(repository / "other.lock.json")
    kept = cached_file(repository)
    assert run_here(capfd, "check", "other.yaml").code == 0 and kept.exists()


def test_a_missing_checkpoint_is_bad_input_and_not_a_failure(repository: Path, capfd: Capfd) -> None:
    shutil.rmtree(repository / "ck")
    ended = run_here(capfd, "check")
    assert ended.code == 2 and "ck" in ended.error_line()


def test_a_link_in_place_of_the_cache_is_not_followed(repository: Path, tmp_path: Path, capfd: Capfd) -> None:
    (repository / ".cocorr").rename(tmp_path / "elsewhere")
    (repository / ".cocorr").symlink_to(tmp_path / "elsewhere")
    before = sorted((tmp_path / "elsewhere").rglob("*"))
    ended = run_here(capfd, "check")
    assert ended.code == 2 and "link" in ended.error_line()
    assert sorted((tmp_path / "elsewhere").rglob("*")) == before


def test_init_names_the_checkpoints_below_and_overwrites_nothing(repository: Path, capfd: Capfd) -> None:
    (repository / "cocorr.yaml").unlink()
    ended = run_here(capfd, "check", "--init")
    assert ended.code == 0 and 'checkpoint: "ck"' in (repository / "cocorr.yaml").read_text()
    assert "is there already" in run_here(capfd, "check", "--init").error_line()
