import pytest

from ddo_plugin.checkouts.patching.placing import State, inspect

LETTERS = b"".join(bytes([letter]) + b"\n" for letter in range(ord("a"), ord("z") + 1))
SHAPES = {
    "plain": LETTERS,
    "CRLF": LETTERS.replace(b"\n", b"\r\n"),
    "no final newline": LETTERS[:-1],
    "CRLF, no final newline": LETTERS.replace(b"\n", b"\r\n")[:-2],
    "BOM": b"\xef\xbb\xbf" + LETTERS,
    "tabs": LETTERS.replace(b"k", b"\tk\t"),
    "empty": b"",
    "one line": b"a",
    "not text": b"\xff\x00\n\xfe\n\x80",
}


@pytest.fixture
def letters(make_patch):
    """Inserts after c, after m and at the end of the alphabet."""
    return make_patch(LETTERS, {3: [b"ONE"], 13: [b"TWO", b"TWO AGAIN"], 26: [b"THREE"]})


@pytest.mark.parametrize("data", SHAPES.values(), ids=SHAPES)
def test_a_file_of_any_shape_is_patched_and_restored_to_the_byte(make_patch, data):
    last = data.count(b"\n") + bool(data and not data.endswith(b"\n"))
    for places in ({0}, {last}, {0, last}):
        patch = make_patch(data, {place: [b"\tNEW %d" % place] for place in places})
        found = inspect(patch, data)
        assert found.state is State.PRISTINE
        assert all(found.with_lines.count(b"\tNEW %d" % place) == 1 for place in places)
        again = inspect(patch, found.with_lines)
        assert (again.state, again.with_lines, again.without_lines) == (State.PATCHED, found.with_lines, data)


def test_a_crlf_checkout_of_the_same_content_is_pristine(letters):
    found = inspect(letters, LETTERS.replace(b"\n", b"\r\n"))
    assert found.state is State.PRISTINE
    assert found.with_lines == inspect(letters, LETTERS).with_lines.replace(b"\n", b"\r\n")
    assert inspect(letters, found.with_lines).state is State.PATCHED


@pytest.mark.parametrize(
    "edit",
    [
        lambda data: b"above\nabove\n" + data,
        lambda data: data.replace(b"h\n", b""),
        lambda data: data.replace(b"h\n", b"h\nmore\nmore\n").replace(b"f\n", b"F\n"),
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data[:-1],
        lambda data: data.replace(b"p\n", b"P\r\n"),
    ],
    ids=["lines above", "line deleted", "lines added and changed", "BOM", "no final newline", "mixed line ends"],
)
def test_an_edited_file_gets_the_lines_between_the_same_neighbours(letters, edit):
    data = edit(LETTERS)
    found = inspect(letters, data)
    assert found.state is State.SHIFTED
    lines = found.with_lines.replace(b"\r\n", b"\n").split(b"\n")
    assert lines[lines.index(b"ONE") - 1 :][:3] == [b"c", b"ONE", b"d"]
    assert lines[lines.index(b"TWO") - 1 :][:4] == [b"m", b"TWO", b"TWO AGAIN", b"n"]
    assert lines[lines.index(b"THREE") - 1] == b"z"
    assert inspect(letters, found.with_lines).without_lines == data


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda data: data.replace(b"c\n", b"C\n"), "insertion 1 of 3 fits no place"),
        (lambda data: data.replace(b"b\n", b"B\n"), "insertion 1 of 3 fits no place"),
        (lambda data: data.replace(b"d\n", b""), "insertion 1 of 3 fits no place"),
        (lambda data: data.replace(b"c\n", b"c\nnew\n"), "insertion 1 of 3 fits no place"),
        (lambda data: data + b"end\n", "insertion 3 of 3 fits no place"),
        (lambda data: b"b\nc\nd\ne\n" + data, "insertion 1 of 3 fits 2 places"),
        (lambda data: data[20:40] + data[:20] + data[40:], "another order"),
        (lambda data: b"", "fits no place"),
        (lambda data: data.replace(b"\n", b"\r"), "fits no place"),
        (lambda data: data.decode().encode("utf-16"), "fits no place"),
    ],
)
def test_a_file_with_any_doubt_is_refused_with_the_reason(letters, edit, reason):
    found = inspect(letters, edit(LETTERS))
    assert (found.state, found.with_lines, found.lines_found) == (State.CONFLICTING, None, False)
    assert reason in found.reason


