"""`ddo merge`"""

from __future__ import annotations

from pathlib import Path

import click

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.option_types import FloatList, Place
from ddo_plugin.sampling.options import network_options


@click.command(
    "merge",
    params=[option for option in network_options() if option.name != "torchrun"],
)
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option(
    "--w",
    type=FloatList(),
    required=True,
    metavar="W[,W]",
    help="Weights of B, separated by commas. 0 is A, 1 is B. Values above 1 extrapolate beyond B, negative values away "
    "from B.",
)
@click.option("--out", type=Place(dir_okay=False), help="File to write; for a single W.")
@click.option(
    "--outdir", type=Place(file_okay=False), help="Folder to write to. A file is named after B and its W: B-w1.5.pkl."
)
@click.option("--ddo-trust", is_flag=True, help="Run the Python code that the networks' files carry.")
def command(
    a: str,
    b: str,
    w: list[float],
    out: Path | None,
    outdir: Path | None,
    ddo_trust: bool,
    checkout: Path | None,
    upstream: str | None,
) -> None:
    """Merge two networks: A + W·(B − A).

    A and B are paths or URLs of two snapshots of one network, for example the base and a finetuned network. Each result
    is a network like B, and upstream's own scripts can read it. An existing file is not overwritten, but the same
    command can be repeated after an interruption.

    \b
        ddo merge base.pkl finetuned.pkl --w=1.5 --out=extrapolated.pkl
        ddo merge base.pkl finetuned.pkl --w=0.5,1,1.5 --outdir=merged
    """
    from ddo_plugin.base.download import is_url, local_file
    from ddo_plugin.base.files import writing
    from ddo_plugin.cli._generating import upstream_named
    from ddo_plugin.snapshots.merged_files import write_merged

    name = upstream_named(checkout, upstream)
    if ddo_trust and (url := next(filter(is_url, (a, b)), None)):
        raise UserError(f"--ddo-trust would run code from {url}; download it, and pass the path of the file")
    parents = {"a": (a, local_file(a)), "b": (b, local_file(b))}
    outs = _outs(parents["b"][1], w, out, outdir)
    for path in outs:
        _refuse_parent(path, parents)
    options = {"ddo_trust": ddo_trust, "ddo_sha256": None}
    with writing(", ".join(map(str, outs))):
        line = write_merged(name, parents, outs, options)
    for path, number in outs.items():
        click.echo(f"{path}: w = {number:g}")
    click.echo(line)


def _outs(b: Path, numbers: list[float], out: Path | None, outdir: Path | None) -> dict[Path, float]:
    """Return the files to write, each with its w."""
    from ddo_plugin.snapshots.merged_files import name_of

    if (out is None) == (outdir is None):
        raise UserError("pass either --out=FILE, for a single W, or --outdir=DIR")
    if len(set(numbers)) < len(numbers):
        raise UserError(f"--w={','.join(map(str, numbers))} contains a number twice; list each number once")
    if outdir is not None:
        return {outdir / name_of(b, number): number for number in numbers}
    assert out is not None
    if len(numbers) > 1:
        raise UserError(f"--out={out} is a single file, but --w has {len(numbers)} numbers; use --outdir=DIR")
    if out.suffix != b.suffix:
        raise UserError(f"--out={out}: the merged network has the format of {b}; choose a name that ends in {b.suffix}")
    return {out: numbers[0]}


def _refuse_parent(out: Path, parents: dict[str, tuple[str, Path]]) -> None:
    for source, file in parents.values():
        if out.exists() and out.samefile(file):
            raise UserError(
                f"{out} is one of the two networks ({source}), which are not overwritten; choose another place"
            )
