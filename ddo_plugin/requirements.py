"""What a checkout imports and this environment lacks, read off its source without running any of it."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ddo_plugin.errors import UserError

DISTRIBUTIONS = {"PIL": "pillow", "cv2": "opencv-python", "tap": "typed-argument-parser"}  # where the names differ


@dataclass(frozen=True)
class Missing:
    """A module that is imported somewhere and not installed."""

    module: str
    importer: str  # file relative to the checkout
    required: bool  # training cannot start without it

    @property
    def distribution(self) -> str:
        """What `pip install` calls it."""
        return DISTRIBUTIONS.get(self.module, self.module)


def missing(root: Path, script: str) -> list[Missing]:
    """Modules that the checkout imports and that are not installed: what training needs first, then the rest."""
    training = _reachable(root, script)
    found: dict[str, Missing] = {}
    for file in [*training, *sorted(set(root.glob("*.py")) - set(training))]:
        for module, always in _imports(file):
            required = always and file in training
            if _absent(root, module) and (module not in found or (required and not found[module].required)):
                found[module] = Missing(module, file.relative_to(root).as_posix(), required)
    return sorted(found.values(), key=lambda one: not one.required)


def _reachable(root: Path, script: str) -> list[Path]:
    """The script, the modules of the checkout that it imports, and all of their packages: some are imported by name."""
    reached = [root / script]
    for file in reached:  # grows while it is walked
        for module, _ in _imports(file):
            local = [root / f"{module}.py", *sorted((root / module).rglob("*.py"))]
            reached += [path for path in local if path.is_file() and path not in reached]
    return reached


def _imports(file: Path) -> Iterator[tuple[str, bool]]:
    """Top-level names of the modules that a file imports, and whether it cannot be imported without them."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{file} cannot be read as python, so no run can start from it: {error}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name.partition(".")[0], node in tree.body
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], node in tree.body


def _absent(root: Path, module: str) -> bool:
    if module in sys.builtin_module_names or (root / f"{module}.py").is_file() or (root / module).is_dir():
        return False
    return importlib.util.find_spec(module) is None
