"""`ddo curve`"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import click

from ddo_plugin.base.errors import UserError
from ddo_plugin.cli._dashes import ARGUMENTS, SplitAtDashes


@click.command("curve", cls=SplitAtDashes, options_metavar="--scales LIST --out DIR [OPTIONS] -- COMMAND...")
@click.option("--scales", required=True, metavar="LIST", help="Guidance scales, separated by commas.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Folder for the results.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Scales at a time.")
@click.option(
    "--beside",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    multiple=True,
    help="The folder of another curve, drawn into the same figure. May be given again.",
)
@click.pass_context
def command(ctx: click.Context, /, scales: str, out: Path, jobs: int, beside: tuple[Path, ...]) -> None:
    """Measure FID and Inception Score over guidance scales.

    COMMAND is run for each scale, {scale} replaced by the scale and {out} by the JSON file that it is to leave behind,
    as `ddo eval --metrics=fid,is` writes it. Several steps make one command by way of a shell:

    \b
        ddo curve --scales=0,0.5,1,1.5 --out=curve -- sh -c '
            my-sampler --cfg={scale} --out={out}.npz &&
            ddo eval {out}.npz --ref=VIRTUAL_imagenet256_labeled.npz --metrics=fid,is --out={out}'

    Prints a table and writes curve.json and curve.png (FID over IS). After an interruption the same command goes on;
    scales can be added. Without the scales that fail the curve is drawn, and the exit status is 1.
    """
    if find_spec("matplotlib") is None:
        raise UserError("the figure needs matplotlib: pip install 'ddo-plugin[report]'")
    from ddo_plugin.evaluation import curve
    from ddo_plugin.jobs.interrupts import resumable

    numbers, others = _numbers(scales), {str(folder): curve.read_curve(folder) for folder in beside}
    with resumable():
        points, failures = curve.run(ctx.meta[ARGUMENTS], numbers, out, jobs)
    if not points:
        raise click.ClickException(f"every scale failed, {failures[0]}")
    curve.draw({str(out): points, **others}, out / curve.PICTURE)
    click.echo(curve.table(points))
    click.echo(f"\n{out / curve.RESULT}, {out / curve.PICTURE}")
    if failures:
        raise click.ClickException("\n".join(["not all scales are in it:", *(one.line() for one in failures)]))


def _numbers(text: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
        if not all(map(math.isfinite, found)):
            raise ValueError
    except ValueError:
        raise UserError(f"--scales={text} is no list of numbers such as 0,0.5,1") from None
    return sorted(set(found))
