import json
import subprocess

import pytest
from click.testing import CliRunner

from ddo_plugin.base.errors import UserError
from ddo_plugin.checkouts.patching.format import load
from ddo_plugin.checkouts.patching.make import compare, main
from ddo_plugin.checkouts.patching.placing import inspect

OLD = "import os\n\nfirst = 1\nsecond = 2\nthird = 3\n"
NEW = "import os\nimport ours\n\nfirst = 1\nsecond = 2\nours.call()\nours.again()\nthird = 3\n"


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    folder.mkdir()
    (folder / "train.py").write_text(OLD)
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True)
    return folder


def make(checkout, target):
    return CliRunner().invoke(main, [str(checkout), str(target)])


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_the_patch_made_from_a_working_copy_makes_that_working_copy(checkout, tmp_path, line_end):
    (checkout / "train.py").write_bytes(NEW.replace("\n", line_end).encode())
    target = tmp_path / "out.patch"
    assert make(checkout, target).exit_code == 0
    (patch,) = load(target, tmp_path / "out.json")
    assert inspect(patch, OLD.encode()).with_lines == NEW.encode()
    git = subprocess.run(
        ["git", "-C", str(checkout), "diff", "-U0", "--ignore-space-at-eol"], capture_output=True, text=True
    )
    numbers = [line for line in git.stdout.split("\n") if line.startswith("@@")]
    assert [line.split(" @@")[0] for line in numbers] == [
        line.split(" @@")[0] for line in target.read_text().split("\n") if line.startswith("@@")
    ]


def test_neither_file_quotes_upstream(checkout, tmp_path):
    (checkout / "train.py").write_text(NEW)
    make(checkout, tmp_path / "out.patch")
    written = (tmp_path / "out.patch").read_text() + json.dumps(json.loads((tmp_path / "out.json").read_text()))
    assert not [line for line in OLD.split("\n") if line and line in written]


def test_a_patch_cannot_change_or_delete_a_line():
    with pytest.raises(UserError, match=r"train\.py: line 4 was changed or deleted"):
        compare("train.py", OLD.encode(), NEW.replace("second", "SECOND").encode())


def test_a_line_that_upstream_has_itself_is_refused():
    with pytest.raises(UserError, match="upstream itself has the line 'first = 1'"):
        compare("train.py", OLD.encode(), OLD.replace("third", "first = 1\nthird").encode())


def test_a_place_like_others_is_refused():
    old = "a\n)\n)\nb\n)\n)\n"
    with pytest.raises(UserError, match="occur elsewhere too"):
        compare("x.txt", old.encode(), b"a\n)\n)\nNEW\nb\n)\n)\n")


def test_a_working_copy_without_changes_is_refused(checkout, tmp_path):
    result = make(checkout, tmp_path / "out.patch")
    assert (result.exit_code, list(tmp_path.iterdir())) == (2, [checkout])
    assert "insert the lines first" in result.output
