"""The page's server, attacked with real requests: it serves its list, to its own page, and outlives everybody."""

import http.client
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import raw_client
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from raw_client import MODEL, MOST, PAGE, Client, Stub, status

from exporter.connections.browser import addresses, server, wire
from exporter.connections.browser.server import Reply, Served, Server
from exporter.core.errors import DeviceError


@pytest.fixture
def site() -> Iterator[Stub]:
    stub = Stub()
    yield stub
    stub.awake.set()


@pytest.fixture
def served(site: Stub, capfd: pytest.CaptureFixture[str]) -> Iterator[Client]:
    """A server whose threads all end, which says nothing, and which serves its page to the last."""
    with Server(site) as running:
        client = Client(running)
        yield client
        assert client.answer("GET", "").content == PAGE
    assert raw_client.all_end()
    assert capfd.readouterr() == ("", "")


def test_the_page_its_files_and_what_it_posts(served: Client) -> None:
    assert served.answer("GET", "", Sec_Fetch_Site="none").content == PAGE
    model = served.answer("GET", "files/model.onnx", Sec_Fetch_Site="same-origin", Origin=served.origin)
    assert (model.status, model.content, model.headers["Content-Type"]) == (200, MODEL, "model/x")
    assert served.answer("POST", "echo", b"x" * MOST, Cocorr_Visit="7").content == b"7|" + b"x" * MOST
    assert served.answer("POST", "echo", b"").content == b"|"
    assert served.raw(served.request(body=b"abc")).endswith(b"\r\n\r\n|abc")


def test_an_empty_reply_has_no_length(served: Client, site: Stub) -> None:
    site.awake.set()
    answer = served.answer("POST", "poll", b"")
    assert (answer.status, answer.content, answer.headers["Content-Length"]) == (204, b"", None)


TARGETS = [
    *(
        "/",
        "/favicon.ico",
        "{path}nothing",
        "{bare}",
        "{bare}x/",
        "/x{path}",
        "/{path}",
        "{path}/",
        "{path}?",
        "{path}?a=b",
    ),
    *("{path}files", "{path}files/", "{path}files//model.onnx", "{path}files/./model.onnx", "{path}files/model.onnx/"),
    *(
        "{path}x/../files/model.onnx",
        "{path}../{path}",
        "{path}..",
        "{path}%2e%2e/%2e%2e/etc/passwd",
        "{path}files%2fmodel.onnx",
    ),
    *(
        "{path}files\\model.onnx",
        "{path}../../../../etc/passwd",
        "{path}%66iles/model.onnx",
        "{path}files/model.onnx%00",
    ),
    *("{path}files/model.onnx;x", "{path}FILES/model.onnx", "{path}#", "{path}echo", "/{upper}/"),
]


