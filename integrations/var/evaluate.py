"""Evaluate a VAR network: `ddo sample` makes images, `ddo eval` measures them.

`python -m ddo_integrations.var.evaluate --checkout=VAR --network=var_d16.pth --ref=VIRTUAL_imagenet256_labeled.npz
--out=JSON`. Upstream has no script that measures; it refers to OpenAI's evaluator, and this reads the same statistics.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from ddo_integrations.var.options import upstream_options
from ddo_plugin import (
    EVALUATION_SAMPLES,
    MOST_EVALUATIONS,
    IntegerList,
    Place,
    ShellWords,
    UserError,
    check_elsewhere,
    check_place,
    combine_seeds,
    flags,
    in_one_line,
    interruptible,
    metrics_named,
    open_standard,
    progress,
    record_beside,
    usual_metrics,
    write_result,
)

INCEPTION = "inception"
OWN = [
    click.Option(["--network"], required=True, metavar="PTH|URL", help="Plain weights, as upstream publishes them."),
    click.Option(["--out"], type=Place(dir_okay=False), required=True, help="JSON file to write."),
    click.Option(["--ref"], required=True, metavar="NPZ|IMAGES|URL", help="Real images, or their statistics."),
    click.Option(
        ["--checkout"],
        type=Place(file_okay=False),
        default=".",
        show_default=True,
        help="Checkout of the upstream.",
    ),
    click.Option(
        ["--metrics"],
        help="Metrics of `ddo eval` to compute, separated by commas. The first is the score.  [default: fid, is with "
        "inception, and pr if --ref holds images]",
    ),
    click.Option(["--features"], default=INCEPTION, show_default=True, help="Feature extractor, as for `ddo eval`."),
    click.Option(
        ["--num"],
        type=click.IntRange(min=2),
        default=EVALUATION_SAMPLES,
        show_default=True,
        help="Number of images for each seed.",
    ),
    click.Option(
        ["--seeds"],
        type=IntegerList(MOST_EVALUATIONS),
        default="0",
        show_default=True,
        help="Evaluation seeds, separated by commas. Seed k uses the image seeds k·num to (k+1)·num − 1.",
    ),
    click.Option(
        ["--labels"], default="uniform", show_default=True, help="Classes of the images, as for `ddo sample`."
    ),
    click.Option(["--batch"], type=click.IntRange(min=1), help="Batch size.  [default: upstream's]"),
    click.Option(
        ["--torchrun"],
        type=ShellWords(),
        metavar="OPTIONS",
        help="Sample in several processes, with these options of torchrun.",
    ),
    click.Option(
        ["--sampler"], type=ShellWords(), default="", metavar="ARGS", help="Extra arguments for `ddo sample`."
    ),
]


@click.command(params=[*OWN, *upstream_options()])
@interruptible()
@in_one_line()
def main(out: Path, seeds: list[int], num: int, metrics: str | None, **options: Any) -> None:
    """Compute metrics of a VAR network and write them as JSON.

    `ddo sample` makes the images and `ddo eval` measures them. Without --cfg the network is sampled without guidance.
    """
    names = metrics_named(metrics) if metrics else []
    _refuse_samples(options["network"])
    check_place(out)
    others = ["is"] if options["features"] == INCEPTION else []  # other features need not have logits
    names = names or usual_metrics(open_standard(options["ref"]), *others)
    if "pr" not in names:
        click.echo("ddo: recall is not measured; the metric pr measures it if --ref holds images", err=True)
    check_elsewhere(num, names, options["features"], options["ref"])
    results: list[dict[str, Any]] = []
    commands: list[str] = []
    with progress("evaluation", len(seeds)) as bar:
        for seed in seeds:
            results.append(_judge(out, range(seed * num, (seed + 1) * num), names, commands, options))
            bar.update()
    measured = list(dict.fromkeys([names[0], *results[0]["metrics"]]))  # `is` comes with its spread
    by_seed = [{"seed": seed, **result["metrics"]} for seed, result in zip(seeds, results, strict=True)]
    shared = {name: results[0][name] for name in ("network", "sampler", "labels", "reference", "features", "versions")}
    write_result(out, {**combine_seeds(by_seed, measured), "count": num, **shared, "commands": commands})


def _refuse_samples(network: str) -> None:
    if Path(network).is_dir() or Path(network).suffix.lower() in (".npz", ".zip"):
        raise UserError(
            f"{network} holds samples, and upstream has no script that measures them; use `ddo eval {network}` without "
            "--checkout"
        )


def _judge(out: Path, seeds: range, metrics: list[str], commands: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """Sample the images of these seeds beside the output, measure and delete them, and return the results."""
    npz, result = (out.absolute().with_name(f".{out.name}.{end}") for end in ("npz", "json"))
    sampled = [
        "network",
        "checkout",
        "labels",
        "batch",
        "torchrun",
        *(option.name or "" for option in upstream_options()),
    ]
    sampling = {name.replace("_", "-"): options[name] for name in sampled} | {
        "seeds": f"{seeds[0]}-{seeds[-1]}",
        "npz": npz,
    }
    measured = {"ref": options["ref"], "features": options["features"], "metrics": ",".join(metrics), "out": result}
    try:
        _ddo(["sample", *flags(sampling), *shlex.split(options["sampler"])], commands)
        _ddo(["eval", str(npz), *flags(measured)], commands)
        record = json.loads(record_beside(npz).read_text())
        origin = {"network": record["reference"], "sampler": record["sampler"], "labels": record["labels"]}
        return {**json.loads(result.read_text()), **origin}
    finally:
        for path in (npz, record_beside(npz), result):
            path.unlink(missing_ok=True)


def _ddo(arguments: list[str], commands: list[str]) -> None:
    """Run a `ddo` command in its own process."""
    commands.append(shlex.join(["ddo", *arguments]))
    status = subprocess.run([sys.executable, "-m", "ddo_plugin", *arguments], check=False).returncode
    if status == UserError.exit_code:
        raise SystemExit(status)  # the command has printed its own error
    if status != 0:
        raise UserError(f"{commands[-1]} ended with status {status}; see its output above")


if __name__ == "__main__":
    main()
