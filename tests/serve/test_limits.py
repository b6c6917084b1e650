"""A service under those who wish it well, and those who do not: the real server on a socket, with a planted model."""

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from planted_service import GOOD, Served, post, received, serving
from servers import wait_for

from exporter.core.errors import BadInputError
from exporter.serve import server


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving() as one:
        yield one


def test_whoever_comes_while_the_model_is_busy_is_in_the_next_call_and_nobody_is_lost() -> None:
    with serving() as served, ThreadPoolExecutor(16) as clients:
        served.gate.clear()
        first = clients.submit(served.ask)
        assert wait_for(lambda: served.calls == [1])
        others = [clients.submit(served.ask) for _ in range(9)]
        # Four wait; the other five are told so at once, while the model is still busy.
        assert wait_for(lambda: sum(one.done() for one in others) == 5)
        assert served.value("cocorr_serve_queue_users") == 4
        assert served.value("cocorr_serve_in_flight") == 5
        refused = [one.result() for one in others if one.done()]
        assert {(status, head["retry-after"]) for status, head, _ in refused} == {(429, "1")}
        assert json.loads(refused[0][2])["error"] == "4 users wait already; ask again"
        served.gate.set()
        answers = [one.result()[0] for one in (first, *others)]
        assert sorted(answers) == [200] * 5 + [429] * 5 and served.calls == [1, 3, 1]
        assert served.value('cocorr_serve_requests_total{status="429"}') == 5
        assert served.value("cocorr_serve_batch_users_sum") == 5


def test_a_user_is_told_when_the_deadline_is_over_and_is_not_computed_then() -> None:
    with serving(deadline_s=0.2, queue=8) as served, ThreadPoolExecutor(8) as clients:
        served.gate.clear()
        asked = [clients.submit(served.ask) for _ in range(5)]
        assert {one.result()[0] for one in asked} == {504}
        served.gate.set()
        assert served.ask()[0] == 200
        assert sum(served.calls) < 6  # those who waited were left out


def test_a_batch_that_fails_is_told_of_and_the_next_one_runs(served: Served) -> None:
    served.fails = True
    assert served.ask()[0] == 500
    served.fails = False
    assert served.told == ["warning: a batch of 1 failed: RuntimeError: no room"]
    assert served.ask()[0] == 200


def test_a_server_that_stops_answers_whom_it_took_and_takes_nobody() -> None:
    served = Served()
    with ThreadPoolExecutor(4) as clients, served.open() as idle:
        served.gate.clear()
        asked = [clients.submit(served.ask) for _ in range(3)]
        assert wait_for(lambda: served.value("cocorr_serve_in_flight") == 3)
        served.server.should_exit = True
        assert received(idle) == b""
        with pytest.raises(OSError):
            served.open()
        served.gate.set()
        assert [one.result()[0] for one in asked] == [200, 200, 200]
    served.end()


