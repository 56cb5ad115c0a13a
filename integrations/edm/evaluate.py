"""Judge an EDM network, or samples of one, by EDM's own generate.py and fid.py.

`python -m ddo_integrations.edm.evaluate --checkout=edm --network=PKL --ref=NPZ --out=JSON`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ddo_integrations.nvlabs import evaluation
from ddo_integrations.nvlabs.evaluation import Job, evaluation_options
from ddo_plugin import flags

METRICS = ("fid",)


def judge_samples(job: Job, samples: Path, seed: int) -> dict[str, float]:
    """fid.py on a folder or zip; of more images than asked for, the seed chooses."""
    arguments = {"images": samples, "ref": job.ref, "num": job.num, "seed": seed, "batch": job.batch}
    printed = job.run("fid.py", "calc", *flags(arguments))
    return {"fid": evaluation.last_number(printed, "fid")}


def judge(job: Job, seed: int) -> dict[str, float]:
    """generate.py, then fid.py."""
    with evaluation.scratch_folder(job) as folder:
        job.generate("generate.py", "network", seed, folder)
        return judge_samples(job, folder, seed)


@click.command()
@evaluation_options(METRICS)
def main(**options: Any) -> None:
    """Write {"score": FID, ...}. Classes are drawn by generate.py; --labels=uniform balances them."""
    evaluation.evaluate(judge, judge_samples, known=METRICS, reads=(".npz",), **options)


if __name__ == "__main__":
    main()
