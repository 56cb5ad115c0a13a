"""`ddo demo` with settings so small that a test can run it: `python tiny.py OUT [FAMILY...]`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from ddo_integrations.demo.play import Demo, run
from ddo_integrations.demo.settings import QUICK, Settings

SHORT = {
    "diffusion": replace(
        QUICK.families["diffusion"],
        pretraining={"steps": 300, "lr": 2e-3, "dump": 20},
        training={"steps": 40, "lr": 1e-4, "dump": 10},
        rounds=2,
        refset_count=100,
        evaluation_seeds=(1, 2),
        evaluation_count=100,
    ),
    "tokens": replace(
        QUICK.families["tokens"],
        pretraining={"steps": 100, "lr": 3e-3, "dropout": 0.25, "dump": 20},
        training={"steps": 40, "lr": 1e-3, "dump": 10},
        refset_count=100,
        evaluation_seeds=(1, 2),
        evaluation_count=100,
    ),
}
TINY = Settings(SHORT, {"base-steps": 20, "steps": 10})

if __name__ == "__main__":
    run(Demo(Path(sys.argv[1]), tuple(sys.argv[2:]) or ("diffusion", "tokens"), TINY))
