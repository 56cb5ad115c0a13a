"""`ddo doctor`"""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from ddo_plugin.checkout import Checkout

PACKAGES = ("torch", "numpy", "scipy")
GIB = 1 << 30


@click.command("doctor")
@click.argument("repo", type=click.Path(path_type=Path), default=".")
def command(repo: Path) -> None:
    """Tell whether a run could start in the checkout REPO (default: this folder), and what stands in its way.

    The exit status is 0 only if it could.
    """
    from ddo_plugin.checkout import open_checkout
    from ddo_plugin.errors import UserError

    click.echo(f"python {platform.python_version()}, " + ", ".join(f"{name} {_version(name)}" for name in PACKAGES))
    problems = []
    try:
        problems += _device()
        checkout = open_checkout(repo)
        problems += [*_checkout(checkout), *_compat(checkout), *_missing(checkout)]
    except UserError as error:
        problems.append(error.message)
    click.echo()
    for problem in problems:
        click.secho(f"problem: {problem}", fg="red")
    click.echo("No run could start." if problems else "A run could start.")
    sys.exit(bool(problems))


def _device() -> list[str]:
    import torch

    from ddo_plugin.compat import cpu
    from ddo_plugin.memory import total_bytes

    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    for gpu in gpus:
        click.echo(f"{gpu.name}, {gpu.total_memory / GIB:.0f} GiB")
    click.echo(f"{'' if gpus else 'no GPU, '}{total_bytes() / GIB:.0f} GiB of memory")
    if not cpu.chosen() and not gpus:
        return [f"{cpu.VARIABLE}=cuda, but torch finds no GPU; unset it to run on the CPU"]
    return []


def _checkout(checkout: Checkout) -> list[str]:
    click.echo(f"\n{checkout.upstream.title}, {_commit(checkout.root)}, in {checkout.root}")
    if checkout.upstream.patch is None:
        click.echo("  no patch comes with its integration")
        return [f"DDO cannot be switched on in {checkout.root}: no patch comes with its integration"]
    files = checkout.files()
    for file in files:
        click.echo(f"  {file.path}: {file.found.state.value}")
    return [f"{file.path} cannot be patched: {file.found.reason}" for file in files if file.found.reason]


def _compat(checkout: Checkout) -> list[str]:
    from ddo_plugin import compat
    from ddo_plugin.compat import ownership

    if not ownership.concerns(checkout.root):
        return []
    problems, off = [], compat.switched_off()
    click.echo("\nWhat breaks here, and what compat does about it:")
    needed = [fix for fix in compat.FIXES if fix.needed()]
    for fix in needed:
        remedy = f"left alone: {compat.OFF_VARIABLE} says so" if fix.name in off else fix.does
        click.echo(f"  {fix.name}: {fix.breaks}\n    -> {remedy}")
        if (fix.to_train or fix.for_imports) and fix.name in off:
            problems.append(f"{fix.breaks}; take {fix.name} out of {compat.OFF_VARIABLE}")
    if not needed:
        click.echo("  nothing")
    return problems


def _missing(checkout: Checkout) -> list[str]:
    from ddo_plugin.compat.no_distutils import STAND_INS
    from ddo_plugin.requirements import missing

    absent = [one for one in missing(checkout.root, checkout.upstream.script) if not (STAND_INS / one.module).exists()]
    if absent:
        click.echo("\nNot installed:")
    for one in absent:
        click.echo(f"  {one.module}, imported by {one.importer}" + ("" if one.required else " (not needed to train)"))
    wanted = [one.distribution for one in absent if one.required]
    return [f"{checkout.upstream.script} cannot be imported; pip install {' '.join(wanted)}"] if wanted else []


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit(root: Path) -> str:
    asked = ["git", "-C", str(root), "rev-parse", "--show-toplevel", "--short", "HEAD"]
    try:
        top, commit = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return "no git repository"
    return f"commit {commit}" if Path(top) == root else "no git repository of its own"
