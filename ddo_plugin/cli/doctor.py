"""`ddo doctor`"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.option_types import Place

if TYPE_CHECKING:
    from ddo_plugin.checkouts.checkout import Checkout
    from ddo_plugin.hooks.types import Fix

NOT_READY_STATUS = 1


@click.command("doctor")
@click.argument("repo", type=Place(), default=".")
def command(repo: Path) -> None:
    """Check whether a training run could start here.

    REPO is the folder of an upstream's checkout. [default: the current folder]

    Prints the versions of Python and the packages, the problems that upstream's code has with them and how `ddo run`
    fixes these, the state of the checkout, and the packages that the checkout needs. Nothing is run or changed.

    The exit status is 0 if a training run could start. Otherwise it is 1, and the reasons are printed last.
    """
    from ddo_plugin.base import environment

    reasons: list[str] = []
    _print("Environment", environment.describe())
    checkout, problem = _open(repo)
    if error := environment.torch_error():
        reasons.append(f"torch cannot be imported ({error}), and every upstream needs it; see pytorch.org")
    elif fixes := _fixes(checkout):
        _print("What breaks here, and how ddo-plugin fixes it", _described(fixes, reasons))
    if checkout is None:
        reasons.append(problem)
    else:
        _print("Checkout", _checkout(checkout, reasons))
        _print("Packages", _packages(checkout, reasons))
    if not reasons:
        click.secho("A training run could start.", fg="green")
        return
    click.secho("No training run could start:", fg="red")
    for reason in reasons:
        click.echo(f"  {reason}")
    click.get_current_context().exit(NOT_READY_STATUS)


def _open(repo: Path) -> tuple[Checkout | None, str]:
    """Return the checkout, or None and the reason why the folder holds none."""
    from ddo_plugin.checkouts.checkout import open_checkout

    try:
        return open_checkout(repo), ""
    except UserError as error:
        return None, error.message


def _print(title: str, rows: Mapping[str, str]) -> None:
    click.secho(title, bold=True)
    width = max(map(len, rows), default=0)
    for name, text in rows.items():
        click.echo(f"  {name:{width}}  " + text.replace("\n", "\n" + " " * (width + 4)))
    click.echo()


def _fixes(checkout: Checkout | None) -> list[Fix]:
    """Return the fixes for the checkout's upstream, or all fixes if there is no checkout."""
    from ddo_plugin.checkouts import compat

    return compat.fixes() if checkout is None else compat.fixes_of(checkout.upstream)


def _described(fixes: list[Fix], reasons: list[str]) -> dict[str, str]:
    """Describe each fix. What stays broken is added to the reasons."""
    from ddo_plugin.checkouts import compat
    from ddo_plugin.checkouts.compat import cpu

    try:
        off = compat.switched_off()
        on_cpu = cpu.chosen()
    except UserError as error:
        reasons.append(error.message)
        return {"unknown": error.message}
    rows = {}
    for fix in fixes:
        if not fix.needed():
            rows[fix.name] = "not needed here"
            continue
        remedy = f"not applied, because {compat.OFF_VARIABLE} names it" if fix.name in off else fix.does
        rows[fix.name] = f"{fix.breaks}\n-> {remedy}"
        if fix.to_train and fix.name in off:
            reasons.append(f"{fix.breaks}; remove '{fix.name}' from {compat.OFF_VARIABLE}")
    if not on_cpu and not _has_gpu():
        reasons.append(f"{cpu.VARIABLE}=cuda, but torch finds no GPU; unset it to run on the CPU")
    return rows


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _checkout(checkout: Checkout, reasons: list[str]) -> dict[str, str]:
    from ddo_plugin.checkouts.checkout import git_commit
    from ddo_plugin.cli._changes import INTERRUPTED

    rows = {
        "upstream": checkout.upstream.title,
        "folder": str(checkout.root),
        "commit": git_commit(checkout.root),
        "script": checkout.upstream.script,
    }
    try:
        files, interrupted = checkout.files(), checkout.is_interrupted()
    except UserError as error:
        reasons.append(error.message)
        return rows | {"patch": error.message}
    for file in files:
        state = file.inspection.state.value
        if state == "conflicting":
            reasons.append(f"{file.path} cannot be patched: {file.inspection.reason}")
        unpatched = state in ("pristine", "patchable")
        rows[file.path] = state + (" (`ddo apply` inserts DDO's lines; `ddo run` works without)" if unpatched else "")
    return rows | ({"patch": INTERRUPTED} if interrupted else {})


def _packages(checkout: Checkout, reasons: list[str]) -> dict[str, str]:
    from ddo_plugin.checkouts import compat, required_packages

    compat.apply_for_imports()
    try:
        imports = required_packages.read_imports(checkout.root, checkout.upstream.script)
    except UserError as error:
        reasons.append(error.message)
        return {"unknown": error.message}
    to_train = {**imports.to_train, **checkout.upstream.needs}
    missing, optional = required_packages.missing(to_train), required_packages.missing(imports.elsewhere)
    installed = ", ".join(name for name in sorted(to_train) if name not in missing) or "none"
    rows = {"to train": installed + (f"; missing: {', '.join(missing)}" if missing else "")}
    if optional := {name: file for name, file in optional.items() if name not in missing}:
        listed = ", ".join(f"{required_packages.distribution(name)} ({file})" for name, file in optional.items())
        rows["optional"] = f"missing, but not needed to train: {listed}"
    for name, file in missing.items():
        reasons.append(f"{file} imports {name}, which is missing: pip install {required_packages.distribution(name)}")
    return rows
