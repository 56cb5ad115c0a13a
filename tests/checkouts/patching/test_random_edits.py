"""A thousand randomly edited files: lines go between the neighbours they were made for, or nowhere.

What is right is told apart from the engine: every line carries an identity in a parallel list. Fresh lines get a fresh
one; a copy or a moved line keeps it, for nobody could tell it from the original.
"""

import random
import subprocess
from dataclasses import dataclass

import pytest

from ddo_plugin.checkouts.patching.format import render
from ddo_plugin.checkouts.patching.make import compare
from ddo_plugin.checkouts.patching.placing import State, inspect

COMMON = [b"", b"", b"", b")", b"    return x", b"else:", b"#" + b"-" * 20]
PLACES = (9, 40, 41, 77)
EDITED_FILES = 1000


@dataclass
class Line:
    text: bytes
    identity: int


def new_file(rng: random.Random) -> list[Line]:
    """Like code: about half of the lines say what others say too."""
    texts = [rng.choice(COMMON) if rng.random() < 0.5 else b"line %d" % n for n in range(100)]
    for place in PLACES:  # as the maintainer's command demands: a line of its own on each side
        texts[place - rng.choice([1, 2])] = b"above %d" % place
        texts[place + rng.choice([0, 1])] = b"below %d" % place
    return [Line(text, n) for n, text in enumerate(texts)]


def edit(rng: random.Random, lines: list[Line]) -> list[Line]:
    """A few edits; half of them close to an insertion, where they hurt."""
    lines = [*lines]
    for count in range(rng.randint(1, 6)):
        near = rng.choice(PLACES) + rng.randint(-3, 3) if rng.random() < 0.5 else rng.randrange(len(lines))
        at = min(near, len(lines) - 1)
        size = rng.randint(1, 8)
        block = lines[at : at + size]
        elsewhere = rng.randrange(len(lines))
        match rng.choice(["fresh", "common", "delete", "replace", "copy", "move", "swap"]):
            case "fresh":
                lines.insert(at, Line(b"fresh %d %d" % (count, at), -rng.getrandbits(40)))
            case "common":
                lines.insert(at, Line(rng.choice(COMMON), -rng.getrandbits(40)))
            case "delete":
                del lines[at : at + size]
            case "replace":
                lines[at] = Line(rng.choice([*COMMON, b"replaced"]), -rng.getrandbits(40))
            case "copy":
                lines[elsewhere:elsewhere] = block
            case "move":
                del lines[at : at + size]
                lines[elsewhere:elsewhere] = block
            case "swap":
                lines[at], lines[elsewhere] = lines[elsewhere], lines[at]
    return lines


def content(lines: list[Line]) -> bytes:
    return b"".join(line.text + b"\n" for line in lines)


def insertion(place: int) -> bytes:
    return b"INSERTED %d" % place


def wrong_places(original: list[Line], edited: list[Line], result: bytes) -> int:
    """How many insertions do not stand between the lines of the same identity; nothing else may have changed."""
    out = result.removesuffix(b"\n").split(b"\n")
    ours = {insertion(place) for place in PLACES}
    assert [line for line in out if line not in ours] == [line.text for line in edited]
    wrong = 0
    for number, place in enumerate(PLACES):
        at = out.index(insertion(place)) - number
        wanted = [own(line) for line in original[place - 2 : place + 2]]
        wrong += [own(line) for line in edited[max(at - 2, 0) : at + 2]] != wanted
    return wrong


def own(line: Line) -> int:
    """Lines that say what many say have no identity: one blank line is as good as another."""
    return line.identity if line.text not in COMMON else 0


def cases():
    rng = random.Random(20250713)
    for _ in range(EDITED_FILES):
        original = new_file(rng)
        old = content(original)
        new = b"".join((insertion(n) + b"\n" if n in PLACES else b"") + x.text + b"\n" for n, x in enumerate(original))
        yield original, edit(rng, original), compare("file.txt", old, new)


def test_not_one_of_a_thousand_edited_files_gets_a_line_in_a_wrong_place():
    taken = shifted = 0
    for original, edited, patch in cases():
        found = inspect(patch, content(edited))
        if found.state is State.CONFLICTING:
            assert found.reason
            continue
        taken += 1
        shifted += found.state is State.SHIFTED
        assert wrong_places(original, edited, found.with_lines) == 0
        assert inspect(patch, found.with_lines).without_lines == content(edited)
    assert shifted > EDITED_FILES / 10, "the engine refuses nearly everything: this test would show nothing"
    assert taken < EDITED_FILES


def test_trusting_the_line_numbers_does_put_lines_in_wrong_places():
    wrong = 0
    for original, edited, _ in cases():
        if len(edited) >= max(PLACES):
            texts = [line.text for line in edited]
            for place in reversed(PLACES):
                texts.insert(place, insertion(place))
            wrong += wrong_places(original, edited, b"\n".join(texts) + b"\n") > 0
    assert wrong > EDITED_FILES / 2


@pytest.mark.parametrize(
    ("options", "expected"), [(["--unidiff-zero"], "elsewhere"), ([], "at the end")], ids=["unidiff-zero", "plain"]
)
def test_git_apply_does_put_lines_in_wrong_places_and_calls_it_success(tmp_path, options, expected):
    wrong = at_end = 0
    for number, (original, edited, patch) in zip(range(25), cases(), strict=False):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "file.txt").write_bytes(content(edited))
        (folder / "a.patch").write_bytes(render((patch,))[0])
        done = subprocess.run(["git", "apply", *options, "a.patch"], cwd=folder, capture_output=True, check=False)
        if done.returncode == 0:
            result = (folder / "file.txt").read_bytes()
            wrong += wrong_places(original, edited, result) > 0
            at_end += result.endswith(b"".join(insertion(place) + b"\n" for place in PLACES))
    assert wrong > 5
    assert (at_end > 5) == (expected == "at the end")
