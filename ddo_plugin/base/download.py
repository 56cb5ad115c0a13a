"""Files by path or URL: cached, resumed where a download broke, checked before a byte is used.

The cache has the layout of the NVlabs repositories' `dnnlib`, so that a network fetched by either is there for both.
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
PAUSE_S = 0.1  # before the second attempt; doubled for each further one, up to LONGEST_PAUSE_S
LONGEST_PAUSE_S = 2.0
TIMEOUT_S = 60.0
CHUNK = 1 << 20
_LONGEST_NAME = 128
_REQUEST_TIMEOUT, _RANGE_NOT_SATISFIABLE, _TOO_MANY_REQUESTS = 408, 416, 429


def open_url(
    url: str, *, cache_dir: Path | str | None = None, sha256: str | None = None, verbose: bool = True
) -> IO[bytes]:
    """A binary file object for a local path, a file:// URL or an http(s) URL."""
    return local_file(url, cache_dir=cache_dir, sha256=sha256, verbose=verbose).open("rb")


def local_file(
    url: str, *, cache_dir: Path | str | None = None, sha256: str | None = None, verbose: bool = True
) -> Path:
    """The path of a file given by path or URL, downloaded if need be. `sha256` is checked before the path is given."""
    if not is_url(url):
        path = Path(url)
    elif url.startswith("file://"):
        path = _path_of_file_url(url)
    else:
        return _cached(url, Path(cache_dir) if cache_dir else default_cache_dir(), sha256, verbose)
    if url and path.is_dir():
        raise UserError(f"{url} is a folder; give one of the files in it")
    if not path.is_file():
        raise UserError(f"{url}: no such file")
    _check(path, sha256, url)
    return path


def is_url(text: str) -> bool:
    """Whether this is a URL rather than a path."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", text) is not None


def default_cache_dir() -> Path:
    """Where the NVlabs repositories keep their downloads."""
    if folder := os.environ.get("DNNLIB_CACHE_DIR"):
        return Path(folder) / "downloads"
    home = os.environ.get("HOME") or os.environ.get("USERPROFILE") or tempfile.gettempdir()
    return Path(home) / ".cache" / "dnnlib" / "downloads"


def cache_entry(url: str, cache_dir: Path) -> Path:
    """The cached file of a URL, there or not. An entry that dnnlib named after a redirect is found as well."""
    key = hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()
    found = list(cache_dir.glob(f"{key}_*"))
    return found[0] if len(found) == 1 else cache_dir / f"{key}_{re.sub('[^0-9a-zA-Z-._]', '_', url)[:_LONGEST_NAME]}"


def _cached(url: str, cache_dir: Path, sha256: str | None, verbose: bool) -> Path:
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url}: only http, https and file URLs can be read; download it and give its path")
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        # One process downloads, the other ranks wait for it.
        with filelock.FileLock(_beside(cache_entry(url, cache_dir), "lock")):
            entry = cache_entry(url, cache_dir)
            if entry.exists():
                _check(entry, sha256, url, f"; delete {entry} to download it again")
            else:
                _fill(entry, url, sha256, verbose)
            return entry
    except OSError as error:
        raise UserError(
            f"{url}: the download cache {cache_dir} cannot be used ({error}); set DNNLIB_CACHE_DIR"
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
    """A helper file of a cache entry, named so that dnnlib, which takes any KEY_* for the file, does not see it."""
    return entry.with_name(f".{entry.name}.{suffix}")


def _download(url: str, part: Path, verbose: bool) -> None:
    """Fetch a URL into `part`, going on where an earlier attempt stopped."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _fetch(url, part, verbose)
            return
        except urllib.error.HTTPError as error:
            failure: Exception = error
            if error.code == _RANGE_NOT_SATISFIABLE:
                part.unlink(missing_ok=True)  # it cannot be a beginning of this file
            elif error.code < 500 and error.code not in (_REQUEST_TIMEOUT, _TOO_MANY_REQUESTS):
                raise UserError(f"{url}: the server says {error.code} {error.reason}; check the address") from None
        except (OSError, HTTPException, _InterruptedError) as error:
            failure = error
            if isinstance(getattr(error, "reason", None), socket.gaierror):
                raise UserError(f"{url}: unknown host; check the address and the network") from None
        except ValueError as error:
            raise UserError(f"{url}: not a URL that can be asked for ({error})") from None
        if attempt < ATTEMPTS:
            time.sleep(min(PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S))
    raise UserError(f"{url}: download failed after {ATTEMPTS} attempts ({failure}); run again to resume it")


def _fetch(url: str, part: Path, verbose: bool) -> None:
    """One attempt. What it received stays in `part`, and the file's version beside it, for the next."""
    validator = part.with_suffix(".etag")
    have = part.stat().st_size if part.exists() and validator.exists() else 0
    request = urllib.request.Request(url)
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator.read_text())
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
        if response.status != HTTPStatus.PARTIAL_CONTENT:
            have = 0  # the file changed, or the server cannot resume: from the start
            part.unlink(missing_ok=True)  # before the new version is noted, lest a kill leave the two together
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            part.unlink(missing_ok=True)
            raise _InterruptedError("the server sent another part than it was asked for")
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
        raise _InterruptedError(f"got {size} of {total} bytes")
    if size == 0:
        raise _InterruptedError("the server sent nothing")
    validator.unlink(missing_ok=True)


class _InterruptedError(Exception):
    """The connection ended before the file did."""


def _check(path: Path, sha256: str | None, url: str, remedy: str = "") -> None:
    if sha256 is None:
        return
    found = sha256_file(path)
    if found != sha256.lower():
        raise UserError(f"{url}: sha256 is {found}, but {sha256} was asked for; the file is not used{remedy}")


def _path_of_file_url(url: str) -> Path:
    raw = urllib.parse.urlparse(url).path
    if re.match(r"/[a-zA-Z]:", raw):  # file:///c:/…
        raw = raw[1:]
    path = Path(raw)
    return path if path.exists() else Path(urllib.parse.unquote(raw))
