"""What comes back from a device is checked before it is believed."""

import io
import json
import zipfile

import numpy as np
import pytest

from exporter.connections.agent.folder import PROTOCOL
from exporter.connections.run_folder import read_comparison, read_response, write_request
from exporter.core.errors import BadInputError, RuntimeCrashError

GOOD = {
    "protocol": PROTOCOL,
    "status": "ok",
    "executed_on": "a runtime",
    "load_ms": 1.5,
    "first_us": 2,
    "samples_us": [1.0, 2.0, 3.0, 4.0, 5.0],
    "call_samples_us": [1.0, 1.0, 1.0, 1.0, 2.0],
    "call_reason": None,
    "swap_ms": [],
    "peak_rss_bytes": 7,
    "baseline_rss_bytes": None,
    "threads": 1,
    "reason": None,
    "conditions": {"governor": "performance\x1b[2J"},
}
OUTPUT = np.arange(60, dtype=np.float32).reshape(3, 1, 20)


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.fixture
def answer(tmp_path, make_request):
    """Writes a response and outputs and reads them as the answer to the tiny request."""

    def read(response, members=None):
        content = response if isinstance(response, str) else json.dumps(response)
        (tmp_path / "response.json").write_text(content)
        with zipfile.ZipFile(tmp_path / "outputs.npz", "w") as archive:
            for name, data in ({"arr_0.npy": npy(OUTPUT)} if members is None else members).items():
                archive.writestr(name, data)
        return read_response(tmp_path, make_request("onnx", tmp_path / "model.onnx"))

    return read


def test_reads_a_good_answer(answer):
    result = answer(GOOD)
    np.testing.assert_array_equal(result.outputs["scores"], OUTPUT)
    assert result.outputs["scores"].flags.writeable
    assert (result.load_ms, result.first_us, result.samples_us) == (1.5, 2.0, (1.0, 2.0, 3.0, 4.0, 5.0))
    assert (result.peak_rss_bytes, result.baseline_rss_bytes, result.threads) == (7, None, 1)
    assert result.conditions == {"governor": "performance"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protocol": 1}, "speaks protocol 1, this side 4; put the same version on both sides"),
        ({"protocol": None}, "speaks protocol None"),
        ({"status": "perhaps"}, "no status"),
        ({"executed_on": 3}, "executed_on must be a string"),
        ({"load_ms": float("nan")}, "NaN is not JSON"),
        ({"load_ms": float("inf")}, "Infinity is not JSON"),
        ({"load_ms": -1}, "load_ms must be a finite number"),
        ({"load_ms": True}, "load_ms must be a finite number"),
        ({"first_us": "2"}, "first_us must be a finite number"),
        ({"call_samples_us": [1.0]}, "call_samples_us must be 5 numbers"),
        ({"call_samples_us": None}, "call_samples_us must be 5 numbers"),
        ({"first_us": 10**400}, "first_us must be a finite number"),
        ({"samples_us": [1.0]}, "samples_us must be 5 numbers"),
        ({"samples_us": [1.0, 2.0, 3.0, 4.0, None]}, "samples_us must be a finite number"),
        ({"peak_rss_bytes": 1.5}, "peak_rss_bytes must be a whole number"),
        ({"threads": -1}, "threads must be a whole number"),
        ({"reason": []}, "reason must be a string"),
        ({"conditions": {"governor": 3}}, "governor must be a string"),
        ({"conditions": {str(n): "" for n in range(17)}}, "conditions must be at most 16 strings"),
    ],
)
def test_refuses_wrong_fields(answer, change, words):
    with pytest.raises(RuntimeCrashError, match=words):
        answer({**GOOD, **change})


MAY_LACK = {"peak_rss_bytes", "baseline_rss_bytes", "threads", "reason", "call_reason"}


@pytest.mark.parametrize("missing", sorted(set(GOOD) - MAY_LACK))
def test_refuses_missing_fields(answer, missing):
    with pytest.raises(RuntimeCrashError):
        answer({name: value for name, value in GOOD.items() if name != missing})


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, '"ok"', '{"protocol": 1' + "0" * 5000 + "}"])
def test_refuses_what_is_not_an_answer(answer, content):
    with pytest.raises(RuntimeCrashError):
        answer(content)


