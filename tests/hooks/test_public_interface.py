"""What a plugin may import is a list, and our own integrations keep to it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ddo_plugin

ROOT = Path(__file__).parents[2]
LISTED = set(ddo_plugin.__all__)
DOCS = (ROOT / "docs/hooks.md").read_text()
# The demo's command is an application of self-play, not an integration.
APPLICATION = {f"integrations/demo/{name}.py" for name in ("command", "play", "report", "settings")}
SOURCES = sorted([*ROOT.glob("integrations/**/*.py"), *ROOT.glob("examples/**/*.py")])


def foreign_imports(source: str) -> Iterator[str]:
    """Yield what a module imports of ddo_plugin that is not in the list."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "ddo_plugin":
            yield from (alias.name for alias in node.names if alias.name not in LISTED)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ddo_plugin."):
            yield str(node.module)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("ddo_plugin."))


def neighbours(path: Path) -> set[str]:
    """Return the integrations that a file imports from."""
    return set(re.findall(r"ddo_integrations\.(\w+)", path.read_text()))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [path for path in SOURCES if relative(path) not in APPLICATION], ids=relative)
def test_an_integration_imports_listed_names_only(path: Path) -> None:
    assert list(foreign_imports(path.read_text())) == []


@pytest.mark.parametrize("path", sorted(ROOT.glob("integrations/*/*.py")), ids=relative)
def test_an_integration_knows_no_other(path: Path) -> None:
    own = path.parent.name
    assert neighbours(path) <= ({own, "nvlabs"} if own in ("edm", "edm2") else {own})


@pytest.mark.parametrize(
    "source",
    ["from ddo_plugin import nothing", "from ddo_plugin.hooks import plugins", "import ddo_plugin.finetuning.session"],
)
def test_any_other_import_is_found(source: str) -> None:
    assert list(foreign_imports(f"def f():\n    {source}"))


@pytest.mark.parametrize("name", sorted(LISTED))
def test_every_listed_name_can_be_loaded(name: str) -> None:
    assert getattr(ddo_plugin, name) is not None


@pytest.mark.parametrize("name", sorted(LISTED))
def test_every_listed_name_is_used_by_an_integration_or_an_example(name: str) -> None:
    assert name == "Run" or any(re.search(rf"\b{name}\b", path.read_text()) for path in SOURCES)


def test_the_docs_name_every_listed_name_and_no_other() -> None:
    tables = DOCS.split("## What a plugin may import")[1]
    assert set(re.findall(r"^\| `(\w+)` \|", tables, re.M)) == LISTED
