"""A file as lines of bytes. Joining the lines gives the same bytes, whatever the line ends, BOM or last line are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

_BOM = b"\xef\xbb\xbf"
_DIGEST_LENGTH = 16


@dataclass(frozen=True)
class Text:
    """The lines of a file. Each line in `raw` has a line end, the last one even if the file's last line has none."""

    raw: tuple[bytes, ...]
    bom: bytes
    closed: bool  # whether the file's last line has a line end
    end: bytes  # the line end of most lines

    @classmethod
    def of(cls, data: bytes) -> Text:
        """Split the content of a file into lines."""
        bom = _BOM if data.startswith(_BOM) else b""
        raw = data[len(bom) :].split(b"\n")
        last = raw.pop()
        lines = [line + b"\n" for line in raw]
        end = _line_end(lines)
        if last:
            lines.append(last + end)
        return cls(tuple(lines), bom, not last, end)

    @property
    def data(self) -> bytes:
        """Return the content of the file."""
        joined = self.bom + b"".join(self.raw)
        return joined if self.closed else joined.removesuffix(self.end)

    @cached_property
    def lines(self) -> tuple[bytes, ...]:
        """Return the lines without line ends, so that a CRLF checkout has the same lines."""
        return tuple(line[:-2] if line.endswith(b"\r\n") else line[:-1] for line in self.raw)

    def insert(self, blocks: dict[int, tuple[bytes, ...]]) -> Text:
        """Insert each block after the given number of lines, with the line ends that the file uses."""
        out: list[bytes] = []
        for position in range(len(self.raw) + 1):
            out += [line + self.end for line in blocks.get(position, ())]
            out += self.raw[position : position + 1]
        return Text(tuple(out), self.bom, self.closed, self.end)

    def remove(self, positions: set[int]) -> Text:
        """Remove the lines with these indices."""
        kept = tuple(line for index, line in enumerate(self.raw) if index not in positions)
        return Text(kept, self.bom, self.closed, self.end)


def blob_ids(data: bytes) -> set[str]:
    """Return git's possible names of this content: as it is, and as stored if the checkout turned LF into CRLF."""
    return {blob_id(data), blob_id(data.replace(b"\r\n", b"\n"))}


def blob_id(data: bytes) -> str:
    """Return git's name of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def digest(line: bytes) -> str:
    """Return the digest of a line. Our files hold digests instead of upstream's lines."""
    return hashlib.sha256(line).hexdigest()[:_DIGEST_LENGTH]


def _line_end(lines: list[bytes]) -> bytes:
    windows = sum(line.endswith(b"\r\n") for line in lines)
    return b"\r\n" if windows > len(lines) - windows else b"\n"
