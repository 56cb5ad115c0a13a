"""Judge an EDM2 network, or samples of one, by EDM2's own calculate_metrics.py.

`python -m ddo_integrations.edm2.evaluate --checkout=edm2 --network=PKL --ref=PKL --out=JSON`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ddo_integrations.nvlabs import evaluation
from ddo_integrations.nvlabs.evaluation import Job, evaluation_options
from ddo_plugin import flags

METRICS = ("fid", "fd_dinov2")
SCRIPT = "calculate_metrics.py"


def judge_samples(job: Job, samples: Path, seed: int) -> dict[str, float]:
    """`calc` on a folder or zip; of more images than asked for, the seed chooses."""
    return _metrics(job, "calc", images=samples, num=job.num, seed=seed)


def judge(job: Job, seed: int) -> dict[str, float]:
    """`gen`, which writes no image; with arguments such as --guidance generate_images.py, then `calc`."""
    if not job.sampler:
        return _metrics(job, "gen", net=job.what, num=job.num, seed=job.image_seeds(seed)[0])
    with evaluation.scratch_folder(job) as folder:
        job.generate("generate_images.py", "net", seed, folder)
        return judge_samples(job, folder, seed)


def _metrics(job: Job, subcommand: str, **arguments: object) -> dict[str, float]:
    common = {"ref": job.ref, "metrics": ",".join(job.metrics), "batch": job.batch}
    printed = job.run(SCRIPT, subcommand, *flags({**arguments, **common}))
    return evaluation.named_numbers(printed, job.metrics)


@click.command()
@evaluation_options(METRICS)
def main(**options: Any) -> None:
    """Write {"score": the first metric, ...}. Classes are drawn by upstream; --labels=uniform balances them."""
    evaluation.evaluate(judge, judge_samples, known=METRICS, reads=(".pkl", ".npz"), **options)


if __name__ == "__main__":
    main()
