"""Write `recipes/networks.json`, which `ddo plan` reads where a published network is not at hand.

`python -m benchmarks.networks EDM EDM2 VAR` takes the three checkouts. It makes networks of the published sizes with
random weights (`benchmarks/gpu/make_networks.py`) in a temporary folder, and counts them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "recipes" / "networks.json"
FILES = {  # file that `make_networks` writes -> its upstream, and the published networks of its size
    "edm.pkl": ("edm", ["edm-cifar10-32x32-cond-vp.pkl", "edm-cifar10-32x32-uncond-vp.pkl"]),
    "edm2-s.pkl": ("edm2", ["edm2-img64-s-1073741-0.075.pkl"]),
    "edm2-l.pkl": ("edm2", ["edm2-img512-l-1879048-0.085.pkl"]),
    "var_d16.pth": ("var", ["var_d16.pth"]),
    "var_d30.pth": ("var", ["var_d30.pth"]),
}
COUNT = (
    "import sys, json, dataclasses, pathlib; from ddo_plugin.checkouts import compat; compat.apply();"
    "from ddo_plugin.hooks import plugins;"
    "print(json.dumps([dataclasses.asdict(plugins.manager().hook.ddo_count("
    "upstream=sys.argv[1], network=pathlib.Path(path))) for path in sys.argv[2:]]))"
)


@click.command()
@click.argument("edm", type=click.Path(exists=True, file_okay=False))
@click.argument("edm2", type=click.Path(exists=True, file_okay=False))
@click.argument("var", type=click.Path(exists=True, file_okay=False))
def main(**checkouts: str) -> None:
    """Count the networks of the paper."""
    table: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for upstream, checkout in checkouts.items():
            names = [name for name, (of, _) in FILES.items() if of == upstream]
            paths = [str(Path(folder) / name) for name in names]
            env = {**os.environ, "PYTHONPATH": os.pathsep.join([checkout, str(ROOT)])}
            make = [sys.executable, "-m", "benchmarks.gpu.make_networks", upstream, folder]
            subprocess.run(make, env=env, check=True)
            counted = subprocess.run(
                [sys.executable, "-c", COUNT, upstream, *paths], env=env, check=True, stdout=subprocess.PIPE
            )
            for name, counts in zip(names, json.loads(counted.stdout), strict=True):
                table |= dict.fromkeys(FILES[name][1], counts)
    TABLE.write_text(json.dumps(table, indent=2) + "\n")


if __name__ == "__main__":
    main()
