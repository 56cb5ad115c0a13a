"""Pack what a GPU machine without network needs: `python -m benchmarks.gpu.pack`, or `make gpu-kit`.

The folder .gpu-kit then holds the three checkouts as archives, wheels of packages that the machine lacks, and digits.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import click

ROOT = Path(__file__).parents[2]
CHECKOUTS = ("edm", "edm2", "VAR")
LEFT_OUT = {".git", "docs", "__pycache__", "Dockerfile"}
NOTEBOOK = ".ipynb"
# What the machine lacks of what VAR and this package import; the versions are those of constraints.txt.
RUNTIME = ("typed-argument-parser", "docstring-parser", "pytz")
BUILD = ("setuptools",)  # builds this package on the machine; kept apart, so that torch sees the machine's own
LIMIT_MIB = 60


def checkouts_folder() -> Path:
    """Return the folder of the checkouts, like the tests of the upstreams."""
    return Path(os.environ.get("DDO_UPSTREAMS") or Path.home() / ".cache" / "ddo-plugin" / "upstreams")


def archive(checkout: Path, to: Path) -> None:
    """Write the code of a checkout to a tar archive."""

    def without_ballast(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        parts = set(Path(member.name).parts)
        return None if parts & LEFT_OUT or member.name.endswith(NOTEBOOK) else member

    with tarfile.open(to, "w:gz") as tar:
        tar.add(checkout, arcname=checkout.name, filter=without_ballast)


def download(packages: tuple[str, ...], to: Path, python: str) -> None:
    """Download wheels of these packages alone for the machine's Python."""
    platforms = [f"--platform=manylinux{tag}_x86_64" for tag in ("_2_28", "_2_17", "2014")]
    only = ["--no-deps", "--only-binary=:all:", f"--python-version={python}", "--implementation=cp", *platforms]
    constraints = f"--constraint={ROOT / 'constraints.txt'}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", *only, constraints, f"--dest={to}", *packages]
    subprocess.run(command, check=True)


@click.command()
@click.option("--python", default="3.12", show_default=True, help="Python version of the GPU machine.")
def main(python: str) -> None:
    """Write the GPU kit to .gpu-kit in this repository."""
    kit = ROOT / ".gpu-kit"
    shutil.rmtree(kit, ignore_errors=True)
    for name in CHECKOUTS:
        checkout = checkouts_folder() / name
        if not checkout.is_dir():
            raise click.ClickException(f"{checkout}: no such checkout; clone the upstream there, or set DDO_UPSTREAMS")
    (kit / "checkouts").mkdir(parents=True)
    for name in CHECKOUTS:
        archive(checkouts_folder() / name, kit / "checkouts" / f"{name}.tar.gz")
    download(RUNTIME, kit / "wheels", python)
    download(BUILD, kit / "build", python)
    prepare = [sys.executable, "-m", "ddo_integrations.demo.prepare", f"--out={kit / 'digits'}"]
    subprocess.run(prepare, check=True)
    mib = sum(path.stat().st_size for path in kit.rglob("*") if path.is_file()) / 2**20
    click.echo(f"{kit.name}: {mib:.1f} MiB")
    if mib > LIMIT_MIB:
        raise click.ClickException(f"the kit must stay below {LIMIT_MIB} MiB")


if __name__ == "__main__":
    main()