def test_refuses_an_endless_answer(tmp_path, make_request):
    with (tmp_path / "response.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(RuntimeCrashError, match="larger than"):
        read_response(tmp_path, make_request("onnx", tmp_path / "model.onnx"))


def forged(shape: str, dtype: str = "<f4") -> bytes:
    """An .npy whose header promises what the file does not hold."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, "arr_0"),
        ({"arr_0.npy": b""}, "damaged"),
        ({"arr_0.npy": npy(OUTPUT)[:-4]}, "of 240 bytes by its header and of others"),
        ({"arr_0.npy": npy(OUTPUT) + b"more"}, "of 240 bytes by its header and of others"),
        ({"arr_0.npy": npy(OUTPUT.astype(np.float64))}, "float64"),
        ({"arr_0.npy": npy(OUTPUT[:2])}, r"\[2, 1, 20\]"),
        ({"arr_0.npy": npy(np.asfortranarray(OUTPUT.reshape(3, 20)))}, r"\[3, 20\]"),
        ({"arr_0.npy": forged("(1000000000000, 1, 20)")}, "1000000000000"),
        ({"arr_0.npy": forged("(3, 1, 20)")}, r"\[3, 1, 20\] in 128 bytes"),
        ({"arr_0.npy": forged("(3, 1, 20)", "|O")}, "object"),
        ({"arr_0.npy": forged("__import__('os')")}, "damaged"),
    ],
)
def test_refuses_forged_outputs(answer, members, words):
    with pytest.raises(RuntimeCrashError, match=words):
        answer(GOOD, members)


def test_refuses_a_damaged_archive(answer, tmp_path, make_request):
    answer(GOOD)
    whole = (tmp_path / "outputs.npz").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.integers(len(damaged))] ^= 1 << int(rng.integers(8))
        (tmp_path / "outputs.npz").write_bytes(bytes(damaged))
        try:
            result = read_response(tmp_path, make_request("onnx", tmp_path / "m"))
        except RuntimeCrashError:
            continue
        # A flipped bit of a time stamp changes nothing; one of the content never passes the archive's checksum.
        np.testing.assert_array_equal(result.outputs["scores"], OUTPUT)


@pytest.mark.parametrize("kind", ["request", "protocol"])
def test_reported_refusals_keep_their_words(answer, kind):
    with pytest.raises(BadInputError, match="so it is"):
        answer({"protocol": PROTOCOL, "status": "error", "kind": kind, "message": "so it is"})


def test_an_unknown_kind_of_error_is_a_crash(answer):
    with pytest.raises(RuntimeCrashError, match="unknown kind of error, 'mood': so it is"):
        answer({"protocol": PROTOCOL, "status": "error", "kind": "mood", "message": "so it is"})


def test_the_request_survives_names_that_are_no_identifiers(tmp_path, make_request):
    """np.savez has an argument named file, and a name may hold a slash: neither reaches the archive."""
    names = ("file", "../a/b", "")
    request = make_request("onnx", tmp_path, inputs={name: np.full((2, 3), i) for i, name in enumerate(names)})
    write_request(tmp_path, request, "model.onnx", None, watch_stdin=False)
    assert json.loads((tmp_path / "request.json").read_text())["inputs"] == list(names)
    with np.load(tmp_path / "inputs.npz", allow_pickle=False) as stored:
        assert [int(stored[f"arr_{i}"][0, 0]) for i in range(3)] == [0, 1, 2]


def test_a_comparison_needs_as_many_times_of_both(tmp_path, make_request, tiny_onnx):
    request = make_request("onnx", tiny_onnx)
    paired = {"executed_on": "one", "rival_executed_on": "other", "threads": 1, "rival_threads": None}
    times = {"samples_us": [1, 2, 3, 4, 5], "rival_samples_us": [2, 4, 6, 8, 10]}
    whole = {"protocol": PROTOCOL, "status": "ok", **paired, **times}
    (tmp_path / "response.json").write_text(json.dumps(whole))
    read = read_comparison(tmp_path, request)
    assert (read.first_us, read.second_us) == ((1, 2, 3, 4, 5), (2, 4, 6, 8, 10))
    assert (read.executed_on, read.threads) == (("one", "other"), (1, None))
    for wrong in ({"rival_samples_us": [1]}, {"samples_us": None}, {"rival_executed_on": 3}, {"rival_threads": -1}):
        (tmp_path / "response.json").write_text(json.dumps({**whole, **wrong}))
        with pytest.raises(RuntimeCrashError, match="not usable"):
            read_comparison(tmp_path, request)
