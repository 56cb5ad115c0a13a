"""Files by path or URL: cached, resumed where a download broke, checked before a byte is used.

The cache has the layout of the NVlabs repositories' `dnnlib`, so that a network fetched by either is there for both.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import IO

import filelock
from tqdm import tqdm

from ddo_plugin.errors import UserError
from ddo_plugin.files import sha256_file, sync_folder

ATTEMPTS = 10
CHUNK = 1 << 20
_LONGEST_NAME = 128


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
    if not path.is_file():
        raise UserError(f"{url}: no such file")
    _check(path, sha256, url)
    return path


def is_url(text: str) -> bool:
    return re.match(r"[a-z]+://", text) is not None


def default_cache_dir() -> Path:
    """Where the NVlabs repositories keep their downloads."""
    if folder := os.environ.get("DNNLIB_CACHE_DIR"):
        return Path(folder) / "downloads"
    home = os.environ.get("HOME") or os.environ.get("USERPROFILE") or tempfile.gettempdir()
    return Path(home) / ".cache" / "dnnlib" / "downloads"


def cache_entry(url: str, cache_dir: Path) -> Path:
    """The cached file of a URL, there or not. An entry that dnnlib named after a redirect is found as well."""
    key = hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()
    found = [path for path in sorted(cache_dir.glob(f"{key}_*")) if not path.name.endswith((".part", ".lock"))]
    return found[0] if len(found) == 1 else cache_dir / f"{key}_{re.sub('[^0-9a-zA-Z-._]', '_', url)[:_LONGEST_NAME]}"


def _cached(url: str, cache_dir: Path, sha256: str | None, verbose: bool) -> Path:
    cache_dir.mkdir(parents=True, exist_ok=True)
    entry = cache_entry(url, cache_dir)
    with filelock.FileLock(f"{entry}.lock"):  # one process downloads, the other ranks wait for it
        if not entry.exists():
            part = Path(f"{entry}.part")
            _download(url, part, verbose)
            _check(part, sha256, url, discard=True)
            part.replace(entry)
            sync_folder(cache_dir)
        else:
            _check(entry, sha256, url)
    return entry


def _download(url: str, part: Path, verbose: bool) -> None:
    """Fetch a URL into `part`, going on where an earlier attempt stopped."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _fetch(url, part, verbose)
            return
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise UserError(f"{url}: the server says {error.code} {error.reason}") from None
            failure: Exception = error
        except (OSError, HTTPException, _InterruptedError) as error:
            failure = error
        if attempt == ATTEMPTS:
            raise UserError(f"{url}: download failed after {ATTEMPTS} attempts ({failure}); run again to resume it")


def _fetch(url: str, part: Path, verbose: bool) -> None:
    validator = part.with_suffix(".etag")
    have = part.stat().st_size if part.exists() and validator.exists() else 0
    request = urllib.request.Request(url)
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator.read_text())
    with urllib.request.urlopen(request, timeout=60) as response:
        if response.status != 206:
            have = 0  # the file changed, or the server cannot resume: from the start
        tag = response.headers.get("ETag") or response.headers.get("Last-Modified")
        validator.write_text(tag) if tag else validator.unlink(missing_ok=True)
        length = response.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            part.open("ab" if have else "wb") as file,
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


def _check(path: Path, sha256: str | None, url: str, discard: bool = False) -> None:
    if sha256 is None:
        return
    found = sha256_file(path)
    if found != sha256.lower():
        if discard:
            path.unlink()
        raise UserError(f"{url}: sha256 is {found}, but {sha256} was asked for; the file is not used")


def _path_of_file_url(url: str) -> Path:
    raw = urllib.parse.urlparse(url).path
    if re.match(r"/[a-zA-Z]:", raw):  # file:///c:/…
        raw = raw[1:]
    path = Path(raw)
    return path if path.exists() else Path(urllib.parse.unquote(raw))
