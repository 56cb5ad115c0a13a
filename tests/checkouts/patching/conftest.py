import pytest

from ddo_plugin.checkouts.patching.format import NEIGHBOURS, FilePatch, Hunk, padded_digests
from ddo_plugin.checkouts.patching.text import Text, blob_id


@pytest.fixture
def make_patch():
    """old content, {after line: inserted lines} -> FilePatch; unlike the maintainer's command it takes any place."""

    def make(old: bytes, insertions: dict[int, list[bytes]], path: str = "notes.txt") -> FilePatch:
        text = Text.of(old)
        digests = padded_digests(text.lines)
        hunks = tuple(
            Hunk(
                at,
                tuple(lines),
                tuple(digests[at : at + NEIGHBOURS]),
                tuple(digests[at + NEIGHBOURS : at + 2 * NEIGHBOURS]),
            )
            for at, lines in sorted(insertions.items())
        )
        new = text.insert({hunk.after: hunk.lines for hunk in hunks}).data
        return FilePatch(path, blob_id(old), blob_id(new), hunks)

    return make
