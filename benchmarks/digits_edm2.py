"""DDO in the real EDM2, on a CPU: `python -m benchmarks.digits_edm2 CHECKOUT --out DIR`.

Each training seed takes ten minutes on two cores.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image

from benchmarks.digits import CONTROL, PER_CLASS, SETS, Bench, command, first_seed, last_snapshot
from ddo_integrations.demo.data import CLASSES, RESOLUTION

CHANNELS = 3  # EDM2 supports pixels with three channels and latents with four
BASE_NIMG, ROUND_NIMG = 384 << 10, 4 << 10
SCHEDULE = ["--batch=64", "--decay=0", "--ddo-rampup=0.002", "--ddo-ema=0.1"]
INTERVALS = [f"--duration={ROUND_NIMG}", f"--snapshot={ROUND_NIMG}", "--status=1024", "--checkpoint=0"]
ROUND = [*SCHEDULE, *INTERVALS]
DDO = ["--ddo-alpha=2", "--ddo-beta=0.3"]
FAST, SLOW = "--lr=3e-4", "--lr=1e-4"
FIRST_SEED = 10_000_000  # the settings were chosen with lower seeds
STEPS = "--steps=18"  # of both samplers; EDM's default, which takes less time than EDM2's


class EDM2(Bench):
    """EDM2. Its presets have at least 64 channels, so the base network is trained by calling its training loop."""

    upstream, script, channels = "edm2", "train_edm2.py", CHANNELS
    arms: ClassVar = {"mle": [*ROUND, FAST, CONTROL], "mle-slow": [*ROUND, SLOW, CONTROL], "ddo": [*ROUND, FAST, *DDO]}
    sampling = (STEPS,)

    def pretrain(self) -> Path:
        """Train the base network with the unpatched training_loop.py."""
        out = self.root / "base"
        driver = Path(__file__).parent / "in_checkout" / "edm2_base.py"
        self.run(out, "-m", "ddo_plugin.checkouts.compat", driver, self.zip, out, BASE_NIMG)
        return last_snapshot(out)

    def images(self, network: Path) -> list[np.ndarray]:
        """Sample balanced images with the unpatched generate_images.py."""
        return [self.set_of_images(network, part) for part in range(SETS)]

    def set_of_images(self, network: Path, part: int) -> np.ndarray:
        """Return images [N, 1, 8, 8]."""
        out = network.parent / f"images-{part}"
        seeds = ",".join(map(str, balanced_seeds(FIRST_SEED + first_seed(part))))
        flags = [f"--net={network}", f"--outdir={out}", f"--seeds={seeds}", f"--batch={PER_CLASS}", STEPS]
        self.run(out, "-m", "ddo_plugin.checkouts.compat", self.repo / "generate_images.py", *flags)
        pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(out.glob("*.png"))])
        return pixels.mean(3).round().astype(np.uint8)[:, None]


def balanced_seeds(first: int) -> list[int]:
    """Return seeds, from `first` on, that give equal numbers of all classes. Upstream draws a class from the seed."""
    seeds_of: dict[int, list[int]] = {number: [] for number in range(CLASSES)}
    for seed in itertools.count(first):
        own = seeds_of[class_of(seed)]
        if len(own) < PER_CLASS:
            own.append(seed)
        elif all(len(seeds) == PER_CLASS for seeds in seeds_of.values()):
            return sorted(itertools.chain(*seeds_of.values()))
    raise AssertionError("unreachable")


def class_of(seed: int) -> int:
    """Return the class that generate_images.py draws for a seed, after it has drawn the noise."""
    generator = torch.Generator().manual_seed(seed)
    torch.randn(CHANNELS, RESOLUTION, RESOLUTION, generator=generator)
    return int(torch.randint(CLASSES, (), generator=generator))


main = command(EDM2, "digits-edm2", "Compare base, control and DDO in the real EDM2 by Fréchet distance.")

if __name__ == "__main__":
    main()
