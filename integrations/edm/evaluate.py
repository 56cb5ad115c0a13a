"""Evaluate an EDM network, or its samples, with EDM's own generate.py and fid.py.

`python -m ddo_integrations.edm.evaluate --checkout=edm --network=PKL --ref=NPZ --out=JSON`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ddo_integrations.nvlabs.evaluation import Job, Scripts, evaluate, evaluation_options, last_number
from ddo_plugin import flags, in_one_line, interruptible

METRICS = ("fid",)


def judge_samples(job: Job, samples: Path, seed: int) -> dict[str, float]:
    """Run fid.py on a folder or zip; the seed chooses if there are more images than asked for."""
    request = job.request
    arguments = {"images": samples, "ref": request.ref, "num": request.num, "seed": seed, "batch": request.batch}
    return {"fid": last_number(job.run("fid.py", "calc", *flags(arguments)), "fid")}


@click.command(params=evaluation_options(METRICS))
@interruptible()
@in_one_line()
def main(**options: Any) -> None:
    """Compute the FID of an EDM network and write it as JSON. --real adds precision and recall.

    generate.py draws the classes of the samples; --labels=uniform balances them.
    """
    evaluate(Scripts(METRICS, (".npz",), ("generate.py", "network"), judge_samples), options)


if __name__ == "__main__":
    main()
