"""`ddo eval`"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ddo_plugin.base.errors import UserError
from ddo_plugin.base.option_types import MOST_EVALUATIONS, IntegerList, Place, ShellWords
from ddo_plugin.cli._dashes import ARGUMENTS, SplitAtDashes

if TYPE_CHECKING:
    from ddo_plugin.evaluation.image_sets import Images

USUAL_SEEDS = [0]
NETWORKS = (".pkl", ".pth", ".pt", ".safetensors")
OURS = "applies to the metrics of this package only; drop it or --checkout"


@click.command("eval", cls=SplitAtDashes, options_metavar="[OPTIONS]")
@click.argument("what", metavar="WHAT")
@click.option("--ref", metavar="STATS|IMAGES", help="Real images or their statistics to compare with: a path or URL.")
@click.option(
    "--metrics",
    metavar="NAME[,NAME]",
    help="Metrics, separated by commas: fid, sfid, is, pr, kid. With --checkout: metrics that upstream's script knows. "
    " [default: fid, and pr if --ref holds images]",
)
@click.option(
    "--save-statistics",
    type=Place(dir_okay=False),
    metavar="NPZ|PKL",
    help="Write the statistics of WHAT to this file, for use as --ref, and measure nothing: EDM's .npz or EDM2's .pkl. "
    "With --metrics=fid,sfid, the file also holds those for sfid.",
)
@click.option("--out", type=Place(dir_okay=False), help="JSON file for the results.")
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True, help="Images per forward pass.")
@click.option(
    "--features",
    metavar="NAME",
    help="Feature extractor: inception, dinov2, or one that a plugin adds. With checkouts of EDM and EDM2, it applies "
    "to precision and recall (--real).  [default: inception]",
)
@click.option(
    "--seed", type=click.IntRange(min=0), help="Random seed for the splits of is and the subsets of kid.  [default: 0]"
)
@click.option(
    "--checkout",
    type=Place(exists=True, file_okay=False),
    help="Measure with the scripts of this checkout. Use this for numbers that you publish.",
)
@click.option(
    "--real",
    metavar="IMAGES",
    help="Real images for precision and recall, which the scripts of EDM and EDM2 do not compute.  [with --checkout]",
)
@click.option(
    "--num",
    type=click.IntRange(min=2),
    metavar="N",
    help="Number of samples per evaluation.  [with --checkout; default: 50000]",
)
@click.option(
    "--seeds",
    type=IntegerList(MOST_EVALUATIONS),
    metavar="K[,K]",
    help="Evaluation seeds, separated by commas. Each seed measures N other images of the network.  [with --checkout; "
    "default: 0]",
)
@click.option(
    "--torchrun",
    type=ShellWords(),
    metavar="OPTIONS",
    help="Start the scripts with torchrun and these options.  [with --checkout]",
)
@click.option(
    "--trust", is_flag=True, help="Allow the scripts to run the code in the network's file.  [with --checkout]"
)
@click.pass_context
def command(
    ctx: click.Context, /, what: str, checkout: Path | None, save_statistics: Path | None, **options: Any
) -> None:
    """Measure samples or a network against real images.

    WHAT is a set of samples: a folder or zip of images, an .npz with arr_0, or a reference set. --ref is a file of
    statistics as EDM (.npz), EDM2 (.pkl) and OpenAI (VIRTUAL_*.npz) publish them, or images in any of these forms.
    The metrics pr (precision and recall) and kid compare images, so they need images as --ref. Recall falls if the
    samples become less diverse, which fid alone does not show.

    With --checkout, WHAT can also be a network. Upstream's own script, such as fid.py or calculate_metrics.py,
    measures it in a separate process; the checkout is not changed. Arguments after `--` go to upstream's sampler:

    \b
        ddo eval samples/ --ref=VIRTUAL_imagenet256_labeled.npz --metrics=fid,sfid,is,pr --out=eval.json
        ddo eval my-dataset.zip --save-statistics=my-dataset.npz
        ddo eval snapshot.pkl --checkout=edm --ref=cifar10-32x32.npz --seeds=0,1,2 --out=eval.json -- --steps=18
    """
    if checkout is None:
        _refuse_others(ctx, ("real", "num", "seeds", "torchrun", "trust"), "needs --checkout")
    if save_statistics:
        _refuse_others(ctx, ("checkout", "ref", "out", "seed"), "does not apply to --save-statistics; drop one of them")
        _save_statistics(what, save_statistics, **options)
    elif checkout is None:
        _measure(what, **options)
    else:
        _refuse_others(ctx, ("seed",), OURS)
        _by_upstream(what, checkout, ctx.meta[ARGUMENTS], **options)


def _refuse_others(ctx: click.Context, names: tuple[str, ...], why: str) -> None:
    for name in names:
        if ctx.params[name]:
            raise UserError(f"--{name} {why}")
    if "num" in names and ctx.meta[ARGUMENTS]:
        raise UserError(
            f"{shlex.join(ctx.meta[ARGUMENTS])}: arguments after `--` go to upstream's sampler, which {why}"
        )


def _save_statistics(what: str, to: Path, metrics: str | None, batch: int, features: str | None, **_: Any) -> None:
    from ddo_plugin.base.files import refuse_to_replace
    from ddo_plugin.base.result_file import check_place
    from ddo_plugin.evaluation.measure import features_named, metrics_named, statistics_of
    from ddo_plugin.evaluation.real_statistics import INCEPTION, write_statistics

    if to.suffix not in (".npz", ".pkl"):
        raise UserError(f"--save-statistics={to}: the name must end with .npz (as EDM's) or .pkl (as EDM2's)")
    images = _images(what)
    refuse_to_replace(to)
    check_place(to, "--save-statistics")
    moments = statistics_of(images, metrics_named(metrics or "fid"), features_named(features or INCEPTION), batch=batch)
    write_statistics(moments, to)
    click.echo(f"{to}: statistics of {len(images):,} images")


def _images(what: str) -> Images:
    from ddo_plugin.evaluation.image_sets import read_images

    if Path(what).suffix in NETWORKS and not Path(what).is_dir():
        raise UserError(
            f"{what} is a network, not samples; add --checkout=REPO with its upstream's checkout to sample it first"
        )
    return read_images(Path(what))


def _measure(
    what: str,
    ref: str | None,
    metrics: str | None,
    out: Path | None,
    batch: int,
    features: str | None,
    seed: int | None,
    **_: Any,
) -> None:
    from ddo_plugin.base import environment
    from ddo_plugin.base.result_file import check_place, write_result
    from ddo_plugin.evaluation.measure import (
        check_reference,
        features_named,
        measure,
        metrics_named,
        usual_metrics,
    )
    from ddo_plugin.evaluation.real_statistics import INCEPTION, open_standard

    chosen = metrics_named(metrics) if metrics else None
    samples = _images(what)
    if out:
        check_place(out)
    standard = open_standard(ref) if ref else None
    if chosen is None:
        chosen = usual_metrics(standard)
        if standard and "pr" not in chosen:
            click.echo(f"ddo: recall is not measured, because --ref={ref} holds no images", err=True)
    check_reference(chosen, standard)  # before the weights of the features, which may be missing
    extractor = features_named(features or INCEPTION)
    results = measure(samples, chosen, extractor, standard, batch=batch, seed=seed or 0)
    click.echo("\n".join(f"{name}  {value:.6g}" for name, value in results.items()))
    if out:
        score = results.get("fid", results.get("kid"))
        value = {
            **({} if score is None else {"score": score}),
            "metrics": results,
            "count": len(samples),
            "samples": samples.description,
            "reference": standard.description if standard else None,
            "features": {"name": extractor.name, **getattr(extractor.extract, "description", {})},
            "commands": [shlex.join(["ddo", *sys.argv[1:]])],
            "versions": environment.package_versions(),
        }
        write_result(out, value)


def _by_upstream(
    what: str, checkout: Path, sampler: list[str], ref: str | None, out: Path | None, **options: Any
) -> None:
    from ddo_plugin.base.download import is_url, local_file
    from ddo_plugin.checkouts import run_script
    from ddo_plugin.checkouts.checkout import open_checkout
    from ddo_plugin.hooks import plugins
    from ddo_plugin.hooks.types import EvaluationStep

    if ref is None or out is None:
        raise UserError(f"--{'out' if ref else 'ref'} is missing; --checkout needs both --ref and --out")
    upstream = open_checkout(checkout).upstream
    network = local_file(what) if is_url(what) else Path(what)
    names = ("metrics", "num", "batch", "torchrun", "trust", "features", "real")
    settings = {"checkout": checkout, "ref": ref, **{name: options[name] for name in names}}
    seeds = options["seeds"] or USUAL_SEEDS
    offered = plugins.collect(plugins.manager().hook.ddo_evaluation_options(upstream=upstream.name))
    known = {option.name for option in offered}
    if options["features"] and "features" not in known:
        raise UserError(f"--features {OURS}")
    if options["real"] and known and "real" not in known:
        raise UserError(f"--real: the evaluation of {upstream.title} takes real images with --ref; drop the option")
    if options["trust"] and known and "trust" not in known:
        raise UserError(f"--trust: network files of {upstream.title} contain no code; drop the option")
    if sampler and known and "sampler" not in known:
        raise UserError(f"{shlex.join(sampler)}: the evaluation of {upstream.title} takes no arguments after `--`")
    step = EvaluationStep(upstream.name, network, out, seeds, settings | {"sampler": shlex.join(sampler) or None})
    evaluation = plugins.manager().hook.ddo_evaluation_command(step=step)
    if evaluation is None:
        raise UserError(f"no plugin can evaluate networks of {upstream.title}; measure samples without --checkout")
    run_script.become_process(evaluation)
