"""DDO in the real EDM2, on a CPU: `python -m benchmarks.digits_edm2 CHECKOUT --out DIR`. Ten minutes on two cores."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image

from benchmarks.digits import CONTROL, PER_CLASS, Bench, command, first_seed, last_snapshot
from ddo_integrations.demo.data import CLASSES, RESOLUTION

CHANNELS = 3  # EDM2 knows pixels of three channels and latents of four
BASE_NIMG, ROUND_NIMG = 384 << 10, 4 << 10
SCHEDULE = ["--batch=64", "--decay=0", "--ddo-rampup=0.002", "--ddo-ema=0.1", "--seed=0"]
INTERVALS = [f"--duration={ROUND_NIMG}", f"--snapshot={ROUND_NIMG}", "--status=1024", "--checkpoint=0"]
ROUND = [*SCHEDULE, *INTERVALS]
DDO = ["--ddo-alpha=2", "--ddo-beta=0.3"]
FAST, SLOW = "--lr=3e-4", "--lr=1e-4"
FIRST_SEED = 10_000_000  # the settings were found with lower ones
STEPS = "--steps=18"  # of both samplers; EDM's own number, for time's sake


class EDM2(Bench):
    """Upstream's presets begin at 64 channels: the base network comes from its training loop, called directly."""

    upstream, script, channels = "edm2", "train_edm2.py", CHANNELS
    arms: ClassVar = {"mle": [*ROUND, FAST, CONTROL], "mle-slow": [*ROUND, SLOW, CONTROL], "ddo": [*ROUND, FAST, *DDO]}
    sampling = (STEPS,)

    def pretrain(self) -> Path:
        """Pristine training_loop.py."""
        out = self.root / "base"
        driver = Path(__file__).parent / "in_checkout" / "edm2_base.py"
        self.run(out, "-m", "ddo_plugin.checkouts.compat", driver, self.zip, out, BASE_NIMG)
        return last_snapshot(out)

    def images(self, network: Path, part: int) -> np.ndarray:
        """Pristine generate_images.py."""
        out = network.parent / f"images-{part}"
        seeds = ",".join(map(str, balanced_seeds(FIRST_SEED + first_seed(part))))
        flags = [f"--net={network}", f"--outdir={out}", f"--seeds={seeds}", f"--batch={PER_CLASS}", STEPS]
        self.run(out, "-m", "ddo_plugin.checkouts.compat", self.repo / "generate_images.py", *flags)
        pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(out.glob("*.png"))])
        return pixels.mean(3).round().astype(np.uint8)[:, None]


def balanced_seeds(first: int) -> list[int]:
    """Seeds from `first` on whose samples have classes in equal shares: upstream draws them from the seed alone."""
    found: dict[int, list[int]] = {number: [] for number in range(CLASSES)}
    for seed in itertools.count(first):
        own = found[class_of(seed)]
        if len(own) < PER_CLASS:
            own.append(seed)
        elif all(len(seeds) == PER_CLASS for seeds in found.values()):
            return sorted(itertools.chain(*found.values()))
    raise AssertionError("unreachable")


def class_of(seed: int) -> int:
    """The class that generate_images.py gives a seed's image: its generator draws the noise first."""
    generator = torch.Generator().manual_seed(seed)
    torch.randn(CHANNELS, RESOLUTION, RESOLUTION, generator=generator)
    return int(torch.randint(CLASSES, (), generator=generator))


main = command(EDM2, "digits-edm2", "Base, control and DDO in the real EDM2, by Fréchet distance.")

if __name__ == "__main__":
    main()
