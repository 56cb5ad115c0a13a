"""The documentation of the hooks is held to the code."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pluggy
import pytest

from ddo_plugin.hooks import hookspecs

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs/hooks.md").read_text()
HOOKS = sorted(name for name in vars(hookspecs) if name.startswith("ddo_"))


def signature(name: str) -> str:
    return name + str(inspect.signature(getattr(hookspecs, name))).replace("'", "")


def test_there_are_hooks() -> None:
    assert len(HOOKS) >= 12


@pytest.mark.parametrize("name", HOOKS)
def test_the_exact_signature_stands_in_the_docs(name: str) -> None:
    assert f"```python\n{signature(name)}\n```" in DOCS


def test_the_docs_name_no_hook_that_is_not() -> None:
    assert set(re.findall(r"^(ddo_\w+)\(", DOCS, re.M)) == set(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_the_docs_say_where_one_answer_is_wanted(name: str) -> None:
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    section = DOCS.split(signature(name))[1].split("```python")[0].split("\n## ")[0]
    chapter = DOCS.split(signature(name))[0].rsplit("\n## ", 1)[1].split("```python")[0]
    first = "first answer wins" in (section + chapter).lower()
    assert first == getattr(manager.hook, name).spec.opts["firstresult"]


def test_the_example_in_the_docs_is_the_example_that_is_tested() -> None:
    name, source = re.search(r"<!-- (\S+) -->\n```python\n(.*?)\n```", DOCS, re.S).groups()
    assert source.rstrip() == (ROOT / name).read_text().rstrip()