def test_the_reason_shows_the_lines_and_where_they_stand_in_the_version_that_is_known(letters):
    reason = inspect(letters, LETTERS.replace(b"c\n", b"C\n")).reason
    assert f"`git show {letters.old_blob[:12]}`" in reason
    told = [f"after line {hunk.after} `{hunk.lines[0].decode()}`" for hunk in letters.hunks]
    assert all(one in reason for one in told)
    assert "\n" not in reason


def test_inserted_lines_that_were_edited_away_are_noticed(letters):
    patched = inspect(letters, LETTERS).with_lines
    found = inspect(letters, patched.replace(b"ONE\n", b"ONE and more\n"))
    assert (found.state, found.lines_found, found.without_lines) == (State.CONFLICTING, True, None)
    assert "only 2 of DDO's 3 insertions" in found.reason


def test_lines_that_stand_in_it_twice_are_refused(letters):
    patched = inspect(letters, LETTERS).with_lines
    found = inspect(letters, patched.replace(b"ONE\n", b"ONE\nONE\n"))
    assert (found.state, found.with_lines, found.without_lines) == (State.CONFLICTING, None, None)
    assert "more than once" in found.reason


def test_edits_around_the_inserted_lines_survive_a_revert(letters):
    patched = inspect(letters, LETTERS).with_lines
    found = inspect(letters, patched.replace(b"c\n", b"C\n").replace(b"q\n", b"q\nmine\n"))
    assert (found.state, found.reason) == (State.PATCHED, "edited around DDO's lines")
    assert found.without_lines == LETTERS.replace(b"c\n", b"C\n").replace(b"q\n", b"q\nmine\n")


@pytest.mark.parametrize("edit", [lambda data: data, lambda data: b"above\n" + data], ids=["same version", "edited"])
def test_lines_that_another_tool_put_in_the_wrong_place_are_no_patch(letters, edit):
    everything_at_the_end = edit(LETTERS) + b"ONE\nTWO\nTWO AGAIN\nTHREE\n"
    found = inspect(letters, everything_at_the_end)
    assert (found.state, found.with_lines) == (State.CONFLICTING, None)
    assert "wrong place" in found.reason
    assert found.without_lines == edit(LETTERS)


def test_the_same_line_inserted_twice_is_told_apart_by_its_order(make_patch):
    patch = make_patch(LETTERS, {3: [b"SAME"], 13: [b"SAME"]})
    patched = inspect(patch, LETTERS).with_lines
    found = inspect(patch, b"above\n" + patched)
    assert (found.state, found.without_lines) == (State.PATCHED, b"above\n" + LETTERS)


SCRIPT = b"import os\n\n\ndef main():\n    a = 1\n    b = 2\n    return a + b\n"


def test_python_lines_inside_a_string_are_refused(make_patch):
    patch = make_patch(SCRIPT, {5: [b"    print()"]}, "script.py")
    assert inspect(patch, b"# more\n" + SCRIPT).state is State.SHIFTED
    found = inspect(patch, SCRIPT.replace(b"def main", b'"""\ndef main') + b'"""\n')
    assert found.state is State.CONFLICTING
    assert "would not be a statement" in found.reason


def test_a_python_file_that_does_not_parse_is_refused(make_patch):
    patch = make_patch(SCRIPT, {5: [b"    print()"]}, "script.py")
    found = inspect(patch, SCRIPT.replace(b"import os", b"import"))
    assert found.state is State.CONFLICTING
    assert "not valid Python" in found.reason


def test_a_decorator_is_a_place_for_a_line(make_patch):
    assert inspect(make_patch(SCRIPT, {3: [b"@staticmethod"]}, "script.py"), SCRIPT).state is State.PRISTINE