@pytest.mark.parametrize("target", TARGETS)
def test_any_other_name_is_not_found(served: Client, site: Stub, target: str) -> None:
    site.file = lambda name: {"": Served(PAGE, "x"), "files/model.onnx": Served(MODEL, "x")}.get(name)  # type: ignore[method-assign]
    token = served.path.strip("/")
    path = target.format(path=served.path, bare=f"/{token}", upper=token.swapcase())
    answer = served.raw(served.request(line=f"GET {path} HTTP/1.1"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert status(answer) == 404
    assert body == b"404 Not Found\n"
    assert_secure(head)


def assert_secure(head: bytes) -> None:
    """Every answer says all that keeps other pages away from this one, and not what serves it."""
    lines = head.decode().split("\r\n")[1:]
    fields = dict(line.split(": ", 1) for line in lines)
    assert len(fields) == len(lines)
    assert wire.HEADERS.items() <= fields.items()
    assert fields.keys() <= wire.HEADERS.keys() | {"Content-Length", "Content-Type"}
    assert fields["Cross-Origin-Opener-Policy"] == fields["Cross-Origin-Resource-Policy"] == "same-origin"
    assert fields["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert fields["X-Content-Type-Options"] == "nosniff"
    assert fields["Cache-Control"] == "no-store"
    assert fields["Referrer-Policy"] == "no-referrer"
    assert fields["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; ")
    assert "screen-wake-lock=(self)" in fields["Permissions-Policy"]
    assert "camera=()" in fields["Permissions-Policy"]


def test_the_page_of_somebody_else_gets_nothing(served: Client) -> None:
    port = served.port
    get, evil = f"GET {served.path} HTTP/1.1", "http://evil.example"
    foreign = [
        served.request(("Host", f"evil.example:{port}"), line=get),  # a name that was made to lead here
        served.request(("Host", f"localhost:{port}"), line=get),
        served.request(("Host", served.address), line=get),
        served.request(("Host", None), line=get),
        served.request(("Host", f"evil.example:{port}"), ("Origin", f"http://evil.example:{port}")),
        served.request(("Origin", evil)),
        served.request(("Origin", "null")),
        served.request(("Origin", None)),
        served.request(("Origin", f"{served.origin}/")),
        served.request(("Origin", f"http://{served.address}:{port + 1}")),
        served.request(("Origin", served.origin.replace("http", "https"))),
        served.request(("Origin", evil), line=get),
        served.request(("Sec-Fetch-Site", "cross-site")),
        served.request(("Sec-Fetch-Site", "cross-site"), line=get),
        served.request(("Sec-Fetch-Site", "same-site"), line=get),
    ]
    for request in foreign:
        answer = served.raw(request)
        assert status(answer) == 403, request
        assert_secure(answer.partition(b"\r\n\r\n")[0])


def test_shapes_that_two_readers_could_take_differently_are_refused(served: Client) -> None:
    page, post = f"GET {served.path} HTTP/1.1", f"POST {served.path}echo HTTP/1.1"
    good = served.get("")
    chunks = b"3\r\nabc\r\n0\r\n\r\n"
    refused = {
        "chunked": served.request(("Transfer-Encoding", "chunked"), ("Content-Length", None), body=chunks),
        "chunked and a length": served.request(("Transfer-Encoding", "chunked"), body=chunks),
        "another encoding": served.request(("Transfer-Encoding", "identity")),
        "no length": served.request(("Content-Length", None)),
        "two lengths": served.request(("Content-Length", "3"), ("content-length", "4"), body=b"abcd"),
        "two like lengths": served.request(("Content-Length", "3"), ("Content-Length", "3"), body=b"abc"),
        "a list of lengths": served.request(("Content-Length", "3, 3"), body=b"abc"),
        **{
            f"length {x!r}": served.request(("Content-Length", x), body=b"abc")
            for x in ("-1", "+3", "0x3", "3.0", "", "³")
        },
        "a length of many digits": served.request(("Content-Length", "0" * 5000 + "3"), body=b"abc"),
        "two hosts": served.request(("Host", served.host), ("Host", served.host), line=page),
        "two origins": served.request(("Origin", served.origin), ("Origin", "http://evil.example")),
        "a body of a GET": served.request(("Content-Length", "3"), line=page, body=b"abc"),
        "an empty body of a GET": served.request(("Content-Length", "0"), line=page),
        "LF only": good.replace(b"\r\n", b"\n"),
        "LF in one line": good.replace(b"\r\n", b"\n", 1),
        "a lone CR": good.replace(b"Host", b"A: b\rHost"),
        "a folded line": good.replace(b"\r\n\r\n", b"\r\n more\r\n\r\n"),
        "a space before the colon": good.replace(b"Host:", b"Host :"),
        "a NUL": good.replace(b"Host", b"A: \0\r\nHost"),
        "no colon": good.replace(b"Host", b"Hello\r\nHost"),
        "an empty line first": b"\r\n" + good,
        "HTTP/1.0": good.replace(b"HTTP/1.1", b"HTTP/1.0"),
        "HTTP/0.9": f"GET {served.path}\r\n\r\n".encode(),
        "two spaces": good.replace(b"GET ", b"GET  "),
        "a whole URL": good.replace(b"GET ", f"GET {served.origin}".encode()),
        "a space in the name": good.replace(b" HTTP", b"a b HTTP"),
        "a lower-case method": good.replace(b"GET", b"get"),
        "a handshake of TLS": bytes.fromhex("160301020001"),
        "many fields": served.request(*(("X", "y"),) * 65, line=page),
        "a long field": served.request(("X", "y" * 17_000), line=page),
        "a long name": good.replace(b" HTTP", b"a" * 17_000 + b" HTTP"),
    }
    for shape, request in refused.items():
        # Not ended by the client: it is refused for what it is, before the time for the rest is over.
        assert status(served.raw(request, end=False)) == 400, shape
    for method in ("HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "BREW"):
        assert status(served.raw(served.request(("Origin", None), line=page.replace("GET", method)))) == 405
    assert status(served.raw(served.request(line=post.replace("echo", "")))) == 404


def test_only_one_request_is_answered_on_a_connection(served: Client) -> None:
    assert served.raw(served.get("") * 3).count(b"HTTP/1.1 ") == 1
    smuggled = served.request(("Content-Length", "3"), body=b"abc" + served.get("files/model.onnx"))
    answer = served.raw(smuggled)
    assert answer.endswith(b"|abc")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_a_body_is_as_large_as_its_place_allows(served: Client) -> None:
    assert status(served.raw(served.request(body=b"x" * MOST))) == 200
    too_large = served.request(("Content-Length", str(MOST + 1)), body=b"")
    assert status(served.raw(too_large, end=False)) == 413  # before any of it has come
    assert status(served.raw(served.request(body=b"x" * 200_000))) == 413  # also to who sends first and reads then
    assert status(served.raw(served.request(("Content-Length", "9" * 12)))) == 413


@pytest.mark.parametrize("sent", ["nothing", "a part of the head", "a part of the body", "a byte at a time"])
def test_who_is_slow_is_left(served: Client, site: Stub, sent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "HEAD_S", 0.3)
    monkeypatch.setattr(wire, "TRANSFER_S", 0.3)
    with served.open() as slow:
        if sent == "a byte at a time":
            with pytest.raises(OSError):  # cut off in the middle, however busily it sends
                for byte in served.request(("X", "y" * 10_000)):
                    slow.sendall(bytes([byte]))
                    time.sleep(0.01)
        else:
            request = served.request(body=b"abc")
            slow.sendall(request[: {"nothing": 0, "a part of the head": 30}.get(sent, len(request) - 1)])
            assert raw_client.ended(slow)


def test_who_reads_slowly_is_left(served: Client, site: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files["large"] = Served(bytes(30_000_000), "x")
    monkeypatch.setattr(wire, "TRANSFER_S", 0.3)
    monkeypatch.setattr(wire, "LEAST_BYTES_PER_S", 1e9)
    with served.open() as slow:
        slow.sendall(served.get("large"))
        assert slow.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert raw_client.all_end()


def test_many_connections_at_once_keep_nobody_out(served: Client, site: Stub) -> None:
    """Those that never show the token make room for those who come; a page that waits for an answer stays."""
    with served.open() as page:
        page.sendall(served.request(line=f"POST {served.path}poll HTTP/1.1"))
        assert site.polled.wait(60)
        crowd = [served.open() for _ in range(100)]
        assert served.answer("GET", "").content == PAGE
        for one in crowd[: 100 - server.MAX_CONNECTIONS]:
            assert raw_client.ended(one)
        site.awake.set()
        assert status(page.recv(65536)) == 204
        for one in crowd:
            one.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has all of 127.0.0.0/8 as addresses of its own")
def test_who_opens_many_connections_takes_the_place_of_nobody_else(served: Client) -> None:
    """A phone whose request is yet on its way stays, however many connections another machine opens meanwhile."""
    with ExitStack() as stack:
        phone = stack.enter_context(socket.create_connection((served.address, served.port), 60, ("127.0.0.2", 0)))
        crowd = [stack.enter_context(served.open()) for _ in range(100)]
        for one in crowd[: 100 - server.MAX_CONNECTIONS + 1]:
            assert raw_client.ended(one)
        phone.sendall(served.get(""))
        assert status(phone.recv(65536)) == 200


def test_where_all_know_the_token_the_newest_is_refused(served: Client, site: Stub) -> None:
    request = served.request(line=f"POST {served.path}poll HTTP/1.1")
    pages = []
    for _ in range(server.MAX_CONNECTIONS):
        site.polled.clear()
        pages.append(served.open())
        pages[-1].sendall(request)
        assert site.polled.wait(60)
    with served.open() as one_more:
        assert raw_client.ended(one_more)
    site.awake.set()
    for page in pages:
        assert status(page.recv(65536)) == 204
        page.close()
    assert raw_client.all_end()


@pytest.mark.parametrize("reset", [False, True])
def test_who_leaves_leaves_nothing_behind(served: Client, site: Stub, tmp_path: Path, reset: bool) -> None:
    site.files["large"] = Served(raw_client.write(tmp_path / "large", bytes(30_000_000)), "x")
    # While it receives, in the middle of a body, in the middle of a head, and while the site thinks.
    asked = served.request(line=f"POST {served.path}poll HTTP/1.1")
    for request in (served.get("large"), served.request(("Content-Length", "9"), body=b"abc"), b"GET /", asked):
        leaving = served.open()
        leaving.sendall(request)
        if b"large" in request:
            assert leaving.recv(1000).startswith(b"HTTP/1.1 200 ")
        if b"poll" in request:
            assert site.polled.wait(60)
            site.awake.set()
        if reset:
            leaving.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        leaving.close()
    assert served.answer("GET", "").content == PAGE  # by now all of them have been accepted
    assert raw_client.all_end()


def test_a_file_is_itself(served: Client, site: Stub, tmp_path: Path) -> None:
    secret = raw_client.write(tmp_path / "secret", b"secret")
    (tmp_path / "link").symlink_to(secret)
    for name, path in {"link": tmp_path / "link", "folder": tmp_path, "gone": tmp_path / "gone"}.items():
        site.files[name] = Served(path, "x")
        assert status(served.raw(served.get(name))) == 404
    site.files["file"] = Served(secret, "text/x")
    assert served.raw(served.get("file")).endswith(b"\r\n\r\nsecret")


def test_a_file_that_shrinks_or_grows_while_it_is_served(served: Client, site: Stub, tmp_path: Path) -> None:
    size = 30_000_000  # more than the system keeps on the way, so that the server is in the middle of it
    path = raw_client.write(tmp_path / "file", bytes(size))
    site.files["file"] = Served(path, "x")
    for change, error in ((size // 10, http.client.IncompleteRead), (2 * size, None)):
        connection = http.client.HTTPConnection(served.address, served.port, timeout=60)
        connection.request("GET", f"{served.path}file")
        response = connection.getresponse()
        with path.open("rb+") as file:
            file.truncate(change)
        if error:
            with pytest.raises(error):
                response.read()
        else:
            assert len(response.read()) == size
        connection.close()
        raw_client.write(path, bytes(size))


def test_close_ends_all_that_waits(site: Stub) -> None:
    running = Server(site)
    client = Client(running)
    silent, polling = client.open(), client.open()  # accepted in this order
    polling.sendall(client.request(line=f"POST {client.path}poll HTTP/1.1"))
    assert site.polled.wait(60)
    left = raw_client.threads()
    closing = threading.Thread(target=running.close)
    closing.start()
    assert raw_client.ended(polling)  # while the site still blocks
    assert raw_client.ended(silent)
    closing.join(60)
    assert not closing.is_alive()
    with pytest.raises(OSError):
        client.open()
    site.awake.set()
    assert raw_client.all_end(left)
    running.close()  # once more does nothing
    polling.close()
    silent.close()


def test_a_mistake_of_the_site_ends_one_connection(site: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda what: raised.append(what.exc_type))
    site.post = lambda name, visit, body: Reply(1 // len(body))  # type: ignore[method-assign]
    with Server(site) as running:
        client = Client(running)
        assert client.raw(client.request()) == b""
        assert client.answer("GET", "").content == PAGE
    assert raised == [ZeroDivisionError]


def test_addresses(site: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("", "localhost", "example.com", "0.0.0.0", "::", "224.0.0.1", "fe80::1%eth0", "192.0.2.1", "1\n2"):
        with pytest.raises(DeviceError, match=r"bind: ADDRESS") as caught:
            Server(site, address)
        assert "\n" not in str(caught.value)
    if sys.platform == "linux":  # where all of 127.0.0.0/8 is this machine's
        with Server(site, "127.0.0.2") as running:
            assert running.url.startswith("http://127.0.0.2:")
            assert Client(running).answer("GET", "").content == PAGE
            with pytest.raises(OSError):
                socket.create_connection(("127.0.0.1", Client(running).port), 60)
    try:
        assert addresses.network_address() not in ("127.0.0.1", "0.0.0.0", "::1")
    except DeviceError as error:
        assert "bind: ADDRESS" in str(error)
    monkeypatch.setattr(addresses, "_ELSEWHERE", ((socket.AF_INET, "127.0.0.1"),))
    with pytest.raises(DeviceError, match="no address in a network"):
        addresses.network_address()


def test_ipv6(site: Stub) -> None:
    try:
        running = Server(site, "0:0::1")
    except DeviceError as error:
        pytest.skip(f"no IPv6 loopback: {error}")
    with running:
        assert running.url.startswith("http://[::1]:")
        assert Client(running).answer("GET", "").content == PAGE


FRAGMENTS = st.sampled_from(
    [
        *(
            b"GET ",
            b"POST ",
            b"HEAD ",
            b"<path>",
            b"<host>",
            b"<origin>",
            b"files/model.onnx",
            b"secret",
            b"echo",
            b"/",
            b"..",
        ),
        *(
            b"%2e",
            b"\\",
            b"?",
            b" HTTP/1.1\r\n",
            b" HTTP/1.0\r\n",
            b"Host: <host>\r\n",
            b"Origin: <origin>\r\n",
            b"\r\n",
        ),
        *(
            b"\n",
            b"\r",
            b"\0",
            b" ",
            b"\t",
            b"Content-Length: 3\r\n",
            b"Content-Length: -3\r\n",
            b"\r\n\r\n",
            b"abc",
            b":",
        ),
        *(
            b"Transfer-Encoding: chunked\r\n",
            b"Sec-Fetch-Site: cross-site\r\n",
            b"Cocorr-Visit: 1\r\n",
            b"\xff",
            b"\xc2\xb3",
        ),
    ]
)
BEGINNINGS = st.sampled_from([b"", b"GET <path>", b"POST <path>echo HTTP/1.1\r\nHost: <host>\r\nOrigin: <origin>\r\n"])
REQUESTS = st.tuples(BEGINNINGS, st.lists(FRAGMENTS | st.binary(max_size=20), max_size=12).map(b"".join)).map(b"".join)


def test_no_bytes_get_more_than_the_list(served: Client, site: Stub) -> None:
    """Whatever is sent, what is answered is on the list or has no content, and the next good request is answered."""
    asked: list[str] = []
    contents = {PAGE, MODEL}

    def post(name: str, visit: str, body: bytes) -> Reply:
        asked.append(name)
        return Reply(200, b"posted")

    site.post = post  # type: ignore[method-assign]

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @example(b"GET <path>files/model.onnx HTTP/1.1\r\nHost: <host>\r\n\r\n")
    @example(b"POST <path>echo HTTP/1.1\r\nHost: <host>\r\nOrigin: <origin>\r\nContent-Length: 3\r\n\r\nabc")
    @given(REQUESTS)
    def check(request: bytes) -> None:
        own = {b"<path>": served.path, b"<host>": served.host, b"<origin>": served.origin}
        for name, value in own.items():
            request = request.replace(name, value.encode())
        answer = served.raw(request)
        head, _, body = answer.partition(b"\r\n\r\n")
        if answer:
            assert_secure(head)
        if status(answer) == 200:
            assert body in contents | {b"posted"}
            assert request.split(b"\r\n")[0].split(b" ")[1].startswith(served.path.encode())
        elif answer:
            assert body == head.split(b"\r\n")[0].removeprefix(b"HTTP/1.1 ") + b"\n"
        assert served.raw(served.get("")).endswith(PAGE)

    check()
    assert set(asked) == {"echo"}
