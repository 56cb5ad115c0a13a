"""What a checkout imports: at once from its training script, or only elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddo_plugin.base.errors import UserError
from ddo_plugin.checkouts.required_packages import distribution, missing, read_imports

FILES = {
    "train.py": """
        import os, pluggy.hooks
        import engine.loop
        from helper import thing
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            import only_for_types
        if __name__ == "__main__":
            import only_as_script
        class Settings:
            import in_a_class
        def lazily():
            import in_a_function
        with open("f"):
            import in_a_block
    """,
    "helper.py": """
        try:
            import caught
        except ImportError:
            import fallback
        try:
            import told_and_raised
        except ImportError as error:
            print("install it")
            raise error
    """,
    "engine/__init__.py": "",
    "engine/loop.py": "from . import cousin\nfrom engine.cousin import x",
    "engine/deep/loaded_by_name.py": "import by_name.part",
    "generate.py": "import for_generating, pluggy",
    "broken.py": "import (",
    "docs/conf.py": "import for_docs",
    ".hidden/x.py": "import hidden",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    from textwrap import dedent

    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(dedent(text))
    return tmp_path


def test_the_training_script_needs_what_is_imported_with_it(root):
    assert read_imports(root, "train.py").to_train == {
        "by_name": "engine/deep/loaded_by_name.py",
        "in_a_block": "train.py",
        "in_a_class": "train.py",
        "pluggy": "train.py",
        "told_and_raised": "helper.py",
    }


def test_it_starts_without_what_is_guarded_or_of_other_scripts(root):
    elsewhere = read_imports(root, "train.py").elsewhere
    assert set(elsewhere) == {
        *("only_for_types", "only_as_script", "in_a_function", "caught", "fallback"),
        *("for_generating", "for_docs"),
    }
    assert elsewhere["for_generating"] == "generate.py"


def test_a_training_script_that_is_no_python_is_named(root):
    for name in ("broken.py", "none.py"):
        with pytest.raises(UserError, match=f"{name}: not valid Python"):
            read_imports(root, name)


def test_only_what_is_not_installed_is_missing():
    assert missing({"torch": "a.py", "surely_not_installed": "b.py"}) == {"surely_not_installed": "b.py"}
    assert (distribution("PIL"), distribution("psutil")) == ("pillow", "psutil")
