import subprocess

import pytest

from ddo_plugin.checkouts.patching.text import Text, blob_id, blob_ids, digest

SHAPES = {
    "empty": b"",
    "one line end": b"\n",
    "no final newline": b"a\nb",
    "CRLF": b"a\r\nb\r\n",
    "CRLF, no final newline": b"a\r\nb",
    "mixed line ends": b"a\r\nb\nc\r\nd",
    "tabs and trailing blanks": b"\ta \n\t\tb\t\n",
    "BOM": b"\xef\xbb\xbfa\nb\n",
    "BOM alone": b"\xef\xbb\xbf",
    "form feed and line separator": "a\x0cb\u2028c\x85d\n".encode(),
    "not UTF-8": b"\xff\xfe\x00a\n\xe9\n",
    "carriage returns alone": b"a\rb\rc",
    "carriage return at the very end": b"a\r",
}


@pytest.mark.parametrize("data", SHAPES.values(), ids=SHAPES)
def test_splitting_and_joining_gives_the_same_bytes(data):
    assert Text.of(data).data == data


@pytest.mark.parametrize("data", [data for data in SHAPES.values() if data != b"a\r"])
def test_inserting_and_removing_gives_the_same_bytes_wherever_it_is(data):
    text = Text.of(data)
    for place in range(len(text.lines) + 1):
        longer = Text.of(text.insert({place: (b"one", b"two")}).data)
        assert longer.lines[place : place + 2] == (b"one", b"two")
        assert longer.remove({place, place + 1}).data == data


def test_a_final_newline_is_neither_added_nor_lost():
    assert Text.of(b"a\nb").insert({2: (b"new",)}).data == b"a\nb\nnew"
    assert Text.of(b"a\nb\n").insert({2: (b"new",)}).data == b"a\nb\nnew\n"


def test_inserted_lines_get_the_line_ends_of_the_file():
    assert Text.of(b"a\r\nb\r\n").insert({1: (b"new",)}).data == b"a\r\nnew\r\nb\r\n"


def test_a_bom_stays_first():
    assert Text.of(b"\xef\xbb\xbfa\n").insert({0: (b"new",)}).data == b"\xef\xbb\xbfnew\na\n"


@pytest.mark.parametrize("data", SHAPES.values(), ids=SHAPES)
def test_the_blob_id_is_the_one_git_computes(data, tmp_path):
    (tmp_path / "file").write_bytes(data)
    command = ["git", "hash-object", "--no-filters", str(tmp_path / "file")]
    assert blob_id(data) == subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_crlf_checkout_has_the_blob_id_and_the_digests_of_what_git_stores():
    unix, windows = b"a\nb \n", b"a\r\nb \r\n"
    assert blob_id(unix) in blob_ids(windows)
    assert [digest(line) for line in Text.of(unix).lines] == [digest(line) for line in Text.of(windows).lines]


def test_trailing_blanks_are_part_of_a_line():
    assert digest(b"a") != digest(b"a ")
