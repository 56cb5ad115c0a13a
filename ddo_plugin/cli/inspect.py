"""`ddo inspect`"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddo_plugin.base.errors import UserError, printable
from ddo_plugin.base.option_types import Place

if TYPE_CHECKING:
    from ddo_plugin.checkouts.checkout import Checkout
    from ddo_plugin.snapshots.pickles.contents import Contents, NetworkInfo, ObjectInfo, Source
    from ddo_plugin.snapshots.pickles.file_kind import FileKind

REFUSED_STATUS = 1
_LONGEST_LINE = 400
_MOST_CLASSES = 20
_CHUNK = 1 << 16  # characters


@click.command("inspect")
@click.argument("file", metavar="FILE|URL")
@click.option("--sha256", metavar="HEX", help="Expected SHA-256, verified before the file is read.")
@click.option("--source", is_flag=True, help="Print the Python source that the file carries, and nothing else.")
@click.option(
    "--checkout",
    type=Place(exists=True, file_okay=False),
    default=".",
    help="Checkout whose source is compared with the source in the file. If you pass this option, the network is "
    "also loaded with the checkout's classes.  [default: the current folder]",
)
@click.pass_context
def command(ctx: click.Context, /, file: str, sha256: str | None, source: bool, checkout: Path) -> None:
    """Describe a network pickle without running its code.

    FILE|URL is the network file. Prints the networks and other objects in the file, how they were constructed, the
    Python source that the file carries, and every name that it refers to.

    For a file of torch.save, such as weights of VAR, prints whether it can be read without running code.

    The exit status is 0 if the file is a network pickle that can be loaded without running its code. With --checkout,
    the network must also load into the checkout's classes. The exit status is 1 for all other files, and 2 if the
    command itself fails, for example because the file does not exist.
    """
    from ddo_plugin.base.download import local_file
    from ddo_plugin.base.files import sha256_file
    from ddo_plugin.snapshots.pickles.contents import describe_pickle
    from ddo_plugin.snapshots.pickles.file_kind import FileKind, kind_of

    path = local_file(file, sha256=sha256)
    kind = kind_of(path)
    click.echo(f"{printable(str(file))}: {kind.value}, {_size(path.stat().st_size)}, sha256 {sha256_file(path)}")
    if kind is not FileKind.PICKLE:
        click.echo(_statement(path, kind))
        sys.exit(REFUSED_STATUS)
    contents = describe_pickle(path, checkout=checkout)
    try_loading = ctx.get_parameter_source("checkout") is click.core.ParameterSource.COMMANDLINE
    trouble = "" if source else _trouble(path, contents, checkout, try_loading)
    if source:
        _print_sources(contents.sources)
    else:
        _print(contents, in_checkout=(checkout / "training").is_dir())
        _print_verdict(contents, trouble, try_loading)
    sys.exit(REFUSED_STATUS if _is_refused(contents) or trouble else 0)


def _is_refused(contents: Contents) -> bool:
    return bool(contents.refusals or contents.damage or not contents.networks)


def _trouble(path: Path, contents: Contents, checkout: Path, try_loading: bool) -> str:
    """Return why the checkout cannot load a harmless network. The checkout's code is run only with `try_loading`."""
    from ddo_plugin.checkouts.checkout import open_checkout
    from ddo_plugin.snapshots.pickles.contents import missing_network_module

    try:
        opened = open_checkout(checkout)
    except UserError as error:
        return error.message if try_loading else ""
    if _is_refused(contents):
        return ""
    return missing_network_module(contents, opened.root) or (_attempt(path, opened) if try_loading else "")


def _attempt(path: Path, checkout: Checkout) -> str:
    """Load the network as `ddo sample` does. Return why that fails, or an empty string."""
    from ddo_plugin.checkouts.checkout import make_importable
    from ddo_plugin.snapshots.reference import load_as_stored

    make_importable(checkout.root)
    try:
        load_as_stored(str(path), {"ddo_trust": False, "ddo_sha256": None}, checkout.upstream)
    except UserError as error:
        return error.message
    return ""


def _statement(path: Path, kind: FileKind) -> str:
    """Describe a file that is no pickle, without loading it."""
    from ddo_plugin.snapshots.pickles.file_kind import FileKind, safetensors_header

    if kind is FileKind.SAFETENSORS:
        tensors = safetensors_header(path).keys() - {"__metadata__"}
        return f"It holds {len(tensors)} tensors and no code. It is not a network pickle."
    if kind in (FileKind.CHECKPOINT, FileKind.LEGACY_CHECKPOINT):
        return _checkpoint_statement(path)
    if kind is FileKind.POINTER:
        return "The file itself is not here. To download it, run `git lfs pull` in the repository that it is from."
    return "It holds no network."


