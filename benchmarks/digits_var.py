"""Finetune a small VAR on digits with DDO, on a CPU: `python -m benchmarks.digits_var CHECKOUT --out DIR`.

Pristine VAR trains a network of one block on scikit-learn's digits, as pyramids of 1 + 4 + 16 tokens. Patched train.py
finetunes it with DDO and, as the control, with more maximum likelihood. Pristine autoregressive_infer_cfg samples all
networks. Only the image tokenizer is not upstream's: var/stand_ins replaces it by a coding of patches, and replaces a
missing torchvision like the tests of VAR. Each training seed takes a quarter of an hour on two cores. Run the same
command again to continue after an interruption.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from PIL import Image

from benchmarks.digits import Workshop
from ddo_integrations.demo.data import CLASSES, Digits
from ddo_plugin.base.files import write_json
from ddo_plugin.evaluation.metrics.frechet import feature_moments, frechet_distance
from ddo_plugin.finetuning import statistics as stats
from ddo_plugin.jobs.runner import key

HERE = Path(__file__).parent
TOKENIZER = "vae_ch160v4096z32.pth"  # train.py looks for it in the current folder
SIDES = (1, 2, 4)
CODES = 3 * 64  # codes in use; all others, which only an untrained network draws, count as one code
NETWORK = ["--depth=1", "--pn=1_2_4", "--patch_size=2", "--mid_reso=1", "--bs=128"]
EPOCHS, STEPS = 15, 150  # an epoch has 15 steps; the base is undertrained, more training would improve it
BASE = ["--tblr=6e-3"]
ROUND = [f"--ddo_iters={STEPS}", "--ddo_save=1000", "--tblr=1e-2"]
DDO = ["--ddo_alpha=0.5", "--ddo_beta=0.1"]
TOKENS, DECAY = "--ddo_fakes_from=tokens", "--wpe=0.01"  # what the defaults were before they were the authors'
ARMS = {
    "mle": ["--ddo_objective=mle"],
    "ddo": DDO,
    "ddo, tokens": [*DDO, TOKENS],
    "mle, wpe 0.01": ["--ddo_objective=mle", DECAY],
    "ddo, tokens, wpe 0.01": [*DDO, TOKENS, DECAY],
}
SEEDS = 3  # of trainings
SETS, PER_CLASS = 4, 300


@dataclass(frozen=True)
class Samples:
    """Digits as tokens, and as the images that the tokens decode to."""

    tokens: np.ndarray  # [N, L]
    images: np.ndarray  # uint8 [N, 1, 8, 8]
    labels: np.ndarray  # [N]

    def __getitem__(self, rows: np.ndarray) -> Samples:
        return Samples(self.tokens[rows], self.images[rows], self.labels[rows])

    def maps(self) -> list[np.ndarray]:
        """Return the tokens [N, side, side] of each scale, coarse to fine."""
        codes = np.minimum(self.tokens, CODES)
        parts = np.split(codes, np.cumsum([side * side for side in SIDES])[:-1], 1)
        return [part.reshape(len(codes), side, side) for part, side in zip(parts, SIDES, strict=True)]

    def codes(self, scale: int) -> np.ndarray:
        """Return the frequency [classes, CODES + 1] of each code at a scale."""
        by_class = [self.maps()[scale][self.labels == label] for label in range(CLASSES)]
        return np.stack([shares(codes, CODES + 1) for codes in by_class])

    def neighbours(self) -> np.ndarray:
        """Return the frequencies [24, (CODES + 1)²] of horizontal and vertical pairs of codes at the finest scale."""
        fine = self.maps()[-1]
        beside = (fine[:, :, :-1] * (CODES + 1) + fine[:, :, 1:]).reshape(len(fine), -1)
        above = (fine[:, :-1] * (CODES + 1) + fine[:, 1:]).reshape(len(fine), -1)
        return np.stack([shares(place, (CODES + 1) ** 2) for place in np.concatenate([beside, above], 1).T])


def shares(numbers: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(numbers.ravel(), minlength=size) / numbers.size


def total_variation(some: np.ndarray, others: np.ndarray) -> float:
    """Return the mean total variation between distributions in rows."""
    return float(np.abs(some - others).sum(1).mean() / 2)


class Judge:
    """Distances from the digits: between distributions of tokens, and between images in a classifier's features."""

    def __init__(self, digits: Digits, real: Samples):
        self.real, self.features = real, digits.features
        self.moments = feature_moments(self.features(real.images))

    def __call__(self, samples: Samples) -> dict[str, float]:
        distances = {}
        for scale, side in enumerate(SIDES):
            distances[f"codes, {side}×{side}"] = total_variation(samples.codes(scale), self.real.codes(scale))
        distances["neighbours"] = total_variation(samples.neighbours(), self.real.neighbours())
        distances["Fréchet distance"] = frechet_distance(feature_moments(self.features(samples.images)), self.moments)
        return distances

    def floor(self) -> list[dict[str, float]]:
        """Return the distances of resampled digits, below which no model can be expected to come."""
        draw = np.random.default_rng(0)
        labels = [np.flatnonzero(self.real.labels == label) for label in range(CLASSES)]
        sets = [np.concatenate([draw.choice(rows, PER_CLASS) for rows in labels]) for _ in range(SETS)]
        return [self(self.real[rows]) for rows in sets]


