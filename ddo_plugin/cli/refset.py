"""`ddo refset`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ddo_plugin.base.files import writing
from ddo_plugin.base.option_types import LAST_CLASS, Place
from ddo_plugin.cli._generating import GeneratingCommand, open_generator, ranks_on_device
from ddo_plugin.sampling.options import refset_options

FOLDER = Place(file_okay=False)


@click.group("refset")
def command() -> None:
    """Create, check and convert reference sets.

    A reference set is a folder of samples of a network, with their classes, their checksums and how they were made.
    `ddo run` takes this folder as --ddo-fakes.
    """


@command.command("make", cls=GeneratingCommand, params=refset_options())
def make(network: str, out: Path, count: int, seed: int, labels: str, batch: int | None, **options: Any) -> None:
    """Sample a network into a reference set.

    If the command is interrupted, run it again to continue. Sample i depends on the random seed, on i and on the
    batch size, but not on the number of processes. These two commands do the same:

    \b
        ddo refset make --torchrun "--standalone --nproc_per_node=8" --network=PKL --out=refset
        torchrun --standalone --nproc_per_node=8 -m ddo_plugin refset make --network=PKL --out=refset
    """
    from ddo_plugin.sampling import labels as classes
    from ddo_plugin.sampling.refsets import make as refset

    with ranks_on_device() as group:
        generator = group.together(lambda: open_generator(network, options))
        numbers = group.agree(lambda: classes.choose(labels, count, generator.classes))
        with writing(str(out)):
            created = refset.make(
                generator, out, group, count=count, seed=seed, labels=numbers, batch=batch or generator.batch
            )
        if group.first:
            click.echo(f"{out}: {_described(out)}{'' if created else '; it is complete already, nothing to do'}")


@command.command("verify")
@click.argument("folder", type=FOLDER)
def verify(folder: Path) -> None:
    """Compare a reference set with its checksums.

    The whole set is read. The exit status is 2 if it is damaged.
    """
    from ddo_plugin.sampling.refsets.format import open_refset

    open_refset(folder).verify()
    click.echo(f"{folder}: {_described(folder)}; checksums match")


@command.command("info")
@click.argument("folder", type=FOLDER)
def info(folder: Path) -> None:
    """Show what a reference set holds and how it was made."""
    import numpy as np

    from ddo_plugin.sampling.refsets.format import open_refset

    opened = open_refset(folder)
    click.echo(f"{folder}: {_described(folder)}")
    manifest = opened.manifest
    reference = manifest["reference"]
    _say(f"  network  {_recorded(reference.get('source'))}, sha256 {_recorded(reference.get('sha256'))}")
    _say(f"  seed     {_recorded(manifest['seed'])}")
    _say(f"  sampler  {', '.join(f'{name} {_shown(value)}' for name, value in manifest['sampler'].items())}")
    if opened.labels is not None:
        counts = np.unique(opened.labels, return_counts=True)[1]
        times = f"{counts.min()} to {counts.max()}" if np.ptp(counts) else f"{counts[0]}"
        click.echo(f"  classes  {len(counts)}; samples of each: {times}")
    for name, stored in manifest["arrays"].items():
        _say(f"  {name}  sha256 {stored['sha256']}")


@command.command("pack")
@click.argument("images", type=Place(exists=True))
@click.argument("folder", type=FOLDER)
@click.option(
    "--class",
    "label",
    type=click.IntRange(0, LAST_CLASS),
    help="Class of all images, if there is no dataset.json.",
)
@click.option(
    "--network",
    type=Place(exists=True, dir_okay=False),
    help="Network that made the images; its SHA-256 is recorded.",
)
def pack(images: Path, folder: Path, label: int | None, network: Path | None) -> None:
    """Convert a folder or zip of images to a reference set.

    IMAGES is a folder or zip such as generate.py or dataset_tool.py write. Classes come from its dataset.json or from
    --class; without either, the set has no classes.
    """
    from ddo_plugin.sampling.refsets import image_archive

    with writing(str(folder)):
        image_archive.pack(images, folder, label, network)
    click.echo(f"{folder}: {_described(folder)}")


@command.command("unpack")
@click.argument("folder", type=FOLDER)
@click.argument("archive", type=Place(dir_okay=False))
def unpack(folder: Path, archive: Path) -> None:
    """Write the images of a reference set to a zip.

    The zip has the format of upstream's dataset_tool.py.
    """
    from ddo_plugin.sampling.refsets import image_archive
    from ddo_plugin.sampling.refsets.format import open_refset

    opened = open_refset(folder)
    with writing(str(archive)):
        image_archive.unpack(opened, archive)
    click.echo(f"{archive}: {_described(folder)}")


def _say(line: str) -> None:
    """Print a line without control characters: the strings of a manifest can hold anything."""
    click.echo("".join(character if character.isprintable() else " " for character in line))


def _recorded(value: Any) -> str:
    return "not recorded" if value is None else str(value)


def _shown(value: Any) -> str:
    """Return a setting of the sampler: a file by its source and SHA-256, a list by its items."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" if name != "source" else str(inner) for name, inner in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _described(folder: Path) -> str:
    from ddo_plugin.sampling.refsets.format import open_refset

    opened = open_refset(folder)
    shape, kind = "×".join(map(str, opened.samples.shape[1:])), opened.manifest["kind"]
    samples = f"samples of {shape} tokens" if kind == "tokens" else f"{kind} of {shape}"
    labelled = "without labels" if opened.labels is None else "with labels"
    scored = "" if opened.logp is None else ", with log-probabilities"
    return f"{len(opened):,} {samples}, {opened.samples.dtype}, {labelled}{scored}"
