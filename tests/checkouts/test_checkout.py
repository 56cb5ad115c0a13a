import subprocess
import sys

import pytest

from ddo_plugin.base.errors import UserError
from ddo_plugin.checkouts.checkout import recognise
from ddo_plugin.hooks.types import Upstream

ONE = Upstream("one", "the one", "train.py", {"loss.py": r"^class Loss\b", "train.py": r"^def main\("})
FORK = Upstream("fork", "a fork of it", "train.py", {**ONE.landmarks, "extra.py": r"^EXTRA ="})
LIKE = Upstream("like", "the same again", "train.py", {**ONE.landmarks})


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "loss.py").write_text("import torch\n\nclass Loss:\n    pass\n")
    (tmp_path / "train.py").write_text("def main(a):\n    pass\n")
    return tmp_path


def test_a_folder_is_known_by_its_landmarks_even_if_it_was_edited(folder):
    (folder / "train.py").write_text("# mine\n" + (folder / "train.py").read_text().replace("\n", "\r\n"))
    assert recognise(folder, [ONE, FORK]) is ONE


def test_the_upstream_with_more_landmarks_wins_and_then_the_later_plugin(folder):
    assert recognise(folder, [ONE, LIKE]) is LIKE
    (folder / "extra.py").write_text("EXTRA = 1\n")
    assert recognise(folder, [FORK, ONE, LIKE]) is FORK


def test_an_unknown_folder_is_told_what_is_missing(folder):
    (folder / "loss.py").write_text("class LossOfAnother:\n    pass\n")
    with pytest.raises(UserError, match=r"closest to the one, but loss\.py is missing or different"):
        recognise(folder, [ONE])


def test_an_empty_folder_is_told_what_is_known(tmp_path):
    with pytest.raises(UserError, match="the one, a fork of it"):
        recognise(tmp_path, [ONE, FORK])


@pytest.mark.parametrize("arguments", [["--help"], ["apply", "--help"], ["run", "--help"], ["status", "."]])
def test_the_commands_about_a_checkout_never_import_torch(arguments, tmp_path):
    program = (
        "import sys\n"
        "from ddo_plugin.cli import main\n"
        f"try: main({arguments!r})\n"
        "finally: print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.endswith("False\n")
