import json
from pathlib import Path

import pytest

from ddo_plugin.base.errors import UserError
from ddo_plugin.checkouts.patching.format import load, parse, render

OLD, NEW = "1" * 40, "2" * 40
GOOD = f"""diff --git a/pkg/a.txt b/pkg/a.txt
index {OLD}..{NEW} 100644
--- a/pkg/a.txt
+++ b/pkg/a.txt
@@ -0,0 +1,2 @@
+one
+
@@ -7,0 +10 @@
+\tthree
"""
SIDES = {"before": ["b2", "b1"], "after": ["a1", "a2"]}
DIGESTS = {"pkg/a.txt": [SIDES, SIDES]}


def test_an_insert_only_diff_is_read_whole():
    (patch,) = parse(GOOD.encode(), DIGESTS)
    assert (patch.path, patch.old_blob, patch.new_blob) == ("pkg/a.txt", OLD, NEW)
    assert [(hunk.after, hunk.lines) for hunk in patch.hunks] == [(0, (b"one", b"")), (7, (b"\tthree",))]
    assert patch.hunks[0].before_digests == ("b2", "b1")


def test_what_is_written_is_read_again():
    patches = parse(GOOD.encode(), DIGESTS)
    assert parse(*render(patches)) == patches


def test_inserted_lines_that_look_like_a_diff_are_lines():
    diff = GOOD.replace("+one\n", "+++ b/other\n")
    assert parse(diff.encode(), DIGESTS)[0].hunks[0].lines[0] == b"++ b/other"


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("+one\n", "-one\n"),
        ("+one\n", " one\n"),
        ("@@ -7,0 +10 @@", "@@ -7,0 +10 @@ def main():"),
        ("@@ -7,0 +10 @@", "@@ -7 +10 @@"),
        ("@@ -7,0 +10 @@", "@@ -7,0 +11 @@"),
        ("@@ -7,0 +10 @@", "@@ -7,1 +10,2 @@"),
        ("@@ -0,0 +1,2 @@", "@@ -9,0 +10,2 @@"),
        ("@@ -0,0 +1,2 @@", "@@ -0,0 +1,3 @@"),
        (OLD, OLD[:10]),
        (f"index {OLD}..{NEW} 100644\n", ""),
        (f"index {OLD}..{NEW} 100644", "new file mode 100644"),
        ("+++ b/pkg/a.txt", "+++ b/pkg/b.txt"),
        ("--- a/pkg/a.txt", "--- /dev/null"),
        ("pkg/a.txt", "../a.txt"),
        ("pkg/a.txt", "/etc/a.txt"),
        ("+\tthree\n", ""),
        ("+\tthree\n", "+\tthree\n\\ No newline at end of file\n"),
        ("+\tthree\n", "+\tthree\n+four\n"),
        (GOOD, GOOD + GOOD),
        (GOOD, ""),
    ],
)
def test_anything_but_bare_insertions_is_refused(right, wrong):
    assert right in GOOD
    diff = GOOD.replace(right, wrong)
    with pytest.raises(ValueError, match=r".+"):
        parse(diff.encode(), {**DIGESTS, "../a.txt": [SIDES] * 2, "/etc/a.txt": [SIDES] * 2})


@pytest.mark.parametrize("digests", [{}, {"pkg/a.txt": [SIDES]}, {"pkg/a.txt": [SIDES, {**SIDES, "after": []}]}])
def test_a_patch_without_digests_of_all_neighbours_is_refused(digests):
    with pytest.raises(ValueError, match="digests"):
        parse(GOOD.encode(), digests)


def test_a_broken_patch_is_told_in_one_line(tmp_path: Path):
    (tmp_path / "x.patch").write_text("nonsense\n")
    (tmp_path / "x.json").write_text(json.dumps(DIGESTS))
    with pytest.raises(UserError, match=r"x\.patch is damaged: line 1 .*reinstall"):
        load(tmp_path / "x.patch", tmp_path / "x.json")
