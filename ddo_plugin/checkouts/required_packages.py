"""Which packages a checkout imports, read from its source. Nothing of it is run."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ddo_plugin.base.errors import UserError

DISTRIBUTIONS = {  # import name -> name for pip, where they differ
    "PIL": "pillow",
    "cv2": "opencv-python",
    "distutils": "setuptools",
    "tap": "typed-argument-parser",
}


@dataclass(frozen=True)
class Imports:
    """Packages that belong neither to the checkout nor to Python, each with the first file that imports it."""

    to_train: Mapping[str, str]  # imported when the training script is imported
    elsewhere: Mapping[str, str]  # imported by other scripts, inside functions, or where a failure is caught


def read_imports(root: Path, script: str) -> Imports:
    """Return the packages that a checkout imports, and which of them its training script cannot start without."""
    own = _own_modules(root)
    reached = _reached_from(root / script, own)
    to_train = _first_files(root, ((file, name) for file in reached for name, at_once in _names(file) if at_once))
    others = [file for files in own.values() for file in files if file not in reached and _parses(file)]
    elsewhere = _first_files(root, ((file, name) for file in [*reached, *others] for name, _ in _names(file)))
    foreign = [name for name in elsewhere if name not in own and name not in sys.stdlib_module_names]
    return Imports(
        {name: to_train[name] for name in foreign if name in to_train},
        {name: elsewhere[name] for name in foreign if name not in to_train},
    )


def missing(packages: Mapping[str, str]) -> dict[str, str]:
    """Return the packages that are not installed."""
    return {name: file for name, file in packages.items() if not _is_there(name)}


def refuse_missing_packages(packages: Mapping[str, str]) -> None:
    """Refuse to start if packages are not installed. An import that fails later would explain less."""
    if lacking := missing(packages):
        names = " ".join(sorted(map(distribution, lacking)))
        imports = ", ".join(f"{file} imports {name}" for name, file in lacking.items())
        raise UserError(f"{imports}, which is not installed: pip install {names}")


def distribution(package: str) -> str:
    """Return the name of a package for pip."""
    return DISTRIBUTIONS.get(package, package)


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ValueError:  # sys.modules holds a module without a spec
        return True


def _own_modules(root: Path) -> dict[str, list[Path]]:
    """Return the checkout's modules and packages by name, each with all of its files."""
    modules = {path.stem: [path] for path in sorted(root.glob("*.py"))}
    for folder in sorted(root.iterdir()):
        if folder.name.isidentifier() and any(folder.glob("*.py")):
            modules[folder.name] = sorted(folder.rglob("*.py"))
    return modules


def _reached_from(script: Path, own: Mapping[str, list[Path]]) -> list[Path]:
    """Return the script and the files that it imports when it starts. A package may load any of its files."""
    reached = [script]
    for file in reached:  # grows during the loop
        for name, at_once in _names(file):
            if at_once:
                reached += [path for path in own.get(name, []) if path not in reached]
    return reached


def _first_files(root: Path, pairs: Iterable[tuple[Path, str]]) -> dict[str, str]:
    first: dict[str, str] = {}
    for file, name in pairs:
        first.setdefault(name, file.relative_to(root).as_posix())
    return dict(sorted(first.items()))


def _names(file: Path) -> Iterator[tuple[str, bool]]:
    """Yield the top-level names that a file imports, and whether importing the file needs them at once."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{file}: not valid Python ({error})") from None
    yield from _in_body(tree.body, at_once=True)


def _parses(file: Path) -> bool:
    try:
        list(_names(file))
    except UserError:
        return False
    return True


def _in_body(nodes: Iterable[ast.AST], at_once: bool) -> Iterator[tuple[str, bool]]:
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module and not node.level:
                yield node.module.partition(".")[0], at_once
        else:
            yield from _in_body(ast.iter_child_nodes(node), at_once and not _may_be_skipped(node))


def _may_be_skipped(node: ast.AST) -> bool:
    """Return whether the content of this statement may fail or never run while the file can still be imported."""
    if isinstance(node, ast.Try):
        return any(not _raises(handler) for handler in node.handlers)
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test) or "__main__" in ast.unparse(node.test)
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))


def _raises(handler: ast.ExceptHandler) -> bool:
    return any(isinstance(node, ast.Raise) for node in ast.walk(handler))