def _checkpoint_statement(path: Path) -> str:
    """Say whether a file of `torch.save` can be read without running code. The tensors are not read."""
    from ddo_plugin.snapshots.pickles.checkpoint import check_checkpoint
    from ddo_plugin.snapshots.pickles.nodes import BrokenError, ForbiddenError

    try:
        check_checkpoint(path)
    except ForbiddenError as error:
        return _line(f"Loading it may run code, so no command reads it. It refers to: {error}.")
    except BrokenError as error:
        return _line(f"It cannot be read as a file of torch.save: {error}.")
    except Exception:  # torch's own words say nothing to users
        return "It is not a file of torch.save, or it is damaged. To check a zip of images, run `ddo refset pack`."
    return "It holds only tensors and plain data, and can be read without running code. It is not a network pickle."


def _print(contents: Contents, in_checkout: bool) -> None:
    from ddo_plugin.snapshots.pickles.shown import shown

    click.echo("No code in it was run.\n")
    for key, network in contents.networks.items():
        _print_network(key, network)
    for key, thing in contents.objects.items():
        _print_object(key, thing)
    for key, value in contents.values.items():
        click.echo(_line(f"{key}  {shown(value)}"))
    if contents.sources:
        click.echo("\nSource that pickle.load would run (--source prints it):")
    for source in contents.sources:
        click.echo(f"  {_title(source, in_checkout)}")
    click.echo(f"\nNames that it refers to:{'' if contents.globals else ' none'}")
    for name, allowed in contents.globals.items():
        click.secho(f"  {name}{'' if allowed else '   not allowed'}", fg=None if allowed else "red")
    click.echo()


def _print_network(key: str, network: NetworkInfo) -> None:
    model = f" of a {network.model_class}" if network.model_class else ""
    dtypes = ", ".join(network.dtypes)
    size = f"{network.parameters:,} parameters, {dtypes}, {_size(network.nbytes)}"
    click.secho(_line(f"{key or 'network'}  {network.class_name}{model}: {size}"), bold=True)
    classes = f"{network.label_dim} classes" if network.label_dim else "unconditional"
    augment = f", {network.augment_dim} augment labels" if network.augment_dim else ""
    resolution = f"{network.resolution}×{network.resolution}"
    click.echo(f"  {resolution}, {network.channels} channels, {classes}{augment}")
    click.echo(_line(f"  constructed by {network.class_name}({_arguments(network.init_args, network.init_kwargs)})"))


def _print_object(key: str, thing: ObjectInfo) -> None:
    click.echo(_line(f"{key}  {thing.class_name}({_arguments(thing.init_args, thing.init_kwargs)})"))
    if thing.settings:
        click.echo(_line(f"  {_arguments((), thing.settings)}"))


def _print_sources(sources: tuple[Source, ...]) -> None:
    for source in sources:
        click.echo(f"# {_title(source)}")
        for start in range(0, len(source.text), _CHUNK):
            click.echo(printable(source.text[start : start + _CHUNK]), nl=False)
        click.echo()


def _print_verdict(contents: Contents, trouble: str, loaded: bool) -> None:
    if contents.refusals:
        click.secho("Loading it may run code, so it is refused without --ddo-trust. It refers to:", fg="red")
        for refusal in contents.refusals:
            click.echo(_line(f"  {refusal}"))
    elif contents.damage:
        click.secho(_line(f"It cannot be loaded: {contents.damage}."), fg="red")
    elif not contents.networks:
        click.secho("It holds no network.", fg="red")
    elif trouble:
        click.secho(_line(f"It cannot be loaded here: {trouble}"), fg="red")
    elif loaded:
        click.echo("The checkout loads it without running its code.")
    else:
        click.echo("It can be loaded without running its code. To try it with a checkout, add --checkout=REPO.")


def _title(source: Source, in_checkout: bool = False) -> str:
    same = (
        f", same as {source.local}" if source.local else ", unlike any module of this checkout" if in_checkout else ""
    )
    classes = ", ".join(itertools.islice(source.classes, _MOST_CLASSES))
    more = f" and {hidden} more" if (hidden := len(source.classes) - _MOST_CLASSES) > 0 else ""
    return f"{_line(classes)}{more}: {source.nbytes:,} bytes, sha256 {source.sha256}{same}"


def _arguments(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    from ddo_plugin.snapshots.pickles.shown import shown

    return ", ".join([*map(shown, args), *(f"{name}={shown(value)}" for name, value in kwargs.items())])


def _size(nbytes: int) -> str:
    power = min((len(str(nbytes)) - 1) // 3, 3)
    return f"{nbytes / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB')[power]}"


def _line(text: str) -> str:
    from ddo_plugin.snapshots.pickles.machine import one_line

    return one_line(text, _LONGEST_LINE)
