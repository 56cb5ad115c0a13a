"""`ddo sample`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.files import writing
from ddo_plugin.base.option_types import Place, integers
from ddo_plugin.cli._generating import GeneratingCommand, open_generator, ranks_on_device

if TYPE_CHECKING:
    from ddo_plugin.sampling.image_writer import Outputs

FILE = Place(dir_okay=False)
RANDOM = "random"


@click.command("sample", cls=GeneratingCommand)
@click.option("--network", required=True, metavar="PATH|URL", help="Network to sample.")
@click.option("--outdir", type=Place(file_okay=False), help="Folder for PNGs, each named after its seed.")
@click.option("--subdirs", is_flag=True, help="Group the PNGs in subfolders of 1000 seeds.")
@click.option(
    "--npz",
    type=FILE,
    help="Compressed .npz with images in arr_0 and classes in arr_1, as OpenAI's evaluator reads it.",
)
@click.option("--grid", type=FILE, help="PNG with the first 100 images side by side.")
@click.option("--seeds", default="0-63", show_default=True, help="Random seeds, one for each image, such as 1,2,5-10.")
@click.option(
    "--labels",
    default=RANDOM,
    show_default=True,
    help="Classes: random (each seed draws a class, as in upstream's script), uniform (equal numbers), dataset:PATH "
    "(its class frequencies), or a list such as 0,3,5-7.",
)
@click.option(
    "--batch", type=click.IntRange(min=1), help="Images per forward pass.  [default: depends on the upstream]"
)
def command(
    network: str,
    outdir: Path | None,
    subdirs: bool,
    npz: Path | None,
    grid: Path | None,
    seeds: str,
    labels: str,
    batch: int | None,
    **options: Any,
) -> None:
    """Sample images from a network.

    If upstream has a sampling script, the images equal those of that script for the same seeds. Pass at least one of
    --outdir, --npz and --grid:

    \b
        ddo sample --network=PKL --outdir=out --subdirs --seeds=0-49999 --torchrun "--nproc_per_node=8"
        ddo sample --network=PKL --grid=look.png --labels=uniform --seeds=0-99
    """
    from ddo_plugin.base.environment import device_name
    from ddo_plugin.sampling import labels as classes
    from ddo_plugin.sampling.image_writer import Outputs, write_images

    if outdir is None and npz is None and grid is None:
        raise UserError("nothing to write; add --outdir, --npz or --grid")
    if grid is not None and grid.suffix.lower() != ".png":
        raise UserError(f"--grid={grid}: the grid is a PNG; choose a name that ends in .png")
    wanted = _seeds(seeds, unique=outdir is not None)
    with ranks_on_device() as group:
        generator = group.together(lambda: open_generator(network, options))
        numbers = None
        if labels != RANDOM:
            numbers = group.agree(lambda: classes.choose(labels, len(wanted), generator.classes, others=[RANDOM]))
        outputs, batch = Outputs(outdir, subdirs, npz, grid), batch or generator.batch
        with writing(", ".join(outputs.written())):
            write_images(generator, group, outputs, seeds=wanted, labels=numbers, batch=batch)
            if group.first:
                own = {"batch": batch, "ranks": group.world, "device": device_name(generator.device)}
                outputs.record(
                    {
                        "reference": dict(generator.reference),
                        "sampler": {**generator.settings, **own},
                        "seeds": seeds,
                        "labels": labels if generator.classes else None,
                    }
                )
        if group.first:
            _report(outputs, wanted)


def _seeds(text: str, *, unique: bool) -> list[int]:
    try:
        seeds = integers(text)
    except ValueError as error:
        raise UserError(f"--seeds: {error}") from None
    if unique and len(set(seeds)) < len(seeds):
        raise UserError(f"--seeds={text} contains a seed twice, but --outdir has one PNG per seed; list each seed once")
    return seeds


def _report(outputs: Outputs, seeds: list[int]) -> None:
    if others := outputs.others(seeds):
        click.echo(
            f"ddo: {outputs.folder} also holds {others:,} PNGs of other seeds; metrics of the folder include them",
            err=True,
        )
    click.echo(f"{len(seeds):,} images: {', '.join(outputs.written())}")
