"""Downloads from servers that lie: sockets on the loopback interface that send what a test tells them, byte by byte."""

from __future__ import annotations

import gzip
import os
import signal
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from ddo_plugin.base import download, http
from ddo_plugin.base.download import cache_entry, local_file
from ddo_plugin.base.errors import UserError

CONTENT = bytes(range(256)) * 2000
OTHER = CONTENT[::-1]
HALF = 200_000

Answer = Callable[[dict[str, str]], Iterable[bytes]]


class Liar(socketserver.ThreadingTCPServer):
    """Gives each request the next of `answers`, or the last one again. `asked` holds the headers of the requests."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 50

    def __init__(self, certificate: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.scheme = "https" if certificate else "http"
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.answers: list[Answer] = []
        self.asked: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}/network.pkl"


class Connection(socketserver.StreamRequestHandler):
    server: Liar

    def handle(self) -> None:
        self.rfile.readline()
        headers = dict(line.decode().strip().split(": ", 1) for line in iter(self.rfile.readline, b"\r\n"))
        self.server.asked.append(headers)
        answers = self.server.answers
        try:
            for data in (answers.pop(0) if len(answers) > 1 else answers[0])(headers):
                self.wfile.write(data)
        except OSError:
            pass  # the client has hung up


def says(status: str, body: bytes = b"", **headers: object) -> Answer:
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return lambda _: [f"HTTP/1.1 {status}\r\n{head}Connection: close\r\n\r\n".encode() + body]


def whole(body: bytes = CONTENT, **headers: object) -> Answer:
    return says("200 OK", body, **{"Content-Length": len(body), **headers})


def first_half(**headers: object) -> Answer:
    """The beginning of CONTENT; then the connection breaks."""
    return says("200 OK", CONTENT[:HALF], **{"Content-Length": len(CONTENT), **headers})


def rest(body: bytes, first: int = HALF, total: object = len(CONTENT), **headers: object) -> Answer:
    shown = f"bytes {first}-{first + len(body) - 1}/{total}"
    return says("206 Partial Content", body, **{"Content-Length": len(body), "Content-Range": shown, **headers})


@pytest.fixture
def liar(monkeypatch: pytest.MonkeyPatch) -> Iterator[Liar]:
    yield from served(Liar(), monkeypatch)


def served(server: Liar, monkeypatch: pytest.MonkeyPatch) -> Iterator[Liar]:
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(url: str, cache: Path) -> bytes:
    return local_file(url, cache_dir=cache, verbose=False).read_bytes()


def refused(url: str, cache: Path, complaint: str) -> None:
    """One line that names the address, and nothing in the cache that could be taken for the file."""
    with pytest.raises(UserError, match=complaint) as error:
        fetch(url, cache)
    assert "\n" not in error.value.format_message()
    assert len(error.value.format_message()) < 1000
    assert url in error.value.format_message()
    assert not cache_entry(url, cache).exists()


def left(cache: Path) -> list[str]:
    return [path.name for path in cache.iterdir() if not path.name.endswith(".lock")]


# -- redirects ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "target", ["ftp://127.0.0.1:{port}/x", "file:///etc/hostname", "data:,x", "FILE:/etc/hostname"]
)
def test_a_redirect_to_another_scheme_is_refused(liar: Liar, tmp_path: Path, status: int, target: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.0)
        location = target.format(port=listener.getsockname()[1])
        liar.answers = [says(f"{status} Moved", Location=location)]
        refused(liar.url, tmp_path, r"redirects to .*, and only http and https are followed")
        with pytest.raises(BlockingIOError):
            listener.accept()  # nobody called
    assert len(liar.asked) == 1
    assert left(tmp_path) == []


@pytest.fixture
def secure_liar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Liar]:
    certificate, public = tmp_path / "certificate.pem", tmp_path / "public.pem"
    made = subprocess.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
        f" -keyout {certificate} -out {public}".split(),
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("openssl is needed to make a certificate")
    certificate.write_bytes(certificate.read_bytes() + public.read_bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    yield from served(Liar(certificate), monkeypatch)


def test_a_redirect_from_https_to_http_is_refused(liar: Liar, secure_liar: Liar, tmp_path: Path) -> None:
    liar.answers = [whole()]
    secure_liar.answers = [says("302 Found", Location=liar.url)]
    refused(secure_liar.url, tmp_path / "cache", "redirects to http://.* not encrypted")
    assert liar.asked == []


def test_a_redirect_from_http_to_https_is_followed(liar: Liar, secure_liar: Liar, tmp_path: Path) -> None:
    liar.answers = [says("302 Found", Location=secure_liar.url)]
    secure_liar.answers = [says("302 Found", Location="/elsewhere"), whole()]
    assert fetch(liar.url, tmp_path / "cache") == CONTENT


def test_a_redirect_keeps_asking_for_the_rest(liar: Liar, tmp_path: Path) -> None:
    moved = says("308 Permanent Redirect", Location="/elsewhere")
    liar.answers = [moved, first_half(ETag='"one"'), moved, rest(CONTENT[HALF:], ETag='"one"')]
    assert fetch(liar.url, tmp_path) == CONTENT
    assert [request.get("Range") for request in liar.asked] == [None, None, f"bytes={HALF}-", f"bytes={HALF}-"]


@pytest.mark.parametrize("location", ["/network.pkl", None, "http://[", f"http://127.0.0.1:{10**30}/x"])
def test_a_redirect_that_leads_nowhere_is_one_line(liar: Liar, tmp_path: Path, location: str | None) -> None:
    liar.answers = [says("302 Found", **({"Location": location} if location else {}))]
    refused(liar.url, tmp_path, "redirects|not a valid URL|unknown host")
    assert len(liar.asked) <= 11


def test_the_body_of_a_redirect_is_not_read(liar: Liar, tmp_path: Path) -> None:
    def endless(_: object) -> Iterator[bytes]:
        yield b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n"
        while True:
            yield bytes(1 << 20)

    liar.answers = [endless, whole()]
    assert fetch(liar.url, tmp_path) == CONTENT


# -- parts ----------------------------------------------------------------------------------------------------------


def test_a_part_that_nobody_asked_for_is_not_cached_as_the_whole(liar: Liar, tmp_path: Path) -> None:
    liar.answers = [rest(CONTENT[HALF:])]
    refused(liar.url, tmp_path, "a part of the file, which was not asked for")
    assert left(tmp_path) == []
    liar.answers = [rest(CONTENT[:HALF], first=0), whole()]
    assert fetch(liar.url, tmp_path) == CONTENT


@pytest.mark.parametrize(
    ("version", "answer"),
    [
        ({"ETag": '"one"'}, rest(OTHER[HALF:], ETag='"two"')),
        ({"Last-Modified": "Mon, 01 Jan 2024"}, rest(OTHER[HALF:], **{"Last-Modified": "Tue, 02 Jan 2024"})),
        ({"ETag": '"one"'}, rest(OTHER[HALF:], total=len(CONTENT) + 1, ETag='"one"')),
        ({"ETag": '"one"'}, rest(OTHER[HALF:-7], total=len(CONTENT) - 7, ETag='"one"')),
        ({"ETag": '"one"'}, rest(OTHER[HALF:] + b"more", total="*", ETag='"one"')),
        ({"ETag": '"one"'}, rest(OTHER[HALF + 7 :], first=HALF + 7, ETag='"one"')),
        ({"ETag": '"one"'}, rest(OTHER[HALF - 7 :], first=HALF - 7, ETag='"one"')),
        ({"ETag": '"one"'}, rest(OTHER, first=0, ETag='"one"')),
        ({"ETag": '"one"'}, rest(OTHER[HALF:-7], ETag='"one"')),
        ({"ETag": '"one"'}, rest(OTHER[HALF:], ETag='"one"', **{"Content-Range": "none"})),
        ({"ETag": '"one"'}, says("206 Partial Content", OTHER[HALF:], ETag='"one"')),
        ({"ETag": '"one"'}, says("206 Partial Content", b"--x\r\n\r\n", **{"Content-Type": "multipart/byteranges"})),
    ],
    ids=[
        *("ETag", "date", "longer", "shorter", "unknown total", "later", "earlier", "from the start", "stops early"),
        *("no range", "no header", "multipart"),
    ],
)
def test_a_part_that_does_not_continue_ours_starts_over(
    liar: Liar, tmp_path: Path, version: dict[str, str], answer: Answer
) -> None:
    liar.answers = [first_half(**version), answer, whole()]
    assert fetch(liar.url, tmp_path) == CONTENT  # never the first half of the one and the second of the other
    assert [request.get("Range") for request in liar.asked] == [None, f"bytes={HALF}-", None]


def test_a_file_that_changes_at_each_attempt_is_never_mixed(liar: Liar, tmp_path: Path) -> None:
    def change(headers: dict[str, str]) -> Iterable[bytes]:
        number = len(liar.asked)
        body = bytes([number]) * len(CONTENT)
        return whole(body, ETag=f'"{number}"')(headers) if number == 5 else half(body, number)(headers)

    def half(body: bytes, number: int) -> Answer:
        return says("200 OK", body[:HALF], **{"Content-Length": len(body), "ETag": f'"{number}"'})

    liar.answers = [change]
    assert set(fetch(liar.url, tmp_path)) == {5}


def test_a_record_of_an_earlier_version_of_ours_starts_over(liar: Liar, tmp_path: Path) -> None:
    part = download._beside(cache_entry(liar.url, tmp_path), "part")
    part.write_bytes(OTHER[:HALF])
    part.with_suffix(".etag").write_text('W/"one"')
    liar.answers = [whole()]
    assert fetch(liar.url, tmp_path) == CONTENT
    assert liar.asked[0].get("Range") is None


# -- lengths and encodings ------------------------------------------------------------------------------------------


def test_a_body_that_is_too_short_is_not_the_file(liar: Liar, tmp_path: Path) -> None:
    liar.answers = [first_half()]
    refused(liar.url, tmp_path, f"received {HALF} of {len(CONTENT)} bytes")


@pytest.mark.parametrize("more", [b"", b"more"])
def test_what_follows_the_declared_length_is_not_waited_for_nor_read(liar: Liar, tmp_path: Path, more: bytes) -> None:
    done = threading.Event()

    def holds_the_line(headers: dict[str, str]) -> Iterator[bytes]:
        yield from whole()(headers)
        yield more
        done.wait(30)

    liar.answers = [holds_the_line]
    began = time.monotonic()
    assert fetch(liar.url, tmp_path) == CONTENT
    assert time.monotonic() - began < 10
    done.set()


@pytest.mark.parametrize("length", ["-1", "many", "1e3", "", "9" * 5000, "5, 6"])
def test_a_length_that_is_no_number_is_refused(liar: Liar, tmp_path: Path, length: str) -> None:
    liar.answers = [says("200 OK", CONTENT, **{"Content-Length": length})]
    refused(liar.url, tmp_path, "Content-Length")
    assert left(tmp_path) == []


@pytest.mark.parametrize("name", ["Content-Encoding", "Transfer-Encoding"])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip", "gzip, chunked", "X-Gzip"])
def test_compressed_content_is_neither_asked_for_nor_taken(
    liar: Liar, tmp_path: Path, name: str, encoding: str
) -> None:
    liar.answers = [says("200 OK", gzip.compress(bytes(1 << 20)), **{name: encoding})]
    refused(liar.url, tmp_path, "compressed")
    assert liar.asked[0]["Accept-Encoding"] == "identity"
    assert left(tmp_path) == []


def test_chunks_arrive_and_chunks_cut_short_do_not(liar: Liar, tmp_path: Path) -> None:
    chunks = b"".join(b"%x;why=not\r\n%b\r\n" % (len(x), x) for x in (CONTENT[:7], CONTENT[7:]))
    head = {"Transfer-Encoding": "chunked"}
    liar.answers = [says("200 OK", chunks[:-10], **head), says("200 OK", chunks + b"0\r\n\r\n", **head)]
    assert fetch(liar.url, tmp_path) == CONTENT
    liar.answers = [says("200 OK", chunks, **head)]
    refused(f"{liar.url}2", tmp_path, "failed after 10 attempts")


def test_any_other_answer_is_no_file(liar: Liar, tmp_path: Path) -> None:
    for status in ("201 Created", "202 Accepted", "203 Maybe", "204 No Content"):
        liar.answers = [says(status, CONTENT)]
        refused(liar.url, tmp_path, f"the server answers {status}")


@pytest.mark.parametrize("reason", ["\x1b[2Jgone", "x" * 60_000, "a\rb"])
def test_what_a_server_says_is_shown_in_one_short_line(liar: Liar, tmp_path: Path, reason: str) -> None:
    for status in ("404", "500", "999", "abc"):
        liar.answers = [says(f"{status} {reason}")]
        refused(liar.url, tmp_path, "server answers|failed after")


# -- time and space -------------------------------------------------------------------------------------------------


def trickle(before: bytes, data: bytes) -> Answer:
    """A byte at a time, and fast enough that the connection never counts as broken."""

    def send(_: object) -> Iterator[bytes]:
        yield before
        while True:
            for byte in data:
                time.sleep(0.02)
                yield bytes([byte])

    return send


@pytest.mark.parametrize(
    "answer",
    [
        trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n", b"x"),
        trickle(b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        trickle(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        trickle(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"x"),
        trickle(b"HTTP/1.1 200 OK\r\nName: ", b"x"),
        trickle(b"HTTP/1.1 2", b"0"),
    ],
    ids=["body", "without length", "chunks", "chunk extension", "header", "status"],
)
def test_a_sender_of_a_byte_at_a_time_is_ended(
    liar: Liar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setattr(http, "WINDOW_S", 0.1)
    liar.answers = [answer]
    began = time.monotonic()
    refused(liar.url, tmp_path, r"slower than 10 kB/s.*DDO_DOWNLOAD_MIN_KB_PER_S")
    assert time.monotonic() - began < 10


def test_the_least_rate_is_an_environment_variable(liar: Liar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(_: object) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n"
        for _ in range(50):
            time.sleep(0.01)
            yield b"x"

    monkeypatch.setattr(http, "WINDOW_S", 0.1)
    monkeypatch.setenv("DDO_DOWNLOAD_MIN_KB_PER_S", "0")
    liar.answers = [slow]
    assert fetch(liar.url, tmp_path) == b"x" * 50


@pytest.mark.parametrize("value", ["fast", "-1", "nan", "inf"])
@pytest.mark.parametrize("name", ["DDO_DOWNLOAD_MIN_KB_PER_S", "DDO_DOWNLOAD_MAX_GIB"])
def test_a_limit_that_is_no_number_is_refused(
    liar: Liar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"{name}={value}: "):
        fetch(liar.url, tmp_path)
    assert liar.asked == []


@pytest.mark.parametrize("phase", ["100", "header", "trailer", "chunks"])
def test_an_endless_answer_without_a_file_is_ended(liar: Liar, tmp_path: Path, phase: str) -> None:
    before, again = {
        "100": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000),
        "header": (b"HTTP/1.1 200 OK\r\n", b"a: " + b"x" * 60_000 + b"\r\n"),
        "trailer": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n", b"a: b\r\n" * 10_000),
        "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;" + b"x" * 60_000 + b"\r\nx\r\n"),
    }[phase]

    def send(_: object) -> Iterator[bytes]:
        yield before
        while True:
            yield again

    liar.answers = [send]
    refused(liar.url, tmp_path, "failed after 10 attempts")


def test_a_file_that_is_longer_than_the_disk_is_refused_before_a_byte_is_written(
    liar: Liar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDO_DOWNLOAD_MAX_GIB", "1e12")
    liar.answers = [says("200 OK", CONTENT, **{"Content-Length": 10**17})]
    refused(liar.url, tmp_path, r"has room for .* GB; free disk space, or set DNNLIB_CACHE_DIR")
    assert left(tmp_path) == []
    assert len(liar.asked) == 1


def test_a_file_that_is_longer_than_the_limit_is_refused(
    liar: Liar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDO_DOWNLOAD_MAX_GIB", "0.0001")
    liar.answers = [whole()]
    refused(liar.url, tmp_path, r"DDO_DOWNLOAD_MAX_GIB")
    assert left(tmp_path) == []


def test_a_file_of_unknown_length_ends_at_the_limit(
    liar: Liar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(_: object) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield bytes(1 << 16)

    monkeypatch.setenv("DDO_DOWNLOAD_MAX_GIB", "0.01")
    liar.answers = [endless]
    refused(liar.url, tmp_path, r"the limit is 10\.7 MB; set DDO_DOWNLOAD_MAX_GIB")
    assert left(tmp_path) == []
    assert len(liar.asked) == 1


def test_a_full_disk_is_one_line_and_leaves_the_space(liar: Liar, tmp_path: Path) -> None:
    """A limit on the size of files fails as a full disk does, in the middle of a write."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "from ddo_plugin.base.download import local_file; local_file(sys.argv[1], cache_dir=sys.argv[2])"
    )
    liar.answers = [whole()]
    done = subprocess.run([sys.executable, "-c", code, liar.url, tmp_path], capture_output=True, text=True, check=False)
    assert "cannot be written (File too large)" in done.stderr
    assert len(liar.asked) == 1
    assert left(tmp_path) == []


