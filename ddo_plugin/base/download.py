"""Opens files by path or URL. Downloads are cached, resumed after an interruption, and verified before use.

The cache has the layout of `dnnlib` of the NVlabs repositories, so that both find what either has downloaded.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import IO

import filelock
from tqdm import tqdm

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import sha256_file, sync_folder

ATTEMPTS = 10
PAUSE_S = 0.1  # before the second attempt; doubles for each further attempt, up to LONGEST_PAUSE_S
LONGEST_PAUSE_S = 2.0
TIMEOUT_S = 60.0
CHUNK = 1 << 20
_LONGEST_NAME = 128
_REQUEST_TIMEOUT, _RANGE_NOT_SATISFIABLE, _TOO_MANY_REQUESTS = 408, 416, 429


def open_url(
    url: str, *, cache_dir: Path | str | None = None, sha256: str | None = None, verbose: bool = True
) -> IO[bytes]:
    """Open a local path, a file:// URL or an http(s) URL as a binary file."""
    return local_file(url, cache_dir=cache_dir, sha256=sha256, verbose=verbose).open("rb")


def local_file(
    url: str, *, cache_dir: Path | str | None = None, sha256: str | None = None, verbose: bool = True
) -> Path:
    """Return the local path of a file, downloading a URL if needed. The file is verified against `sha256` first."""
    if not is_url(url):
        path = Path(url)
    elif url.startswith("file://"):
        path = _path_of_file_url(url)
    else:
        return _cached(url, Path(cache_dir) if cache_dir else default_cache_dir(), sha256, verbose)
    if url and path.is_dir():
        raise UserError(f"{url}: is a folder; pass one of the files in it")
    if not path.is_file():
        raise UserError(f"{url}: no such file")
    _check(path, sha256, url)
    return path


def is_url(text: str) -> bool:
    """Return whether this is a URL rather than a path."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", text) is not None


def default_cache_dir() -> Path:
    """Return the folder in which the NVlabs repositories keep their downloads."""
    if folder := os.environ.get("DNNLIB_CACHE_DIR"):
        return Path(folder) / "downloads"
    home = os.environ.get("HOME") or os.environ.get("USERPROFILE") or tempfile.gettempdir()
    return Path(home) / ".cache" / "dnnlib" / "downloads"


def cache_entry(url: str, cache_dir: Path) -> Path:
    """Return the place of a URL in the cache, whether the file exists or not.

    dnnlib names a file after the address that the server redirected to. Such a file is found as well.
    """
    key = hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()
    entries = list(cache_dir.glob(f"{key}_*"))
    return (
        entries[0] if len(entries) == 1 else cache_dir / f"{key}_{re.sub('[^0-9a-zA-Z-._]', '_', url)[:_LONGEST_NAME]}"
    )


def _cached(url: str, cache_dir: Path, sha256: str | None, verbose: bool) -> Path:
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url}: only http, https and file URLs can be opened; download the file and pass its path")
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        # One rank downloads, the others wait.
        with filelock.FileLock(_beside(cache_entry(url, cache_dir), "lock")):
            entry = cache_entry(url, cache_dir)
            if entry.exists():
                _check(entry, sha256, url, f"; delete {entry} to download it again")
            else:
                _fill(entry, url, sha256, verbose)
            return entry
    except OSError as error:
        raise UserError(
            f"{url}: cannot use the download cache {cache_dir} ({error}); set DNNLIB_CACHE_DIR to another folder"
        ) from None


def _fill(entry: Path, url: str, sha256: str | None, verbose: bool) -> None:
    part = _beside(entry, "part")
    _download(url, part, verbose)
    try:
        _check(part, sha256, url)
    except UserError:
        part.unlink()
        raise
    part.replace(entry)
    sync_folder(entry.parent)


def _beside(entry: Path, suffix: str) -> Path:
    """Return a helper file of a cache entry. Its name hides it from dnnlib, which takes any KEY_* for the entry."""
    return entry.with_name(f".{entry.name}.{suffix}")


def _download(url: str, part: Path, verbose: bool) -> None:
    """Download a URL into `part`, resuming where an earlier attempt stopped."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _fetch(url, part, verbose)
            return
        except urllib.error.HTTPError as error:
            failure: Exception = error
            if error.code == _RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)  # the part is no beginning of this file
            elif error.code < 500 and error.code not in (_REQUEST_TIMEOUT, _TOO_MANY_REQUESTS):
                raise UserError(f"{url}: the server answers {error.code} {error.reason}; check the address") from None
        except (OSError, HTTPException, _InterruptedError) as error:
            failure = error
            if isinstance(getattr(error, "reason", None), socket.gaierror):
                raise UserError(f"{url}: unknown host; check the address and the network") from None
        except ValueError as error:
            raise UserError(f"{url}: not a valid URL ({error})") from None
        if attempt < ATTEMPTS:
            time.sleep(min(PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S))
    raise UserError(f"{url}: download failed after {ATTEMPTS} attempts ({failure}); run the command again to resume it")


def _fetch(url: str, part: Path, verbose: bool) -> None:
    """Try once. Received bytes stay in `part`, and the file's version beside it, for the next attempt."""
    validator = part.with_suffix(".etag")
    have = part.stat().st_size if part.exists() and validator.exists() else 0
    request = urllib.request.Request(url)
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator.read_text())
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            have = 0  # the file has changed, or the server cannot resume: start again
            part.unlink(missing_ok=True)  # first, so that a kill never leaves old bytes with the new version
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise _InterruptedError("the server sent another range than requested")
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified")
        validator.write_text(tag) if tag else validator.unlink(missing_ok=True)
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            part.open("ab") as file,
            tqdm(
                desc=url.rsplit("/", 1)[-1], total=total, initial=have, unit="B", unit_scale=True, disable=not verbose
            ) as bar,
        ):
            while chunk := response.read(CHUNK):
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    size = part.stat().st_size
    if total is not None and size != total:
        raise _InterruptedError(f"received {size} of {total} bytes")
    if size == 0:
        raise _InterruptedError("the server sent nothing")
    validator.unlink(missing_ok=True)


class _InterruptedError(Exception):
    """The connection ended before the file did."""


def _check(path: Path, sha256: str | None, url: str, remedy: str = "") -> None:
    if sha256 is None:
        return
    actual = sha256_file(path)
    if actual != sha256.lower():
        raise UserError(f"{url}: sha256 is {actual}, expected {sha256}; the file is not used{remedy}")


def _path_of_file_url(url: str) -> Path:
    raw = urllib.parse.urlparse(url).path
    if re.match(r"/[a-zA-Z]:", raw):  # file:///c:/…
        raw = raw[1:]
    path = Path(raw)
    return path if path.exists() else Path(urllib.parse.unquote(raw))
