"""Run the benchmarks whose ratios `benchmarks.bounds` bounds, and fail if a ratio is off by a wide margin."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import click

from benchmarks.bounds import BOUNDS, CHECKOUTS, Verdict, judge, skipped
from benchmarks.gpu.pack import checkouts_folder
from benchmarks.gpu.report import table

ON_CPU = {"DDO_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}


def measured(needs: str) -> list[Verdict]:
    """Measure the ratios that need this upstream's checkout, or nothing, in a process, and judge them."""
    arguments = []
    if needs in CHECKOUTS:
        checkout = checkouts_folder() / CHECKOUTS[needs]
        if not checkout.is_dir():
            return [skipped(needs, f"no checkout in {checkout}; clone the upstream there, or set DDO_UPSTREAMS")]
        arguments = [str(checkout)]
    command = [sys.executable, "-m", "benchmarks.ratios", needs, *arguments]
    done = subprocess.run(command, env=os.environ | ON_CPU, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
    return judge(needs, json.loads(done.stdout) if done.returncode == 0 else {}, BOUNDS[needs])


@click.command()
def main() -> None:
    """Measure ratios in minutes and print them; the exit status is 1 if one is off by a wide margin."""
    begin, verdicts = time.monotonic(), list[Verdict]()
    for needs in BOUNDS:
        print(f"measuring what needs {needs} …", file=sys.stderr, flush=True)
        verdicts += measured(needs)
    print(table(("needs", "ratio", "expected", "measured", ""), [verdict.row for verdict in verdicts]))
    print(f"\n{time.monotonic() - begin:.0f} seconds")
    sys.exit(any(verdict.fails for verdict in verdicts))


if __name__ == "__main__":
    main()
