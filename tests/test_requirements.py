"""Missing modules of small checkouts."""

import pytest

from ddo_plugin.errors import UserError
from ddo_plugin.requirements import Missing, missing

FILES = {
    "train.py": "import os, json, torch\nfrom training import loop\nimport absent_always\nimport helper",
    "helper.py": "def f():\n    import absent_sometimes.part",
    "training/__init__.py": "",
    "training/loop.py": "from . import data\nfrom .data import Dataset\nimport numpy as np\nimport PIL_absent.Image",
    "training/by_name.py": "try:\n    import absent_perhaps\nexcept ImportError:\n    absent_perhaps = None",
    "fid.py": "import absent_elsewhere\nimport absent_always\nimport torch.linalg",
}


def test_what_training_needs_is_told_from_what_only_other_scripts_or_some_runs_need(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert missing(tmp_path, "train.py") == [
        Missing("absent_always", "train.py", True),
        Missing("PIL_absent", "training/loop.py", True),
        Missing("absent_perhaps", "training/by_name.py", False),
        Missing("absent_sometimes", "helper.py", False),
        Missing("absent_elsewhere", "fid.py", False),
    ]


def test_an_import_that_must_succeed_somewhere_is_required_wherever_it_was_seen_first(tmp_path):
    (tmp_path / "train.py").write_text("import helper\ndef f():\n    import absent")
    (tmp_path / "helper.py").write_text("import absent")
    assert missing(tmp_path, "train.py") == [Missing("absent", "helper.py", True)]


def test_pip_may_call_it_something_else():
    assert Missing("PIL", "a.py", True).distribution == "pillow"
    assert Missing("psutil", "a.py", True).distribution == "psutil"


def test_a_file_that_is_no_python_is_named(tmp_path):
    (tmp_path / "train.py").write_text("def broken(:")
    with pytest.raises(UserError, match=r"train\.py cannot be read as python"):
        missing(tmp_path, "train.py")
