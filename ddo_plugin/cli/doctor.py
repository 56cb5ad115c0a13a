"""`ddo doctor`"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ddo_plugin.base.errors import UserError

if TYPE_CHECKING:
    from ddo_plugin.checkouts.checkout import Checkout
    from ddo_plugin.checkouts.compat.ownership import Family

NOT_READY_STATUS = 1


@click.command("doctor")
@click.argument("repo", type=click.Path(path_type=Path), default=".")
def command(repo: Path) -> None:
    """Tell whether the checkout REPO (default: this folder) would run here, and what compat does about it.

    Exit status 0: a training run could start; 1: it could not, and why.
    """
    from ddo_plugin.base import environment

    reasons: list[str] = []
    _print("Environment", environment.describe())
    checkout, unknown = _open(repo)
    if error := environment.torch_error():
        reasons.append(f"torch cannot be imported ({error}), and every upstream needs it; see pytorch.org")
    elif families := _families(checkout):
        _print("What breaks here, and what compat does about it", _fixes(families, reasons))
    if checkout is None:
        reasons.append(unknown)
    else:
        _print("Checkout", _checkout(checkout, reasons))
        _print("Packages", _packages(checkout, reasons))
    if not reasons:
        click.secho("A run could start.", fg="green")
        return
    click.secho("No run could start:", fg="red")
    for reason in reasons:
        click.echo(f"  {reason}")
    click.get_current_context().exit(NOT_READY_STATUS)


def _open(repo: Path) -> tuple[Checkout | None, str]:
    """The checkout, or why it is none."""
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


def _families(checkout: Checkout | None) -> tuple[Family, ...]:
    """Whose fixes concern the reader: of a checkout its own, of none all."""
    from ddo_plugin.checkouts.compat import ownership

    if checkout is None:
        return ownership.FAMILIES
    family = ownership.family(checkout.root)
    return () if family is None else (family,)


def _fixes(families: tuple[Family, ...], reasons: list[str]) -> dict[str, str]:
    """What would break without compat, and what it does; what nobody mends is among the reasons."""
    from ddo_plugin.checkouts import compat
    from ddo_plugin.checkouts.compat import cpu

    try:
        off = compat.switched_off()
        on_cpu = cpu.chosen()
    except UserError as error:
        reasons.append(error.message)
        return {"unknown": error.message}
    rows = {}
    for fix in compat.FIXES:
        if not set(families).intersection(fix.families):
            continue
        if not fix.needed():
            rows[fix.name] = "not needed here"
            continue
        remedy = f"left alone: {compat.OFF_VARIABLE} says so" if fix.name in off else fix.does
        rows[fix.name] = f"{fix.breaks}\n-> {remedy}"
        if fix.to_train and fix.name in off:
            reasons.append(f"{fix.breaks}; take '{fix.name}' out of {compat.OFF_VARIABLE}")
    if not on_cpu and not _gpu_is_there():
        reasons.append(f"{cpu.VARIABLE}=cuda forbids the CPU, but torch finds no GPU; unset it to run on the CPU")
    return rows


def _gpu_is_there() -> bool:
    import torch

    return torch.cuda.is_available()


def _checkout(checkout: Checkout, reasons: list[str]) -> dict[str, str]:
    from ddo_plugin.checkouts.checkout import git_commit

    rows = {
        "upstream": checkout.upstream.title,
        "folder": str(checkout.root),
        "commit": git_commit(checkout.root),
        "script": checkout.upstream.script,
    }
    try:
        files = checkout.files()
    except UserError as error:
        reasons.append(error.message)
        return rows | {"patch": error.message}
    for file in files:
        state = file.found.state.value
        if state == "conflicting":
            reasons.append(f"{file.path} cannot be patched: {file.found.reason}")
        remark = (
            " (`ddo apply` inserts DDO's lines; `ddo run` does without)" if state in ("pristine", "patchable") else ""
        )
        rows[file.path] = state + remark
    return rows


def _packages(checkout: Checkout, reasons: list[str]) -> dict[str, str]:
    from ddo_plugin.checkouts import compat, required_packages

    compat.apply_for_imports()
    try:
        found = required_packages.read_imports(checkout.root, checkout.upstream.script)
    except UserError as error:
        reasons.append(error.message)
        return {"unknown": error.message}
    to_train = {**found.to_train, **checkout.upstream.needs}
    needed, other = required_packages.missing(to_train), required_packages.missing(found.elsewhere)
    there = ", ".join(name for name in sorted(to_train) if name not in needed) or "none"
    rows = {"to train": there + (f"; missing: {', '.join(needed)}" if needed else "")}
    if other := {name: file for name, file in other.items() if name not in needed}:
        listed = ", ".join(f"{required_packages.distribution(name)} ({file})" for name, file in other.items())
        rows["else"] = f"missing, but not needed to train: {listed}"
    for name, file in needed.items():
        reasons.append(f"{file} imports {name}, which is missing: pip install {required_packages.distribution(name)}")
    return rows
