"""A round of EDM goes on from what version 0.1.0 noted of it in training_options.json, with the noise of that time."""

from __future__ import annotations

import json
import math

FLAGS = ["--dump=1", "--lr=3e-4", "--ddo-continue", "--ddo-rampup=0"]
INDEPENDENT = "--ddo-noise=independent"


def test_a_round_goes_on_from_what_an_earlier_version_noted(world, completed, refused, legacy) -> None:
    out = world.root / "legacy"
    completed(world.finetune(*FLAGS, INDEPENDENT, "--duration=0.001", f"--outdir={out}"))
    (out / "training_options.json").write_text(json.dumps(legacy("edm/training_options.json")))

    line = refused(world.finetune(*FLAGS, "--duration=0.002", f"--outdir={out}"))
    assert "belongs to a round with --ddo-noise=independent, not paired" in line
    printed = completed(world.finetune(*FLAGS, INDEPENDENT, "--duration=0.002", f"--outdir={out}"))
    assert "Loading training state from" in printed
    rows = [json.loads(line) for line in (out / "ddo-stats.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps))
    assert steps[-1] >= 1984 // 32
    assert all(math.isfinite(row["loss/real"]) for row in rows)