class Bench(Workshop):
    """The commands that train the base, DDO and the control, and sample each."""

    @property
    def path(self) -> Sequence[Path]:
        return [self.repo, HERE / "var/stand_ins", HERE.parent / "tests/upstream/var/stand_ins"]

    def prepare(self) -> Judge:
        self.run(self.digits.path, "-m", "ddo_integrations.demo.prepare", f"--out={self.digits.path}")
        for part in ("train", "val"):  # upstream wants both; they hold the same images
            for number, (image, label) in enumerate(zip(self.digits.images, self.digits.labels, strict=True)):
                folder = self.root / "images" / part / str(label)
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image[0]).save(folder / f"{number:04d}.png")
        tokenised = self.root / "tokens.npz"
        self.run(tokenised, HERE / "var/make_tokenizer.py", self.digits.path, self.root / TOKENIZER, tokenised)
        return Judge(self.digits, Samples(**np.load(tokenised), labels=self.digits.labels))

    def pretrain(self, name: str, epochs: int, seed: int) -> Path:
        """Train with pristine train.py."""
        flags = [*NETWORK, *BASE, f"--seed={seed}", f"--ep={epochs}", f"--data_path={self.root / 'images'}"]
        out = self.root / f"{name}-{key({'flags': flags})}"
        self.run(
            out, "-m", "ddo_plugin.checkouts.compat", self.repo / "train.py", *flags, f"--local_out_dir_path={out}"
        )
        plain = out / "var.pth"
        return self.run(plain, "-m", "ddo_plugin", "convert", out / "ar-ckpt-last.pth", plain)

    def finetune(self, arm: str, base: Path, seed: int) -> Path:
        """Run a round of patched train.py."""
        flags = [*NETWORK, *ROUND, f"--seed={seed}", f"--data_path={self.root / 'images'}", f"--ddo={base}"]
        flags += ARMS[arm]
        out = self.root / f"{arm.split(',')[0]}-{key({'flags': flags})}"
        own = [*flags, f"--local_out_dir_path={out}"]
        self.run(out, "-m", "ddo_plugin", "run", self.repo, "train.py", "--", *own)
        return out / f"var_d1-ddo-{STEPS:04d}.pth"

    def sample(self, network: Path) -> list[Samples]:
        """Sample each set with pristine autoregressive_infer_cfg. Every network uses the same seeds."""
        out = network.with_suffix(".npz")
        self.run(out, HERE / "var/sample.py", self.root / TOKENIZER, network, out, SETS, PER_CLASS)
        drawn = np.load(out)
        labels = np.arange(CLASSES).repeat(PER_CLASS)
        return [
            Samples(tokens, images, labels) for tokens, images in zip(drawn["tokens"], drawn["images"], strict=True)
        ]


def prove(bench: Bench, judge: Judge, seed: int) -> dict[str, dict[str, float]]:
    """Return the distances of each network of a training seed, averaged over the sets."""
    with ThreadPoolExecutor() as threads:
        longer = threads.submit(bench.pretrain, "longer", EPOCHS + STEPS // 15, seed)
        base = bench.pretrain("base", EPOCHS, seed)
        arms = {arm: threads.submit(bench.finetune, arm, base, seed) for arm in ARMS}
        networks = {"base": base, "longer": longer.result()} | {arm: future.result() for arm, future in arms.items()}
        sampled = dict(zip(networks, threads.map(bench.sample, networks.values()), strict=True))
    learned = stats.read(networks["ddo"].with_name(stats.FILE_NAME))
    first, last = (accuracy(rows) for rows in (learned[: STEPS // 10], learned[-STEPS // 10 :]))
    print(f"seed {seed}, discriminator's accuracy: {first:.2f} in the first tenth, {last:.2f} in the last", flush=True)
    changed = np.load(networks["base"].with_suffix(".npz"))["changed"]
    print(f"seed {seed}, tokens of the base that change when they are decoded and encoded: {changed:.1%}", flush=True)
    return {name: average([judge(samples) for samples in sets]) for name, sets in sampled.items()}


def average(distances: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.mean(of_set[name] for of_set in distances) for name in distances[0]}


def accuracy(rows: list[dict[str, float]]) -> float:
    """Return the mean accuracy of the implicit discriminator on real and fake data."""
    return statistics.mean((row["accuracies/real"] + row["accuracies/fake"]) / 2 for row in rows)


def show(judged: dict[str, list[dict[str, float]]]) -> None:
    columns = list(judged["base"][0])
    print(f"\n| samples of | {' | '.join(columns)} |\n|---{'|---' * len(columns)}|")
    for name, seeds in judged.items():
        cells = [[distances[column] for distances in seeds] for column in columns]
        print(f"| {name} | {' | '.join(f'{statistics.mean(c):.3g} ± {statistics.stdev(c):.2g}' for c in cells)} |")


@click.command()
@click.argument("checkout", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default="digits-var",
    show_default=True,
    help="Folder to write.",
)
@click.option("--cores", type=click.IntRange(min=1), default=2, show_default=True, help="Number of CPU cores.")
def main(checkout: Path, out: Path, cores: int) -> None:
    """Compare base, control and DDO in VAR by their tokens and by Fréchet distance."""
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench(checkout.resolve(), out.resolve(), cores)
    judge = bench.prepare()
    proofs = [prove(bench, judge, seed) for seed in range(SEEDS)]
    judged = {name: [proof[name] for proof in proofs] for name in proofs[0]} | {"digits": judge.floor()}
    write_json(out / "distances.json", judged)
    show(judged)


if __name__ == "__main__":
    main()
