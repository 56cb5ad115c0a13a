"""Evaluate an EDM2 network, or its samples, with EDM2's own calculate_metrics.py.

`python -m ddo_integrations.edm2.evaluate --checkout=edm2 --network=PKL --ref=PKL --out=JSON`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ddo_integrations.edm2.encoders import encoder_entry
from ddo_integrations.nvlabs.evaluation import Job, Scripts, evaluate, evaluation_options, named_numbers
from ddo_plugin import flags, in_one_line, interruptible

METRICS = ("fid", "fd_dinov2")
SCRIPT = "calculate_metrics.py"


def judge_samples(job: Job, samples: Path, seed: int) -> dict[str, float]:
    """Run `calc` on a folder or zip; the seed chooses if there are more images than asked for."""
    return _metrics(job, "calc", images=samples, num=job.request.num, seed=seed)


def judge_directly(job: Job, seed: int) -> dict[str, float]:
    """Run `gen`, which writes no images."""
    request = job.request
    return _metrics(job, "gen", net=request.what, num=request.num, seed=request.image_seeds(seed)[0])


def _metrics(job: Job, subcommand: str, **arguments: object) -> dict[str, float]:
    request = job.request
    common = {"ref": request.ref, "metrics": ",".join(request.metrics), "batch": request.batch}
    return named_numbers(job.run(SCRIPT, subcommand, *flags({**arguments, **common})), request.metrics)


@click.command(params=evaluation_options(METRICS))
@interruptible()
@in_one_line()
def main(**options: Any) -> None:
    """Compute metrics of an EDM2 network and write them as JSON. --real adds precision and recall.

    Upstream's script draws the classes of the samples; --labels=uniform balances them.
    """
    sampler = ("generate_images.py", "net")
    scripts = Scripts(METRICS, (".pkl", ".npz"), sampler, judge_samples, judge_directly, encoder_entry)
    evaluate(scripts, options)


if __name__ == "__main__":
    main()
