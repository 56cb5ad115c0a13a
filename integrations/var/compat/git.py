"""VAR asks git for the branch and commit of the current folder while its options are imported."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any

from ddo_integrations.var.compat.family import FAMILY
from ddo_plugin import Fix, owns


def _needed() -> bool:
    command = ["git", "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode != 0
    except OSError:  # git is not installed
        return True


def _apply() -> None:
    original = subprocess.check_output

    @functools.wraps(original)
    def check_output(command: Any, *args: Any, **kwargs: Any) -> Any:
        if not (_is_git(command) and owns(sys._getframe(1).f_globals, FAMILY)):
            return original(command, *args, **kwargs)
        try:
            return original(command, *args, **{"stderr": subprocess.DEVNULL, **kwargs})
        except (subprocess.CalledProcessError, OSError):
            return b""  # which upstream records as unknown

    subprocess.check_output = check_output  # type: ignore[assignment]  # mypy wants the overloads repeated


def _is_git(command: object) -> bool:
    return isinstance(command, str) and command.startswith("git ")


FIX = Fix(
    "git",
    breaks="VAR cannot be imported: it asks git for a commit, and the current folder is in no repository with commits",
    does="VAR records branch and commit as unknown",
    needed=_needed,
    apply=_apply,
    for_imports=True,
    to_train=True,
)
