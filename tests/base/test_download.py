"""Downloads from a real server on the loopback interface that can be told to misbehave."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ddo_plugin.base import download
from ddo_plugin.base.download import cache_entry, local_file, open_url
from ddo_plugin.base.errors import UserError

CONTENT = bytes(range(256)) * 4000
OTHER = CONTENT[::-1]
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class FileServer(http.server.ThreadingHTTPServer):
    """Serves `content` at any path. `asked` holds the Range header of every request (None: there was none)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.etag: str | None = '"one"'
        self.knows_ranges = True
        self.sends_length = True
        self.shifts_ranges = 0
        self.breaks_after: list[int] = []  # bytes of the body after which the connection is cut, request by request
        self.statuses: list[int] = []  # answered instead of the file, request by request
        self.on_break: Callable[[], None] = lambda: None
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/some/net work.pkl".replace(" ", "%20")


class Handler(http.server.BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.headers["Range"])
        if server.statuses:
            self.send_error(server.statuses.pop(0))
            return
        start = self._start()
        if start >= len(server.content):
            self.send_error(416)
            return
        body = server.content[start:]
        self.send_response(206 if start else 200)
        if start:
            first = start + server.shifts_ranges
            self.send_header("Content-Range", f"bytes {first}-{len(server.content) - 1}/{len(server.content)}")
        if server.sends_length:
            self.send_header("Content-Length", str(len(body)))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        if server.breaks_after:
            body = body[: server.breaks_after.pop(0)]
            server.on_break()
        self.wfile.write(body)

    def _start(self) -> int:
        wanted = self.headers["Range"]
        unchanged = self.headers["If-Range"] in (None, self.server.etag)
        return (
            int(wanted.removeprefix("bytes=").removesuffix("-"))
            if wanted and self.server.knows_ranges and unchanged
            else 0
        )

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    with FileServer() as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        served.shutdown()
        thread.join()


def fetch(url: str, cache: Path, sha256: str | None = None) -> bytes:
    with open_url(url, cache_dir=cache, sha256=sha256, verbose=False) as file:
        return file.read()


# -- local files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain.pkl", "with space.pkl", "100%.pkl", "a%20b.pkl", "größe.pkl", "a;b#c?d.pkl"])
def test_paths_and_file_urls_lead_to_the_same_bytes(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"network")
    assert fetch(str(path), tmp_path) == b"network"
    assert fetch(path.as_uri(), tmp_path) == b"network"  # as_uri escapes what must be


def test_a_file_url_that_nobody_escaped_is_found_as_dnnlib_finds_it(tmp_path: Path) -> None:
    path = tmp_path / "a%20b c.pkl"
    path.write_bytes(b"network")
    assert fetch(f"file://{path}", tmp_path) == b"network"


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_missing_local_file_is_one_clear_line(tmp_path: Path, prefix: str) -> None:
    with pytest.raises(UserError, match=r"none\.pkl: no such file$"):
        local_file(f"{prefix}{tmp_path / 'none.pkl'}")


def test_a_local_file_is_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "network.pkl"
    path.write_bytes(CONTENT)
    assert local_file(str(path), sha256=SHA256.upper()) == path
    with pytest.raises(UserError, match=r"expected .*; the file is not used"):
        local_file(str(path), sha256="0" * 64)


# -- the cache ------------------------------------------------------------------------------------------------------


def test_a_cached_file_is_not_asked_for_again(server: FileServer, tmp_path: Path) -> None:
    assert fetch(server.url, tmp_path) == CONTENT
    assert fetch(server.url, tmp_path, SHA256) == CONTENT
    assert server.asked == [None]


def test_the_cache_folder_is_that_of_dnnlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DNNLIB_CACHE_DIR", raising=False)
    assert download.default_cache_dir() == tmp_path / ".cache" / "dnnlib" / "downloads"
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "elsewhere"))
    assert download.default_cache_dir() == tmp_path / "elsewhere" / "downloads"


def test_beside_the_file_the_cache_holds_nothing_that_dnnlib_would_take_for_it(
    server: FileServer, tmp_path: Path
) -> None:
    key = hashlib.md5(server.url.encode()).hexdigest()
    server.breaks_after = [1000] * download.ATTEMPTS
    server.etag = None
    with pytest.raises(UserError):
        fetch(server.url, tmp_path)
    assert list(tmp_path.glob(f"{key}_*")) == []  # a part of the file is not the file
    fetch(server.url, tmp_path)
    assert [path.read_bytes() for path in tmp_path.glob(f"{key}_*")] == [CONTENT]  # dnnlib wants exactly one


def test_a_wrong_sha256_refuses_a_download_and_leaves_nothing_to_use(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"sha256 is {SHA256}, expected {'0' * 64}"):
        fetch(server.url, tmp_path, "0" * 64)
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


def test_a_wrong_sha256_refuses_a_cached_file_and_says_which_to_delete(server: FileServer, tmp_path: Path) -> None:
    fetch(server.url, tmp_path)
    entry = cache_entry(server.url, tmp_path)
    with pytest.raises(UserError, match=r"delete .* to download it again") as refused:
        fetch(server.url, tmp_path, "0" * 64)
    assert str(entry) in str(refused.value)
    assert entry.read_bytes() == CONTENT


