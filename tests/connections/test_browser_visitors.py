"""Devices that come to the page by other ways than the page: nothing that they send passes for a result."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from phone import Visitor
from servers import wait_for

from exporter.connections.agent.folder import PROTOCOL
from exporter.connections.browser import connection, device
from exporter.core.errors import ArtifactError, DeviceError, RuntimeCrashError, RuntimeMemoryError, RuntimeTimeoutError

SCORES = np.arange(60, dtype=np.float32)
OUTPUTS = SCORES.tobytes()


def response(number: int = 1, **changes: Any) -> bytes:
    """An answer that is good but for its changes; what is None is left out."""
    good = {
        "protocol": PROTOCOL,
        "number": number,
        "status": "ok",
        "executed_on": "a runtime",
        "load_ms": 1.5,
        "first_us": 2.5,
        "samples_us": [],
        "call_samples_us": [],
        "swap_ms": [],
        "wasm_heap_bytes": 1 << 20,
        "threads": 1,
        "conditions": {"isolated": "yes"},
    }
    return json.dumps({name: value for name, value in {**good, **changes}.items() if value is not ...}).encode()


@pytest.fixture
def asked(make_request, tiny_onnx):
    """A request without timed calls."""
    return make_request("onnx", tiny_onnx, iterations=0, warmup=0)


def test_a_visitor_gets_the_job_and_its_answer_is_the_result(waiting, visitor, asked, capfd) -> None:
    ran = waiting.run(asked)
    assert waiting.stand.url in capfd.readouterr().err
    assert visitor.hello() == 200
    event = visitor.next(0)
    job = event["job"]
    assert (event["kind"], job["number"], job["cases"], job["output_bytes"]) == ("job", 1, 3, len(OUTPUTS))
    assert visitor.status("started") == visitor.status("beat", {"phase": "x", "done": 1, "total": 3}) == 204
    files = [job["artifacts"][0][name] for name in ("model", "runtime", "trivial")]
    assert [visitor.get(name) for name in [*files, "job/1/0/inputs", "page.js"]] == [200] * 5
    assert [visitor.get(name) for name in ("job/2/0/model", "job/1/1/model", "job/1/0/data", "index.html")] == [404] * 4
    assert visitor.status("outputs", OUTPUTS) == 204
    assert visitor.status("response", response()) == 204
    result = ran.result(300)
    np.testing.assert_array_equal(result.outputs["scores"], SCORES.reshape(3, 1, 20))
    assert result.executed_on == "a runtime in Chrome 156 on Android 16"
    assert visitor.get(files[0]) == 404  # a job that is done has no files
    waiting.way.show("pass", "Pass", {"Cases": "3"})
    assert visitor.next(1) == {"kind": "verdict", "verdict": "pass", "words": "Pass", "facts": [["Cases", "3"]]}


def test_a_second_device_changes_nothing_during_a_run(waiting, visitor, asked) -> None:
    ran = waiting.run(asked)
    assert visitor.status("started") == 410  # nobody said hello
    assert visitor.hello() == 200 and visitor.status("started") == 204
    other = Visitor(waiting.stand)
    assert visitor.status("beat", {"visible": False}) == 204
    assert other.hello() == 409
    for ticket in ("", "x" * 22, visitor.ticket[:-1], visitor.ticket.swapcase(), "\xff"):
        other.ticket = ticket
        said = [
            other.status("outputs", bytes(len(OUTPUTS))),
            other.status("response", response(executed_on="somebody else")),
            *(other.status(word) for word in ("beat", "started", "bye", "next")),
        ]
        assert said == [410] * 6, ticket
        assert other.status("response", b" " * 8193) == 413  # nothing large is read of a stranger
    at = waiting.stand.session.situation()
    assert (at.has_left, at.beat.is_visible) == (False, False)
    assert (visitor.status("outputs", OUTPUTS), visitor.status("response", response())) == (204, 204)
    assert ran.result(300).executed_on.startswith("a runtime in ")
    np.testing.assert_array_equal(ran.result().outputs["scores"].ravel(), SCORES)


def test_a_look_takes_nobodys_place(waiting, visitor, asked, monkeypatch) -> None:
    ran = waiting.run(asked)
    second, third, fourth = (Visitor(waiting.stand) for _ in range(3))
    assert visitor.hello() == 200 and second.hello() == 409
    assert visitor.status("bye") == 204  # as of an app that reads codes, and then opens the browser
    assert second.hello() == 200 and visitor.status("next") == 410
    assert second.status("beat", {"visible": False}) == 204  # one that stays behind another app
    assert third.hello() == 200 and second.status("next") == 410
    monkeypatch.setattr(device, "_IDLE_S", -1.0)  # one that says nothing any more
    assert fourth.hello() == 200 and third.status("started") == 410
    assert fourth.status("started") == 204
    assert visitor.hello() == 409
    fourth.say("outputs", OUTPUTS)
    fourth.say("response", response())
    assert ran.result(300).threads == 1


@pytest.mark.parametrize(
    ("last", "silence_s", "said"),
    [
        (
            "bye",
            300.0,
            r"Chrome 156 on Android 16 left the page before the results were there; start the command again",
        ),
        ("beat", 0.5, r"Chrome 156 on Android 16 gave no sign for 0\.5 s; keep its screen on and the page in front"),
        ("hidden", 0.5, r"gave no sign for 0\.5 s, after its page went into the background; keep"),
    ],
)
def test_a_phone_that_vanishes(last, silence_s, said, waiting, visitor, asked, monkeypatch) -> None:
    monkeypatch.setattr(connection, "_SILENCE_S", silence_s)
    ran = waiting.run(asked)
    visitor.hello()
    visitor.say("started")
    visitor.say("beat" if last == "hidden" else last, {"visible": last != "hidden"})
    with pytest.raises(DeviceError, match=said):
        ran.result(300)


def test_nobody_comes_or_begins(waiting, visitor, asked, monkeypatch) -> None:
    monkeypatch.setattr(connection, "_ARRIVAL_S", 0.5)
    with pytest.raises(DeviceError, match=r"nobody opened the page and pressed Run within 0\.5 s; start the command"):
        waiting.run(asked).result(300)
    visitor.hello()
    with pytest.raises(DeviceError, match=r"nobody opened the page and pressed Run"):
        waiting.run(asked).result(300)


def test_a_device_cannot_begin_again_and_again(waiting, visitor, make_request, tiny_onnx) -> None:
    ran = waiting.run(make_request("onnx", tiny_onnx, time_limit_s=0.5))
    visitor.hello()
    assert wait_for(lambda: visitor.status("started") == 410 or ran.done())
    with pytest.raises(RuntimeTimeoutError, match=r"did not finish within 0\.5 s in the browser"):
        ran.result()


NEVER_READ = "the agent's answer cannot be read: "
HOSTILE = {
    "no outputs": (None, response(), "the outputs did not come"),
    "short": (OUTPUTS[:-1], response(), "the outputs did not come"),
    "another job": (OUTPUTS, response(2), "it is that of another job"),
    "another protocol": (OUTPUTS, response(protocol=1), "it speaks protocol 1"),
    "no status": (OUTPUTS, response(status=...), "no status"),
    "no name": (OUTPUTS, response(executed_on=...), "executed_on must be a string"),
    "no swaps": (OUTPUTS, response(swap_ms=...), "swap_ms must be no numbers or one for each case"),
    "too many": (OUTPUTS, response(samples_us=[1.0] * 9), "samples_us must be 0 numbers"),
    "negative": (OUTPUTS, response(load_ms=-1), "load_ms must be a finite number"),
    "NaN": (OUTPUTS, response(load_ms=float("nan")), NEVER_READ + "NaN is not JSON"),
    "1e400": (OUTPUTS, response().replace(b"1.5", b"1e400"), NEVER_READ + "1e400 is too large"),
    "10**400": (OUTPUTS, response(load_ms=10**400), "load_ms must be a finite number"),
    "10**5000": (OUTPUTS, response().replace(b"1.5", b"1" * 5000), NEVER_READ),
    "words": (OUTPUTS, response(threads="2"), "threads must be"),
    "conditions": (OUTPUTS, response(conditions={str(one): "" for one in range(17)}), "at most 16 strings"),
    "nested": (OUTPUTS, b"[" * 100_000, NEVER_READ + "it is nested too deeply"),
    "bytes": (OUTPUTS, b"\xff\0", NEVER_READ),
    "list": (OUTPUTS, b"[]", "it is not a JSON object"),
    "kind": (None, response(status="error", kind="\x1b[2J\n", message="x"), "an unknown kind of error"),
}


@pytest.mark.parametrize("wrong", sorted(HOSTILE))
def test_an_answer_that_is_none(wrong, waiting, visitor, asked) -> None:
    outputs, content, said = HOSTILE[wrong]
    ran = waiting.run(asked)
    visitor.hello()
    if outputs is not None:
        assert visitor.status("outputs", outputs) == (204 if len(outputs) == len(OUTPUTS) else 400)
    assert visitor.status("response", content) == 204
    with pytest.raises(RuntimeCrashError) as caught:
        ran.result(300)
    assert said in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize(("kind", "error"), [("memory", RuntimeMemoryError), ("signature", ArtifactError)])
def test_an_error_that_a_page_reports(kind, error, waiting, visitor, asked) -> None:
    ran = waiting.run(asked)
    visitor.hello()
    visitor.say("response", response(status="error", kind=kind, message="\x1b[2Jit\nis so", stack="at\x07 x"))
    with pytest.raises(error, match="it is so") as caught:
        ran.result(300)
    assert str(caught.value).isprintable()


def test_what_is_too_much_or_too_late_changes_nothing(waiting, visitor, asked) -> None:
    ran = waiting.run(asked)
    visitor.hello()
    assert visitor.status("outputs", OUTPUTS + b"\0") == 413
    assert visitor.status("response", b"x" * (64 * 2**20 + 1)) == 413
    assert visitor.status("beat", b"x" * 8193) == 413
    for body in (
        b"",
        b"[]",
        b"\xff",
        b'{"after":',
        b'{"after":true}',
        b'{"after":-1}',
        b'{"after":2}',
        b'{"after":1e9}',
    ):
        assert visitor.status("next", body) == 400, body
    for words in ({"done": 10**400, "total": "x", "phase": 7}, {"phase": "\x1b]0;x\x07" * 50, "done": -1}):
        assert visitor.status("beat", words) == 204
        beat = waiting.stand.session.situation().beat
        assert beat.phase.isprintable() and len(beat.phase) <= 60 and (beat.done, beat.total) == (0.0, 0.0)
    visitor.say("outputs", OUTPUTS)
    conditions = {"clock\x1b[2J": "a\nb", "x": "y" * 10_000}
    assert visitor.status("response", response(conditions=conditions)) == 204
    assert visitor.status("response", response(executed_on="later")) == 409
    result = ran.result(300)
    said = dict(result.conditions)
    assert said["clock"] == "a b" and len(said["x"]) <= 500 and result.executed_on.startswith("a runtime")
    assert (visitor.status("outputs", OUTPUTS), visitor.status("response", response())) == (404, 409)


def test_what_comes_late_of_a_job_is_not_the_next_ones(waiting, visitor, asked) -> None:
    """It was on its way when the command gave that job up."""
    ran = waiting.run(replace(asked, time_limit_s=0.3))
    visitor.hello()
    visitor.say("started")
    with pytest.raises(RuntimeTimeoutError):
        ran.result(300)
    ran = waiting.pool.submit(waiting.way.run, asked)
    assert visitor.next(1)["job"]["number"] == 2
    assert visitor.status("outputs", bytes(len(OUTPUTS))) == visitor.status("response", response()) == 204
    visitor.job = 2
    assert visitor.status("outputs", OUTPUTS) == visitor.status("response", response(2)) == 204
    np.testing.assert_array_equal(ran.result(300).outputs["scores"].ravel(), SCORES)
