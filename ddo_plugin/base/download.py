"""Opens files by path or URL. Downloads are cached, resumed after an interruption, and verified before use.

The cache has the layout of `dnnlib` of the NVlabs repositories, so that both find what either has downloaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
import urllib.error
import urllib.parse
from dataclasses import asdict, dataclass
from email.message import Message
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import IO

import filelock
from tqdm import tqdm

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import sha256_file, sync_folder, write_json, writing
from ddo_plugin.base.http import MAX_GIB, InterruptedDownloadError, Response, ask, min_rate, most_bytes, words

ATTEMPTS = 10
PAUSE_S = 0.1  # before the second attempt; doubles for each further attempt, up to LONGEST_PAUSE_S
LONGEST_PAUSE_S = 2.0
_SPARE = 256 << 20  # bytes that a download leaves free on the disk
_RECORD = ".etag"
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
    most, _ = most_bytes(), min_rate()  # a wrong value is refused before the server is asked
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _fetch(url, part, most, verbose)
            return
        except urllib.error.HTTPError as error:
            error.close()
            failure: Exception = error
            if error.code == _RANGE_NOT_SATISFIABLE:
                _forget(part)  # it is no beginning of this file
            elif error.code < 500 and error.code not in (_REQUEST_TIMEOUT, _TOO_MANY_REQUESTS):
                raise UserError(
                    f"{url}: the server answers {error.code} {words(error.reason)}; check the address"
                ) from None
        except (OSError, HTTPException, InterruptedDownloadError) as error:
            failure = error
            if isinstance(getattr(error, "reason", None), socket.gaierror):
                raise UserError(f"{url}: unknown host; check the address and the network") from None
        except (ValueError, OverflowError) as error:  # the latter: of a port
            raise UserError(f"{url}: not a valid URL ({words(error)})") from None
        if attempt < ATTEMPTS:
            time.sleep(min(PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S))
    raise UserError(
        f"{url}: download failed after {ATTEMPTS} attempts ({words(failure)}); run the command again to resume it"
    )


def _fetch(url: str, part: Path, most: int, verbose: bool) -> None:
    """Try once. Received bytes stay in `part`, and the file's version beside it, for the next attempt."""
    record = part.with_suffix(_RECORD)
    version = _Version.read(record) if part.exists() else None
    have = part.stat().st_size if version else 0
    total: int | None
    asked = {"Range": f"bytes={have}-", "If-Range": version.tag} if have and version else {}
    with ask(url, asked) as response:
        if response.status == HTTPStatus.PARTIAL_CONTENT:
            try:
                total = _continued(response.headers, version if have else None, have)
            except InterruptedDownloadError:
                _forget(part)
                raise
        else:
            have, total = 0, response.total  # the file has changed, or the server cannot resume: start again
            _forget(part)
        _Version.of(response.headers, total).write(record)
        _append(url, response, part, have, total, most, verbose)
    size = part.stat().st_size
    if total is not None and size != total:
        raise InterruptedDownloadError(f"received {size} of {total} bytes")
    if size == 0:
        raise InterruptedDownloadError("the server sent nothing")
    record.unlink(missing_ok=True)


def _continued(headers: Message, version: _Version | None, have: int) -> int:
    """Return the length of the whole file if this answer continues our part of it."""
    if version is None:
        raise InterruptedDownloadError("the server sent a part of the file, which was not asked for")
    shown = re.fullmatch(rf"bytes {have}-([0-9]{{1,18}})/([0-9]{{1,18}})", headers.get("Content-Range", ""))
    total = int(shown[2]) if shown else -1
    if not shown or int(shown[1]) + 1 != total:
        raise InterruptedDownloadError("the server sent another range than requested")
    if headers.get("Content-Length", str(total - have)) != str(total - have) or not version.is_of(headers, total):
        raise InterruptedDownloadError("the file changed during the download")
    return total


def _append(url: str, response: Response, part: Path, have: int, total: int | None, most: int, verbose: bool) -> None:
    """Write what arrives to the end of the part. If the disk or the limit does not hold the file, remove the part."""
    name = url.rsplit("/", 1)[-1]
    try:
        _refuse_large(url, part, total or 0, most)
        with (
            writing(f"{url}: {part}"),
            part.open("ab") as file,
            tqdm(desc=name, total=total, initial=have, unit="B", unit_scale=True, disable=not verbose) as bar,
        ):
            for chunk in response.chunks():
                have += len(chunk)
                _refuse_large(url, part, total or have, most)
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    except UserError:
        _forget(part)
        raise


def _forget(part: Path) -> None:
    """Remove a part and its version. The part goes first, so that a kill never leaves old bytes with a new version."""
    part.unlink(missing_ok=True)
    part.with_suffix(_RECORD).unlink(missing_ok=True)


def _refuse_large(url: str, part: Path, length: int, most: int) -> None:
    if length > most:
        raise UserError(
            f"{url}: the file has {length / 1e6:.1f} MB or more, and the limit is {most / 1e6:.1f} MB; set {MAX_GIB} "
            "to allow more"
        )
    room = shutil.disk_usage(part.parent).free + (part.stat().st_size if part.exists() else 0) - _SPARE
    if length > room:
        raise UserError(
            f"{url}: the file has {length / 1e9:.1f} GB or more, and the disk of {part.parent} has room for "
            f"{max(room, 0) / 1e9:.1f} GB; free disk space, or set DNNLIB_CACHE_DIR to another folder"
        )


@dataclass(frozen=True)
class _Version:
    """What a server says about the file that our part is the beginning of."""

    etag: str | None
    date: str | None
    total: int | None

    @classmethod
    def of(cls, headers: Message, total: int | None) -> _Version:
        return cls(headers.get("ETag"), headers.get("Last-Modified"), total)

    @classmethod
    def read(cls, record: Path) -> _Version | None:
        """Return what was written beside the part, or None if the part cannot be continued."""
        try:
            version = cls(**json.loads(record.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return version if version.tag else None

    def write(self, record: Path) -> None:
        write_json(record, asdict(self))

    @property
    def tag(self) -> str:
        return self.etag or self.date or ""

    def is_of(self, headers: Message, total: int) -> bool:
        """Return whether an answer may be about the same version. An answer that leaves a fact out may be."""
        other = _Version.of(headers, total)
        pairs = (self.etag, other.etag), (self.date, other.date), (self.total, other.total)
        return all(ours is None or theirs is None or ours == theirs for ours, theirs in pairs)


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