def test_a_cache_that_cannot_be_written_is_one_clear_line(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot use the download cache .* set DNNLIB_CACHE_DIR"):
        fetch(server.url, tmp_path / "file" / "cache")


def test_two_processes_at_once_download_once(server: FileServer, tmp_path: Path) -> None:
    gate = threading.Event()
    server.breaks_after, server.on_break = [len(CONTENT)], lambda: gate.wait(20) and None
    code = (
        "import sys; from ddo_plugin.base.download import local_file; print('go', flush=True); local_file(sys.argv[1])"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, server.url],
            env=os.environ | {"DNNLIB_CACHE_DIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == b"go\n"  # both are about to ask
    while not server.asked:
        time.sleep(0.01)
    time.sleep(0.2)  # time enough for the other one to ask as well, if nothing kept it from it
    gate.set()
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0, 0]
    assert server.asked == [None]
    assert cache_entry(server.url, tmp_path / "downloads").read_bytes() == CONTENT


# -- broken downloads -----------------------------------------------------------------------------------------------


def test_a_broken_download_goes_on_where_it_stopped(server: FileServer, tmp_path: Path) -> None:
    server.breaks_after = [300_000, 200_000]
    assert fetch(server.url, tmp_path, SHA256) == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_process_goes_on_where_an_earlier_one_gave_up(server: FileServer, tmp_path: Path) -> None:
    server.breaks_after = [1000] * download.ATTEMPTS
    with pytest.raises(UserError, match=r"failed after 10 attempts .* run the command again to resume it"):
        fetch(server.url, tmp_path)
    server.asked.clear()
    assert fetch(server.url, tmp_path, SHA256) == CONTENT
    assert server.asked == [f"bytes={1000 * download.ATTEMPTS}-"]


def test_a_file_that_changed_meanwhile_starts_over(server: FileServer, tmp_path: Path) -> None:
    def change() -> None:
        server.content, server.etag = OTHER, '"two"'

    server.breaks_after, server.on_break = [300_000], change
    assert fetch(server.url, tmp_path) == OTHER  # not 300,000 bytes of the one and the rest of the other
    assert server.asked == [None, "bytes=300000-"]


@pytest.mark.parametrize("lack", ["knows_ranges", "etag"])
def test_without_ranges_or_versions_a_broken_download_starts_over(
    server: FileServer, tmp_path: Path, lack: str
) -> None:
    setattr(server, lack, None)
    server.breaks_after = [300_000]
    assert fetch(server.url, tmp_path) == CONTENT
    assert len(server.asked) == 2


def test_a_part_that_is_complete_already_does_not_block_the_download(server: FileServer, tmp_path: Path) -> None:
    """A kill between the last byte and the renaming: asking for what follows the end is refused with 416."""
    part = download._beside(cache_entry(server.url, tmp_path), "part")
    part.write_bytes(CONTENT)
    part.with_suffix(".etag").write_text(json.dumps({"etag": '"one"', "date": None, "total": len(CONTENT)}))
    assert fetch(server.url, tmp_path) == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-", None]


def test_a_part_that_was_not_asked_for_is_not_appended(server: FileServer, tmp_path: Path) -> None:
    server.breaks_after, server.shifts_ranges = [300_000], 7
    assert fetch(server.url, tmp_path) == CONTENT
    assert server.asked == [None, "bytes=300000-", None]


def test_a_file_of_unknown_length_arrives(server: FileServer, tmp_path: Path) -> None:
    server.sends_length = False
    assert fetch(server.url, tmp_path, SHA256) == CONTENT


def test_a_file_of_unknown_length_cut_short_is_caught_by_its_sha256(server: FileServer, tmp_path: Path) -> None:
    server.sends_length = False
    server.breaks_after = [300_000]
    with pytest.raises(UserError, match=r"sha256 is .* expected"):
        fetch(server.url, tmp_path, SHA256)
    assert fetch(server.url, tmp_path, SHA256) == CONTENT


def test_a_server_that_stumbles_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [500, 503, 429]
    assert fetch(server.url, tmp_path) == CONTENT


# -- what cannot be had ---------------------------------------------------------------------------------------------


def test_404_is_one_clear_line_at_once(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [404]
    with pytest.raises(UserError, match=r"the server answers 404 Not Found; check the address$"):
        fetch(server.url, tmp_path)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://no-such-host.invalid/x.pkl", "unknown host"),
        ("http://127.0.0.1:1/x.pkl", "download failed after 10 attempts"),
        ("http:///x.pkl", "not a valid URL|no host given"),
        ("http://127.0.0.1/ü.pkl", "not a valid URL"),
        ("s3://bucket/x.pkl", "only http, https and file URLs"),
    ],
)
def test_an_address_that_leads_nowhere_is_one_clear_line(
    url: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "PAUSE_S", 0.0)
    with pytest.raises(UserError, match=complaint) as refused:
        fetch(url, tmp_path)
    assert "\n" not in str(refused.value)
    assert url in str(refused.value)


def test_a_folder_is_called_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder; pass one of the files in it"):
        local_file(str(tmp_path))