DEEP = b'{"latent": ' + b"[" * 500 + b"]" * 500 + b"}"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (GOOD, 200, '[1.0, 2.5, -300.0, "fp32"]'),
        (b'{"structure": "10", "latent": [1, 2, 3], "stored": "int8"}', 200, '"int8"'),
        (b'{"structure": "10", "latent": [1, 2, 3], "user": 17}', 400, "'user' is not taken"),
        (b'{"structure": "10", "latent": [1, 2, 3], "item_ids": [1]}', 400, "nothing that says whose it is"),
        (b'{"structure": "10"}', 400, "'latent': Field required"),
        (b'{"structure": "12", "latent": [1, 2, 3]}', 400, "'structure'"),
        (b'{"structure": "10\\n", "latent": [1, 2, 3]}', 400, "'structure'"),
        (b'{"structure": [1, 0], "latent": [1, 2, 3]}', 400, "'structure'"),
        (b'{"structure": "10", "latent": [1, 2]}', 400, "'latent'"),
        (b'{"structure": "10", "latent": [1, 2, 3, 4]}', 400, "'latent'"),
        (b'{"structure": "10", "latent": [1, 2, [3]]}', 400, "'latent.2'"),
        (b'{"structure": "10", "latent": [1, 2, true]}', 400, "'latent.2'"),
        (b'{"structure": "10", "latent": [1, 2, "3"]}', 400, "'latent.2'"),
        (b'{"structure": "10", "latent": [1, 2, null]}', 400, "'latent.2'"),
        (b'{"structure": "10", "latent": [1, 2, NaN]}', 400, "'latent.2'"),
        (b'{"structure": "10", "latent": [1, 2, -Infinity]}', 400, "'latent.2'"),
        (b'{"structure": "10", "latent": [1, 2, 1e39]}', 400, "'latent.2'"),
        (b'{"structure": "10", "latent": [1, 2, 1e999]}', 400, "'latent.2'"),
        (b'{"structure": "10", "latent": [1, 2, ' + b"9" * 500 + b"]}", 400, "'latent.2'"),
        (b'{"structure": "10", "latent": [1, 2, 3], "stored": "fp64"}', 400, "'stored'"),
        (b'{"structure": "10", "latent": [1, 2, 3], "1799": 0}', 400, "a field of another name is not taken"),
        (b'{"latent": [1, 2, 3], "structure": "10", "lat\\u0065nt": [1, 2, 3]}', 400, "a field is given twice"),
        (b'{"latent": {"a": [1' + b"7" * 500 + b']}, "structure": "10", "latent": [1, 2, 3]}', 400, "twice"),
        (DEEP, 400, "error"),
        (b"[1, 2]", 400, "error"),
        (b"", 400, "error"),
        (b"{", 400, "error"),
        (b"\xff\xfe{}", 400, "error"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_body_is_what_the_program_takes_and_no_more(body: bytes, status: int, words: str, served: Served) -> None:
    answer = served.ask(body)
    assert (answer[0], words in answer[2].decode()) == (status, True), answer
    if status != 200:
        assert set(json.loads(answer[2])) == {"error"} and b"\n" not in answer[2]
        assert not any(number in answer[2] for number in (b"2.5", b"17", b"999"))  # nothing of a user comes back


def test_what_is_no_good_request_is_refused_in_words(served: Served) -> None:
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (GOOD[:9], GOOD[9:])) + b"0\r\n\r\n"
    endless = b"ffff\r\n" + b" " * 0xFFFF + b"\r\n0\r\n\r\n"
    cases = [
        (post(GOOD), b"200"),
        (post(GOOD, line="POST /v1/weights HTTP/1.0"), b"200"),
        (post(chunked, "Transfer-Encoding: chunked", length=""), b"200"),
        (post(endless, "Transfer-Encoding: chunked", length=""), b"413"),
        (post(b" " * 9000), b"413"),
        (post(b" " * (10 << 20)), b"413"),
        (post(chunked, "Transfer-Encoding: chunked", length=str(len(GOOD))) + post(GOOD), b"400"),
        (post(chunked, "Transfer-Encoding: chunked", length="", line="POST /v1/weights HTTP/1.0"), b"400"),
        (post(GOOD, "Content-Encoding: gzip"), b"415"),
        (post(GOOD, "Content-Type: application/json"), b"415"),
        (post(GOOD).replace(b"/json", b'/json; charset="UTF-8"'), b"200"),
        (post(GOOD).replace(b"/json", b"/json;charset=utf-16"), b"415"),
        (post(GOOD).replace(b"/json", b"/json;charset=utf-8;charset=utf-16"), b"415"),
        (post(b"", length=str(1 << 40)), b"413"),
        (post(b"", length="-1"), b"400"),
        (post(b"", length="1e3"), b"400"),
        (post(GOOD, "Content-Length: 3"), b"400"),
        (post(GOOD).replace(b"application/json", b"text/plain"), b"415"),
        (post(GOOD).replace(b"Host", b"Hose"), b"400"),
        (post(GOOD, line="GET /v1/weights HTTP/1.1"), b"405"),
        (post(GOOD, line="POST /v1/weights/ HTTP/1.1"), b"404"),
        (post(GOOD, line="POST /v1/../metrics HTTP/1.1"), b"404"),
        (post(GOOD, line="POST http://other.example/v1/weights HTTP/1.1"), b"404"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"400"),
    ]
    for content, status in cases:
        answer = served.raw(content)
        assert answer.startswith(b"HTTP/1.1 " + status) and answer.count(b"HTTP/1.1 ") == 1, (
            content[:80],
            answer[:200],
        )
        assert b"server:" not in answer.lower() and b"access-control" not in answer.lower()
        assert b"anything.example" not in answer
    assert served.ask(path="/healthz", method="GET")[0] == served.ask(path="/readyz", method="GET")[0] == 200


