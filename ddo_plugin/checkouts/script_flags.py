"""Which options a training script accepts, read from its source. Nothing of it is run."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from ddo_plugin.base.errors import UserError

PLAIN: Mapping[str, click.ParamType] = {"int": click.INT, "float": click.FLOAT, "bool": click.BOOL, "str": click.STRING}
CONSTRUCTED: Mapping[str, type[click.ParamType]] = {
    "IntRange": click.IntRange,
    "FloatRange": click.FloatRange,
    "Choice": click.Choice,
}


@dataclass(frozen=True)
class Option:
    """An option by its long name. `type` is None if a function of the script parses the value."""

    name: str
    type: click.ParamType | None
    flag: bool = False
    required: bool = False


def read(root: Path, script: str) -> list[Option]:
    """Return the options of click decorators in the script, or the fields of a Tap class that it imports."""
    tree = _parsed(root / script)
    options = list(_of_click(tree))
    for file in _imported(root, tree) if not options else ():
        options += _of_tap(_parsed(file))
    if not options:
        raise UserError(f"{root / script}: its source has no options of click or Tap")
    return options


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{file}: not valid Python ({error})") from None


def _of_click(tree: ast.Module) -> Iterator[Option]:
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    for call in (decorator for function in functions for decorator in function.decorator_list):
        if not isinstance(call, ast.Call) or not ast.unparse(call.func).endswith("click.option"):
            continue
        names = [_literal(argument) for argument in call.args]
        long = next((name[2:] for name in names if isinstance(name, str) and name.startswith("--")), None)
        keywords = {keyword.arg: keyword.value for keyword in call.keywords}
        if long is not None:
            switches = {name: name in keywords and _literal(keywords[name]) is True for name in ("is_flag", "required")}
            yield Option(long, _click_type(keywords.get("type")), switches["is_flag"], switches["required"])


def _click_type(node: ast.expr | None) -> click.ParamType | None:
    """Return the click type that an expression names, None if that cannot be read from it."""
    if node is None:
        return click.STRING
    if isinstance(node, ast.Name):
        return PLAIN.get(node.id)
    if not isinstance(node, ast.Call):
        return None
    make = CONSTRUCTED.get(ast.unparse(node.func).removeprefix("click."))
    arguments = [_literal(argument) for argument in node.args]
    named = {keyword.arg or "": _literal(keyword.value) for keyword in node.keywords}
    if make is None or None in (*arguments, *named.values()):
        return None
    return make(*arguments, **named)


def _of_tap(tree: ast.Module) -> Iterator[Option]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Tap") for base in node.bases):
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    yield Option(
                        field.target.id, PLAIN.get(ast.unparse(field.annotation)), required=field.value is None
                    )


def _imported(root: Path, tree: ast.Module) -> Iterator[Path]:
    """Yield the files of the checkout's own modules that a script imports anywhere."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            file = root / (name.replace(".", "/") + ".py")
            if file.is_file():
                yield file


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
