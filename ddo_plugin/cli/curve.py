"""`ddo curve`"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import click

from ddo_plugin.base.option_types import MOST_AT_A_TIME, FloatList, Place
from ddo_plugin.cli._dashes import ARGUMENTS, SplitAtDashes


@click.command("curve", cls=SplitAtDashes, options_metavar="--scales LIST --out DIR [OPTIONS] -- COMMAND...")
@click.option(
    "--scales",
    type=FloatList(),
    required=True,
    metavar="LIST",
    help="Guidance scales to measure, separated by commas, such as 0,0.5,1.",
)
@click.option("--out", type=Place(file_okay=False), required=True, help="Folder to write.")
@click.option(
    "--jobs",
    type=click.IntRange(1, MOST_AT_A_TIME),
    default=1,
    show_default=True,
    help="Number of scales to run at a time.",
)
@click.option(
    "--beside",
    type=Place(exists=True, file_okay=False),
    multiple=True,
    help="Folder of another curve to draw in the same figure. Can be repeated.",
)
@click.pass_context
def command(ctx: click.Context, /, scales: list[float], out: Path, jobs: int, beside: tuple[Path, ...]) -> None:
    """Measure FID and Inception Score over guidance scales.

    COMMAND runs once for each scale. {scale} is replaced by the scale, and {out} by the JSON file that the command
    must write in the format of `ddo eval --metrics=fid,is`. Use a shell to run several steps:

    \b
        ddo curve --scales=0,0.5,1,1.5 --out=curve -- sh -c '
            my-sampler --cfg={scale} --out={out}.npz &&
            ddo eval {out}.npz --ref=VIRTUAL_imagenet256_labeled.npz --metrics=fid,is --out={out}'

    The command prints a table and writes curve.json and curve.png, which shows FID over Inception Score. The figure
    needs matplotlib. After an interruption, run the same command again to continue; you can add scales. If a scale
    fails, the curve is drawn without it and the exit status is 1.
    """
    from ddo_plugin.base.interrupts import resumable
    from ddo_plugin.evaluation import curve

    others = {str(folder): curve.read_curve(folder) for folder in beside}
    with resumable():
        points, failures = curve.run(ctx.meta[ARGUMENTS], sorted(set(scales)), out, jobs)
    if not points:
        raise click.ClickException(f"every scale failed, {failures[0]}")
    click.echo(curve.table(points))
    if find_spec("matplotlib") is None:
        click.echo(f"\n{out / curve.RESULT}; {curve.PICTURE} needs matplotlib: pip install 'ddo-plugin[report]'")
    else:
        curve.draw({str(out): points, **others}, out / curve.PICTURE)
        click.echo(f"\n{out / curve.RESULT}, {out / curve.PICTURE}")
    if failures:
        raise click.ClickException("\n".join(["not all scales are in it:", *(failure.line() for failure in failures)]))