@pytest.mark.parametrize("address", ["a..b", "x" * 64, ".", "a." + "x" * 64 + ".example"])
def test_what_is_no_address_is_refused_in_one_line(address: str) -> None:
    with pytest.raises(BadInputError, match="choose another --bind or --port"):
        server.bind(address, 0).close()


def test_a_socket_takes_nobody_before_it_is_served_and_no_answer_of_it_waits_for_a_delayed_acknowledgement() -> None:
    with server.bind("127.0.0.1", 0) as listener:
        with pytest.raises(ConnectionRefusedError):  # nobody is taken before there is something to answer with
            socket.create_connection(listener.getsockname())
        listener.listen()
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as taken:
            assert taken.proto == socket.IPPROTO_TCP  # what asyncio looks for before it sets TCP_NODELAY


def test_a_head_without_an_end_is_cut_off(served: Served) -> None:
    with served.open() as opened, contextlib.suppress(OSError):
        for _ in range(1 << 12):
            opened.sendall(b"x" * 4096)
        pytest.fail("it took 16 MB of a head")
    assert served.ask()[0] == 200


def test_pipelined_requests_are_answered_in_their_order(served: Served) -> None:
    bodies = [b'{"structure": "10", "latent": [%d, 0, 0]}' % at for at in range(5)]
    kept = [post(body).replace(b"Connection: close\r\n", b"") for body in bodies[:-1]]
    answer = served.raw(b"".join([*kept, post(bodies[-1])]))
    assert answer.count(b"HTTP/1.1 200") == 5
    places = [answer.index(b"[%d.0, 0.0" % at) for at in range(5)]
    assert places == sorted(places)


def test_whoever_is_slow_takes_nothing_from_others() -> None:
    with serving(read_s=0.5) as served:
        with served.open() as silent, served.open() as slow, served.open() as half:
            slow.sendall(b"POST /v1/weights HTTP/1.1\r\nHost: x\r\n")
            half.sendall(post(GOOD)[:-5])
            assert served.ask()[0] == 200
            assert received(silent) == received(slow) == b""
            assert received(half).startswith(b"HTTP/1.1 408")
        assert wait_for(lambda: served.value("cocorr_serve_connections") == 0)


def test_a_thousand_who_ask_nothing_make_room_for_one_who_asks() -> None:
    with serving(connections=64) as served:
        waiting = []

        async def crowd() -> None:
            for _ in range(1000):
                waiting.append(await asyncio.open_connection("127.0.0.1", served.port))

        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(crowd())
            assert served.ask()[0] == 200
            assert served.value("cocorr_serve_connections") <= 64
        finally:
            for _, writer in waiting:
                writer.close()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()


def test_whoever_sends_no_more_gets_the_answers_to_what_has_come(served: Served) -> None:
    kept = post(GOOD).replace(b"Connection: close\r\n", b"")
    for content, answers in ((kept, 1), (kept * 3, 3), (kept * 2 + kept[:-5], 2), (kept + b"POST", 1), (kept[:-5], 0)):
        with served.open() as opened:
            served.gate.clear()
            opened.sendall(content)
            opened.shutdown(socket.SHUT_WR)
            if answers:
                assert wait_for(lambda: served.value("cocorr_serve_in_flight") == 1)
            served.gate.set()
            assert received(opened).count(b"HTTP/1.1 200") == answers, content
    assert wait_for(lambda: served.value("cocorr_serve_connections") == 0)


def test_whoever_leaves_does_not_stop_the_others(served: Served) -> None:
    served.gate.clear()
    calls = len(served.calls)
    with served.open() as leaving:
        leaving.sendall(post(GOOD))
        assert wait_for(lambda: len(served.calls) == calls + 1)
    with served.open() as leaving:
        leaving.sendall(post(GOOD)[:-5])
    served.gate.set()
    assert served.ask()[0] == 200
