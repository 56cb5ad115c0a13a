"""DDO in the real EDM, on a CPU: `python -m benchmarks.digits_edm CHECKOUT --out DIR`.

Takes an hour of one core and a few minutes for the base; `--cores` and `--seeds` split the work.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from benchmarks.digits import CONTROL, PER_CLASS, SETS, Bench, command, first_seed, last_snapshot
from ddo_integrations.demo.data import CLASSES, RESOLUTION

NETWORK = ["--arch=ddpmpp", "--cbase=16", "--cres=1,2", "--augment=0"]
COMMON = ["--cond=1", "--batch=64", "--tick=4", "--dump=1000"]
ROUND_KIMG = 16
# Upstream's learning rate rises over 10 Mimg, whatever the duration is: 0.06 becomes 1e-3 at 160 kimg.
BASE = ["--lr=0.06", "--ema=0.01", "--snap=10"]
SCHEDULE = ["--lr=1e-4", "--ddo-rampup=0.004", "--ema=0.004", "--augment=0", "--snap=100"]
ROUND = [*SCHEDULE, *COMMON, "--nosubdir", f"--duration={ROUND_KIMG / 1000}"]
DDO = ["--ddo-alpha=2", "--ddo-beta=1"]


class EDM(Bench):
    """EDM. Its generate.py samples one class at a time, because without --class it draws random classes."""

    upstream, script, channels = "edm", "train.py", 1
    base_kimg = 160
    arms: ClassVar = {
        "mle": [*ROUND, CONTROL],
        "ddo": [*ROUND, *DDO, "--ddo-noise=paired"],
        "ddo-independent": [*ROUND, *DDO, "--ddo-noise=independent"],
    }

    def pretrain(self) -> Path:
        """Train the base network with the unpatched train.py."""
        out = self.root / "base"
        flags = [*NETWORK, *COMMON, "--seed=0", "--nosubdir", *BASE]
        flags += [f"--data={self.zip}", f"--outdir={out}", f"--duration={self.base_kimg / 1000}"]
        self.run(out, "-m", "ddo_plugin.checkouts.compat", self.repo / "train.py", *flags)
        return last_snapshot(out)

    def images(self, network: Path) -> list[np.ndarray]:
        """Sample balanced images with the unpatched generate.py; one command samples a class of all sets."""
        with ThreadPoolExecutor() as threads:
            classes = threads.map(lambda number: self.images_of_class(network, number), range(CLASSES))
        return list(np.concatenate(list(classes), 1))

    def images_of_class(self, network: Path, number: int) -> np.ndarray:
        """Return images [sets, N, 1, 8, 8] of a class."""
        seeds = [first_seed(part) + 1000 * number for part in range(SETS)]
        ranges = ",".join(f"{first}-{first + PER_CLASS - 1}" for first in seeds)
        out = network.parent / f"images-{number}"
        flags = [f"--network={network}", f"--outdir={out}", f"--seeds={ranges}"]
        own = [f"--class={number}", f"--batch={PER_CLASS}"]
        self.run(out, "-m", "ddo_plugin.checkouts.compat", self.repo / "generate.py", *flags, *own)
        pixels = [np.asarray(Image.open(path)) for path in sorted(out.glob("*.png"))]
        return np.stack(pixels).reshape(SETS, PER_CLASS, 1, RESOLUTION, RESOLUTION)


main = command(EDM, "digits-edm", "Compare base, control and DDO in the real EDM by Fréchet distance.")

if __name__ == "__main__":
    main()
