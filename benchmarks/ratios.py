"""Measure the ratios that `benchmarks.bounds` bounds and print them as JSON: `python -m benchmarks.ratios nothing`.

`DDO_DEVICE=cpu OMP_NUM_THREADS=1 python -m benchmarks.ratios UPSTREAM CHECKOUT` measures those of an upstream. Each
upstream needs its own process, because their modules have the same names.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import click

from benchmarks import scale, token_likelihood, unused
from benchmarks.bounds import BOUNDS, NO_CHECKOUT
from benchmarks.cpu_time import medians

REPEATS = 5  # steps
RUNS = 2  # pairs of runs of a training script


def likelihood() -> dict[str, float]:
    """Return the ratios of the log-probabilities of tokens."""
    measured = token_likelihood.in_processes()
    ours, naive = measured["token_logp_from_head"], measured["naive"]
    return {
        "log-probabilities from the head / naive, CPU time": ours["seconds"] / naive["seconds"],
        "log-probabilities from the head / naive, peak memory": ours["mebibytes"] / naive["mebibytes"],
    }


def steps(upstream: str, checkout: Path, folder: Path) -> dict[str, float]:
    """Return DDO's step against its parts and, for VAR, its sampler against upstream's."""
    scale.prepare(upstream, checkout)
    grid = scale.GRIDS[upstream]
    bench = scale.build(upstream, grid.size, folder)
    found = {"step / its parts, CPU time": scale.ratio(scale.measure(bench, grid.batch, REPEATS))}
    if upstream == "var":
        with bench.without_tokenizer():  # upstream's sampler decodes its tokens
            samplers = medians({"ours": partial(bench.sampler, "tokens"), "theirs": bench.upstreams_sampler}, REPEATS)
        found["our sampler / upstream's, CPU time"] = samplers["ours"] / samplers["theirs"]
    return found


def patch(upstream: str, checkout: Path, folder: Path) -> dict[str, float]:
    """Return the ratios of a patched checkout without --ddo."""
    runs = unused.Unused(upstream, checkout, folder)
    seconds, calls = unused.compared(runs.pairs(RUNS))
    found = {
        "calls of a step, patched without --ddo / pristine": calls.mean,
        "step, patched without --ddo / pristine, CPU time": seconds.mean,
    }
    if upstream != "var":  # its --help fails
        starts = unused.ratio([(start["pristine"], start["patched"]) for start in runs.starts(RUNS)])
        found["start, patched / pristine, CPU time"] = starts.mean
    return found


@click.command()
@click.argument("needs", type=click.Choice(list(BOUNDS)))
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path), required=False)
def main(needs: str, checkout: Path | None) -> None:
    """Print the ratios as the last line."""
    with tempfile.TemporaryDirectory() as temporary, contextlib.redirect_stdout(sys.stderr):
        if needs == NO_CHECKOUT:
            found = likelihood()
        elif checkout is None:
            raise click.UsageError(f"{needs} needs the path of its checkout")
        else:
            folder = Path(temporary)
            found = patch(needs, checkout.resolve(), folder / "patch") | steps(needs, checkout, folder / "network")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
