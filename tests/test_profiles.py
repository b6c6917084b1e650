"""Device profiles: what is shipped, how one extends another, and where the fault is in one that does not fit."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from commands import run_here

from exporter import profiles
from exporter.core.errors import BadInputError
from exporter.targets import TARGETS
from models import checkpoint

SHIPPED = profiles.shipped()
SCHEMA = next(iter(SHIPPED.values())).with_name("schema.json")


def test_the_shipped_schema_is_the_models() -> None:
    """To write it anew: json.dumps(profiles.json_schema(), indent=2) and a line end."""
    assert SCHEMA.read_text() == json.dumps(profiles.json_schema(), indent=2) + "\n"


def test_every_kind_of_device_is_shipped() -> None:
    loaded = {name: profiles.load(name) for name in SHIPPED}
    assert all(name == profile.name and profile.description for name, profile in loaded.items())
    assert [profile.os for profile in loaded.values()].count("ios") == 2
    reached = {name: next(iter(one.connection.model_dump(exclude_none=True))) for name, one in loaded.items()}
    assert {name for name, way in reached.items() if way == "adb"} == {"pixel-8-pro", "moto-e13"}
    assert (reached["raspberry-pi-5"], reached["android-emulator"], reached["host"]) == ("ssh", "emulator", "host")
    assert {target for one in loaded.values() for target in one.allowed()} == set(TARGETS)


def test_the_links_are_the_papers() -> None:
    links = profiles.load("moto-e13").links
    assert [(link.name, link.down_bytes_per_s, link.round_trip_ms) for link in links] == [
        ("4G 5 MB/s", 5e6, None),
        ("4G 15 MB/s", 15e6, None),
        ("5G 50 MB/s", 50e6, None),
        ("5G 100 MB/s", 100e6, None),
        ("4G 40 Mbit/s", 40e6 / 8, None),
    ]


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_the_schema_takes_what_is_shipped(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA.read_text()))
    jsonschema.validate(yaml.safe_load(SHIPPED[name].read_text()), json.loads(SCHEMA.read_text()))


# Documents that both the editor's schema and the loader refuse, or both take.
DOCUMENTS: dict[str, tuple[str, bool]] = {
    "nothing but a name": ("name: a", False),
    "no target": ("name: a\ntargets: {}", True),
    "host as a word": ("name: a\ntargets: {onnx: }\nconnection: host", True),
    "host as a key": ("name: a\ntargets: {onnx: }\nconnection: {host: }", True),
    "two ways": ("name: a\ntargets: {onnx: }\nconnection: {host: , emulator: }", False),
    "no way": ("name: a\ntargets: {onnx: }\nconnection: {}", False),
    "another way": ("name: a\ntargets: {onnx: }\nconnection: telnet", False),
    "ssh without a host": ("name: a\ntargets: {onnx: }\nconnection: {ssh: {port: 22}}", False),
    "a password": ("name: a\ntargets: {onnx: }\nconnection: {ssh: {host: b, password: c}}", False),
    "an option for a host": ("name: a\ntargets: {onnx: }\nconnection: {ssh: {host: -oProxyCommand=x}}", False),
    "a command for a host": ("name: a\ntargets: {onnx: }\nconnection: {ssh: {host: 'b; c'}}", False),
    "an option for a user": ("name: a\ntargets: {onnx: }\nconnection: {ssh: {host: b, user: -l}}", False),
    "an option for a serial": ("name: a\ntargets: {onnx: }\nconnection: {adb: {serial: -e}}", False),
    "a serial": ("name: a\ntargets: {onnx: }\nconnection: {adb: {serial: '127.0.0.1:5555'}}", True),
    "an unknown processor": ("name: a\ntargets: {onnx: }\nconnection: {emulator: {cpu: max}}", False),
    "a link that stands still": (
        "name: a\ntargets: {onnx: }\nlinks: [{name: x, up_bytes_per_s: 0, down_bytes_per_s: 1}]",
        False,
    ),
    "a link": (
        "name: a\ntargets: {}\nlinks: [{name: x, up_bytes_per_s: 1, down_bytes_per_s: 1, round_trip_ms: 9}]",
        True,
    ),
    "no history": ("name: a\ntargets: {onnx: }\nhistory_length: 0", False),
    "no memory": ("name: a\ntargets: {onnx: }\nbudgets: {memory_bytes: 0}", False),
    "half a byte": ("name: a\ntargets: {onnx: }\nbudgets: {memory_bytes: 0.5}", False),
    "the longest history": (f"name: a\ntargets: {{onnx: }}\nhistory_length: {checkpoint.MAX_SIZE}", True),
    "a longer history": (f"name: a\ntargets: {{onnx: }}\nhistory_length: {checkpoint.MAX_SIZE + 1}", False),
    "all items": (f"name: a\ntargets: {{onnx: }}\ncandidates: {checkpoint.MAX_VOCABULARY - 1}", True),
    "more than all items": (f"name: a\ntargets: {{onnx: }}\ncandidates: {checkpoint.MAX_VOCABULARY}", False),
    "bytes without end": (f"name: a\ntargets: {{onnx: }}\nbudgets: {{size_bytes: {2**63}}}", False),
    "a link of no speed": (
        "name: a\ntargets: {onnx: }\nlinks: [{name: x, up_bytes_per_s: 1.0e-300, down_bytes_per_s: 1}]",
        False,
    ),
    "a link that clears the screen": (
        'name: a\ntargets: {onnx: }\nlinks: [{name: "\\e[2J", up_bytes_per_s: 1, down_bytes_per_s: 1}]',
        False,
    ),
    "a description that rings": ('name: a\ntargets: {onnx: }\ndescription: "\\a"', False),
}


@pytest.mark.parametrize("case", sorted(DOCUMENTS))
def test_the_schema_and_the_loader_agree(case: str, tmp_path: Path) -> None:
    text, good = DOCUMENTS[case]
    file = tmp_path / "a.yaml"
    file.write_text(text)
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    assert validator.is_valid(yaml.safe_load(text)) == good
    if good:
        assert profiles.load(str(file)).name == "a"
    else:
        with pytest.raises(BadInputError, match=r"a\.yaml:\d+: "):
            profiles.load(str(file))


@pytest.mark.parametrize("number", [".inf", "-.inf", ".nan", "1e400"])
@pytest.mark.parametrize(
    "key", ["threads: ", "budgets: {latency_us: ", "links: [{name: x, down_bytes_per_s: 1, up_bytes_per_s: "]
)
def test_a_number_that_is_not_finite_is_refused(key: str, number: str, tmp_path: Path) -> None:
    ends = {"budgets": "}", "links": "}]"}
    (tmp_path / "a.yaml").write_text(f"name: a\ntargets: {{onnx: }}\n{key}{number}{ends.get(key.split(':')[0], '')}")
    with pytest.raises(BadInputError, match=r"a\.yaml:3: "):
        profiles.load(str(tmp_path / "a.yaml"))


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{next(iter(files))}.yaml"


def test_a_key_replaces_the_bases_whole(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(
        tmp_path / "sub", base="name: base\ndescription: old\nextends: moto-e13\nthreads: 4\nbudgets: {parameters: 5}"
    )
    top = write(tmp_path, top="name: top\nextends: sub/base.yaml\nprecision: fp16\ntargets: {onnx: {opset: 18}}")
    profile = profiles.load(str(top))
    assert (profile.name, profile.description, profile.threads, profile.precision) == ("top", "", 4, "fp16")
    assert (profile.allowed(), profile.stated_budgets(), profile.os) == (["onnx"], {"parameters": 5}, "android")
    assert profile.links == profiles.load("paper-links").links


FAULTS: dict[str, tuple[dict[str, str], list[str]]] = {
    "in the base": (
        {"top": "name: top\nextends: base.yaml", "base": "name: b\nthreads: 0\ntargets: {onnx: }"},
        ["base.yaml:2: threads", "0", "greater than or equal to 1"],
    ),
    "above the base": (
        {"top": "extends: base.yaml\nname: top\nthreads: 0", "base": "name: b\nthreads: 1\ntargets: {onnx: }"},
        ["top.yaml:3: threads"],
    ),
    "unknown in the base": (
        {"top": "name: top\nextends: base.yaml", "base": "name: b\ntargets:\n  onnx:\n    turbo: 1"},
        ["base.yaml:4: targets.onnx.turbo", "unknown key", "opset"],
    ),
    "no name of its own": (
        {"top": "extends: base.yaml", "base": "name: b\ntargets: {onnx: }"},
        ["top.yaml:1: name", "missing"],
    ),
    "itself": ({"top": "name: top\nextends: ./top.yaml"}, ["top.yaml:2: extends", "in turn"]),
    "each other": (
        {"top": "name: top\nextends: base.yaml", "base": "name: b\n\nextends: top.yaml"},
        ["base.yaml:3: extends", "in turn"],
    ),
    "nobody": ({"top": "name: top\nextends: nokia"}, ["top.yaml:2: extends", "unknown profile 'nokia'", "moto-e13"]),
    "no file": ({"top": "name: top\nextends: gone.yaml"}, ["gone.yaml does not exist", "give the name or the file"]),
    "a number": ({"top": "name: top\nextends: 3"}, ["top.yaml:2: extends", "give the name or the file"]),
    "a null byte": ({"top": 'name: top\nextends: "a\\0.yaml"'}, ["top.yaml:2: extends", "unknown profile"]),
    "in a link": (
        {"top": "name: t\nextends: generic\nlinks:\n- {name: a, up_bytes_per_s: 1, down_bytes_per_s: 1}\n- {name: b}"},
        ["top.yaml:5: links.1.up_bytes_per_s", "missing"],
    ),
    "a key in a link": (
        {"top": "name: top\nextends: generic\nlinks:\n- name: a\n  up: 1"},
        ["top.yaml:5: links.0.up: unknown key", "up_bytes_per_s"],
    ),
    "a key in a scheme": (
        {"top": "name: top\nextends: generic\nprecision:\n  tables: int8\n  body: fp32\n  x: 1"},
        ["top.yaml:6: precision.x: unknown key", "body", "tables"],
    ),
    "half a certificate": (
        {"top": "name: top\nextends: phone-browser\nconnection: {browser: {open: phone, https: {certificate: a}}}"},
        ["top.yaml:3: connection.browser.https.key: this key is missing"],
    ),
    "a key in a certificate": (
        {"top": "name: t\nextends: generic\nconnection: {browser: {open: phone, https: {cert: a, key: b}}}"},
        ["top.yaml:3: connection.browser.https.cert: unknown key", "known here: certificate, key"],
    ),
    "a word for a certificate": (
        {"top": "name: top\nextends: phone-browser\nconnection: {browser: {open: phone, https: 'yes'}}"},
        ["top.yaml:3: connection.browser.https: 'yes': give true, false, or the files of a certificate"],
    ),
    "a list for options": (
        {"top": "name: top\nextends: phone-browser\nconnection: {browser: []}"},
        ["top.yaml:3: connection.browser: []: give a mapping of keys to values"],
    ),
    "half a scheme": (
        {"top": "name: top\nextends: generic\nprecision: {tables: int8}"},
        ["top.yaml:3: precision.body", "missing"],
    ),
    "two links of a name": (
        {"top": "name: t\nextends: generic\nlinks:\n" + "- {name: a, up_bytes_per_s: 1, down_bytes_per_s: 1}\n" * 2},
        ["top.yaml:3: links", "two links share a name"],
    ),
    "a key twice in one line": (
        {"top": "name: t\nextends: generic\nbudgets: {latency_us: 5, latency_us: 9}"},
        ["top.yaml:3: budgets.latency_us", "stands already in line 3"],
    ),
    "no words": (
        {"top": "name: t\nextends: generic\nthreads: '" + "9" * 9000 + "'"},
        ["top.yaml:3: threads", "999..."],
    ),
    "two ways": (
        {"top": "name: t\nextends: generic\nconnection: {host: , adb: }"},
        ["top.yaml:3: connection", "exactly one of host, emulator, ssh, adb"],
    ),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_a_fault_is_shown_where_it_is(fault: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    files, parts = FAULTS[fault]
    ended = run_here(
        capfd, "scn", "--target", "onnx", "--profile", write(tmp_path, **files), "--output", tmp_path / "out"
    )
    assert ended.code == 2
    line = ended.error_line()
    assert all(part in line for part in parts), line
    assert not (tmp_path / "out").exists()


def export(folder: Path, capfd: pytest.CaptureFixture[str], keys: str) -> Any:
    profile = write(folder, mine=f"name: mine\nextends: generic\n{keys}")
    return run_here(capfd, "scn", "--target", "onnx", "--profile", profile, "--output", folder / "out", "--json")


def test_the_program_has_the_lengths_of_the_profile(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ended = export(tmp_path, capfd, "history_length: 4\ncandidates: 30\nbudgets: {flops_per_token: 1.0e+9}")
    document = ended.document
    assert (ended.code, document["parity"]["verdict"]) == (0, "pass"), ended.err
    assert [entry["shape"] for entry in document["inputs"]] == [[1, 4], [1, 30]]
    assert "over lengths 2, 4 of" in document["flops"]["per_token_method"]


def test_a_step_costs_a_click_whoever_says_so(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    profile = write(tmp_path, mine="name: mine\nextends: generic\nbudgets: {flops_per_token: 1.0e+9}")
    chosen = ("--program", "step", "--target", "onnx", "--profile", profile, "--output", tmp_path / "out", "--json")
    exported = run_here(capfd, "scn", *chosen)
    assert exported.code == 0, exported.err
    flops = exported.document["flops"]
    assert (flops["per_token"], flops["per_token_method"]) == (flops["total"], "one call is one click")
    words = ("profile", exported.document["artifact"], "--iterations", "1", "--json")
    again = run_here(capfd, *words).document
    assert (again["flops"]["per_token"], again["budgets"]) == (flops["total"], exported.document["budgets"])


def test_a_budget_for_memory(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ended = export(tmp_path, capfd, "budgets: {memory_bytes: 1000}")
    memory, (row,) = ended.document["memory"], ended.document["budgets"]
    assert ended.code == 1
    assert (row["budget"], row["within"]) == ("memory_bytes", False)
    assert row["value"] == memory["constant_bytes"] + memory["planned_activation_bytes"]