# -- processes ------------------------------------------------------------------------------------------------------


def start(url: str, cache: Path) -> subprocess.Popen[bytes]:
    code = "import sys; from ddo_plugin.base.download import local_file; local_file(sys.argv[1], verbose=False)"
    env = os.environ | {"DNNLIB_CACHE_DIR": str(cache)}
    return subprocess.Popen([sys.executable, "-c", code, url], env=env, stderr=subprocess.PIPE)


def test_if_the_process_that_downloads_is_killed_the_one_that_waits_goes_on(liar: Liar, tmp_path: Path) -> None:
    def stuck(headers: dict[str, str]) -> Iterator[bytes]:
        yield from first_half(ETag='"one"')(headers)
        time.sleep(60)

    liar.answers = [stuck, rest(CONTENT[HALF:], ETag='"one"')]
    first = start(liar.url, tmp_path)
    part = download._beside(cache_entry(liar.url, tmp_path / "downloads"), "part")
    while not part.exists() or part.stat().st_size < HALF:
        time.sleep(0.01)
    second = start(liar.url, tmp_path)
    time.sleep(0.5)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert second.communicate()[1] == b""
    assert second.returncode == 0
    assert cache_entry(liar.url, tmp_path / "downloads").read_bytes() == CONTENT
    assert [request.get("Range") for request in liar.asked] == [None, f"bytes={HALF}-"]


def test_if_the_server_refuses_each_process_says_so(liar: Liar, tmp_path: Path) -> None:
    liar.answers = [says("404 Not Found")]
    processes = [start(liar.url, tmp_path) for _ in range(2)]
    assert all(b"the server answers 404 Not Found" in process.communicate()[1] for process in processes)


def test_ddo_inspect_ends_with_status_2_and_one_line(liar: Liar, tmp_path: Path) -> None:
    liar.answers = [says("302 Found", Location="ftp://127.0.0.1/x")]
    command = [sys.executable, "-m", "ddo_plugin", "inspect", liar.url]
    env = os.environ | {"DNNLIB_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: {liar.url}: ")
    assert done.stderr.count("\n") == 1
