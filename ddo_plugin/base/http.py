"""Asks a server for a file, and trusts nothing that it answers: not the address, the lengths, the encoding or the pace.

Redirects stay with http and https, a slow or endless answer is ended, and what cannot be a file is refused.
"""

from __future__ import annotations

import http.client
import io
import math
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

from ddo_plugin.base.errors import UserError

TIMEOUT_S = 60.0  # without a byte
WINDOW_S = 60.0  # of waiting, in which the least rate must be reached
CHUNK = 1 << 20
MIN_KB_PER_S, MAX_GIB = "DDO_DOWNLOAD_MIN_KB_PER_S", "DDO_DOWNLOAD_MAX_GIB"
_REDIRECTS = 10
_REDIRECTED = (301, 302, 303, 307, 308)
_MOST_OVERHEAD = 4 * CHUNK  # bytes of an answer, such as headers, that are not the file
_OVERHEAD_PER_BYTE = 8  # a chunk of one byte has a header of five
_LONGEST_LENGTH = 18  # digits
_LONGEST_TEXT = 200  # of a server's words in a message


class InterruptedDownloadError(Exception):
    """The answer is not usable, but the next one may be."""


class Response(http.client.HTTPResponse):
    """An answer whose bytes are counted and timed as they arrive."""

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self._wire = _Wire(sock.makefile("rb", buffering=0))
        self.fp = io.BufferedReader(self._wire)

    @property
    def total(self) -> int | None:
        """Return the declared length of the body."""
        return self.length

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it arrives, up to its declared length."""
        left = self.length  # read1 of some versions of Python does not count it down
        while left != 0 and (chunk := self.read1(CHUNK if left is None else min(CHUNK, left))):
            self._wire.overhead -= _OVERHEAD_PER_BYTE * len(chunk)
            left = None if left is None else left - len(chunk)
            yield chunk


class _Wire(io.RawIOBase):
    """The raw bytes of an answer. Raises an exception if they come too slowly, or if too few of them are the file."""

    def __init__(self, raw: Any) -> None:
        self.overhead = 0  # bytes beyond those that the file can account for
        self._raw = raw
        self._min_rate = min_rate()
        self._waited = self._received = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        began = time.monotonic()
        count = int(self._raw.readinto(memoryview(buffer)[:CHUNK]) or 0)
        self._waited += time.monotonic() - began
        self._received += count
        self.overhead = max(self.overhead, 0) + count
        if self._waited >= WINDOW_S:
            if count and self._received < self._min_rate * self._waited:
                raise TimeoutError(
                    f"the server sends slower than {self._min_rate / 1000:g} kB/s; set {MIN_KB_PER_S} to allow less"
                )
            self._waited = self._received = 0.0
        if self.overhead > _MOST_OVERHEAD:
            raise InterruptedDownloadError("the server sends headers without end")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Connection(http.client.HTTPConnection):
    response_class = Response


class _SecureConnection(http.client.HTTPSConnection):
    response_class = Response


class _Handler(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_Connection, req)


class _SecureHandler(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(_SecureConnection, req)


def ask(url: str, headers: Mapping[str, str]) -> Response:
    """Return the server's answer, with status 200 or 206. Follow redirects between http and https addresses only."""
    address = url
    for _ in range(_REDIRECTS + 1):
        try:
            response = _opener().open(urllib.request.Request(address, headers=dict(headers)), timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            if error.code not in _REDIRECTED:
                raise
            error.close()
            address = _redirected(url, address, error.headers.get("Location"))
        else:
            return _checked(url, response)
    raise UserError(f"{url}: the server redirects more than {_REDIRECTS} times; check the address")


def words(text: object) -> str:
    """Return what a server says as one short line."""
    line = " ".join(str(text).split())
    return line if len(line) <= _LONGEST_TEXT else f"{line[:_LONGEST_TEXT]}…"


def min_rate() -> float:
    """Return the bytes per second that a server must send."""
    return _number(MIN_KB_PER_S, 10.0) * 1000


def most_bytes() -> int:
    """Return the length of the longest file that is downloaded."""
    return int(_number(MAX_GIB, 64.0) * 2**30)


def _number(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        value = float(text or default)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UserError(f"{name}={text}: must be a number, 0 or more")
    return value


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener of http and https alone; urllib's own opens ftp, file and data too."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Handler(),
        _SecureHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _redirected(url: str, address: str, location: str | None) -> str:
    if not location:
        raise UserError(f"{url}: the server redirects to nowhere; check the address")
    target = urllib.parse.urljoin(
        address, urllib.parse.quote(location, safe="%/:=&?~#+!$,;'@()*[]", encoding="latin-1")
    )
    scheme = urllib.parse.urlsplit(target).scheme
    if scheme not in ("http", "https"):
        raise UserError(
            f"{url}: the server redirects to {words(target)}, and only http and https are followed; check the address"
        )
    if scheme == "http" and address.startswith("https:"):
        raise UserError(
            f"{url}: the server redirects to {words(target)}, which is not encrypted; check the address, or download "
            "the file and pass its path"
        )
    return target


def _checked(url: str, response: Response) -> Response:
    """Refuse an answer that is no file."""
    if response.status not in (http.client.OK, http.client.PARTIAL_CONTENT):
        raise UserError(f"{url}: the server answers {response.status} {words(response.reason)}; check the address")
    transfer = response.headers.get("Transfer-Encoding", "chunked")
    content = response.headers.get("Content-Encoding", "identity")
    if transfer.lower() != "chunked" or content.lower() not in ("identity", ""):
        encoding = content if transfer.lower() == "chunked" else transfer
        raise UserError(
            f"{url}: the server sends the file compressed ({words(encoding)}), which was not asked for; download the "
            "file and pass its path"
        )
    length = response.headers.get("Content-Length")
    if length is not None and not re.fullmatch(rf"[0-9]{{1,{_LONGEST_LENGTH}}}", length.strip()):
        raise UserError(f"{url}: the server sends the Content-Length {words(length)!r}, which is no length")
    return response
