"""A round of EDM2 goes on from what version 0.1.0 stored of it in a training state, with the noise of that time."""

from __future__ import annotations

import json
import math

FLAGS = ["--batch=64", "--lr=1e-2", "--decay=4", "--ddo-rampup=0.002"]
INDEPENDENT = "--ddo-noise=independent"
REPLACE = """
import json, sys, torch
state = torch.load(sys.argv[1], weights_only=False)
state["loss_fn"] = json.loads(sys.argv[2])
torch.save(state, sys.argv[1])
"""


def test_a_round_goes_on_from_what_an_earlier_version_stored(world, completed, refused, legacy) -> None:
    out = world.root / "legacy"
    completed(world.finetune(*FLAGS, INDEPENDENT, "--duration=1024", f"--outdir={out}"))
    state, stored = out / "training-state-0000001.pt", json.dumps(legacy("edm2/loss_fn.json"))
    completed(world.python("-c", REPLACE, state, stored, PYTHONPATH=str(world.repo)))

    line = refused(world.finetune(*FLAGS, "--duration=2048", f"--outdir={out}"))
    assert "belongs to a round with --ddo-noise=independent, not paired" in line
    printed = completed(world.finetune(*FLAGS, INDEPENDENT, "--duration=2048", f"--outdir={out}"))
    assert "Training from 0 kimg" not in printed
    rows = [json.loads(line) for line in (out / "ddo-stats.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(2048 // 64))
    assert all(math.isfinite(row["loss/real"]) for row in rows)
