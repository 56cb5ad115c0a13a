"""Neon on the demo's digits, with the settings of `recipes/neon-digits.toml`: `python -m benchmarks.neon OUT`.

Trains on fakes, and for comparison one round of DDO and the control, with three training seeds each. Prints the Fréchet
distance, precision and recall of each, and those at several w between reference and trained network and beyond them,
with sampling seeds that nothing was chosen by. Takes about ten minutes on two CPU cores; if it is started again, it
keeps what was finished.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from importlib.resources import as_file
from pathlib import Path
from typing import Any

import click
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.gpu.report import table
from ddo_integrations.demo.families import build
from ddo_integrations.demo.generator import draw
from ddo_integrations.demo.names import FEATURES
from ddo_plugin import feature_moments, features_named, frechet_distance
from ddo_plugin.base.progress import Progress
from ddo_plugin.evaluation.metrics.precision_recall import precision_recall
from ddo_plugin.selfplay.recipe.load import load
from ddo_plugin.selfplay.recipe.shipped import shipped

BASE = {"steps": 3000, "lr": 1e-3, "decay": 0.5, "ema": 100}  # as at the top of the recipe
WEIGHTS = (1.0, -1.0, -1.5, -2.0, -2.5, -3.0)
TRAINING_SEEDS, SAMPLING_SEEDS, COUNT = (0, 1, 2), (201, 202, 203), 2000
ARMS: dict[str, dict[str, object]] = {
    "neon": {},
    "ddo": {"ddo-alpha": 2.0, "ddo-beta": 0.3},
    "mle": {},
}


def run(out: Path, module: str, flags: dict[str, Any], *words: str) -> Path:
    """Run a command that writes the folder `out`, unless it was run to its end before."""
    done = out / "done"
    if not done.exists():
        options = [f"--{name}={value}" for name, value in flags.items()]
        subprocess.run([sys.executable, "-m", module, *words, *options], check=True)
        done.touch()
    return out


class Judge:
    """Judges weights by samples of the sampling seeds."""

    def __init__(self, data: Path):
        self.family = build("diffusion", data)
        self.extract = features_named(f"{FEATURES}{data}").extract
        self.real = self.extract(self.family.to_images(self.family.real_samples()).numpy())

    def __call__(self, state: dict[str, Tensor]) -> list[tuple[float, float, float]]:
        """Return distance, precision and recall for each seed."""
        network = self.family.network()
        network.load_state_dict(state)
        found = []
        for seed in SAMPLING_SEEDS:
            samples, _ = draw(self.family, network.eval(), COUNT, seed, Progress("", COUNT))
            features = self.extract(self.family.to_images(samples).numpy())
            distance = frechet_distance(feature_moments(features), feature_moments(self.real))
            found.append((distance, *precision_recall(features, self.real)))
        return found


def row(name: str, of_trainings: list[list[tuple[float, float, float]]]) -> tuple[str, ...]:
    """Return means over all seeds, and the spread of the distance over the training seeds."""
    distances = [statistics.mean(seed[0] for seed in seeds) for seeds in of_trainings]
    precision, recall = (statistics.mean(seed[i] for seeds in of_trainings for seed in seeds) for i in (1, 2))
    spread = f" ± {statistics.stdev(distances):.2f}" if len(distances) > 1 else ""
    return name, f"{statistics.mean(distances):.2f}{spread}", f"{precision:.2f}", f"{recall:.2f}"


@click.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
def main(out: Path) -> None:
    """Train what is missing in OUT, and print the table."""
    torch.set_num_threads(1)
    with as_file(shipped()["neon-digits"]) as file:
        round_ = load(file).rounds[0]
    out.mkdir(parents=True, exist_ok=True)
    demo, data = "ddo_integrations.demo", out / "data"
    run(data, f"{demo}.prepare", {"out": data})
    own = {"family": "diffusion", "data": data}
    base = run(out / "base", f"{demo}.train", {**own, **BASE, "outdir": out / "base"}) / "network-003000.safetensors"
    making = {**own, "upstream": "digits", "network": base, "out": out / "fakes", "seed": 1}
    fakes = run(out / "fakes", "ddo_plugin", {**making, "count": round_.refset_count}, "refset", "make")
    training = {name: round_.training[name] for name in ("steps", "lr", "warmup", "ema")}
    judge, start = Judge(data), load_file(base)
    rows = [row("base", [judge(start)])]
    for arm, settings in ARMS.items():
        ends = []
        for seed in TRAINING_SEEDS:
            folder = out / f"{arm}-{seed}"
            ddo = {"ddo": base, "ddo-fakes": fakes, "ddo-objective": arm, **settings}
            run(folder, f"{demo}.train", {**own, **training, **ddo, "seed": seed, "outdir": folder})
            ends.append(load_file(next(folder.glob("*.safetensors"))))
        for w in WEIGHTS if arm == "neon" else (1.0,):
            moved = [{name: start[name] + w * (end[name] - start[name]) for name in start} for end in ends]
            rows.append(row(f"{arm}, w = {w:g}", [judge(state) for state in moved]))
    print(table(("network", "Fréchet distance", "precision", "recall"), rows))


if __name__ == "__main__":
    main()
