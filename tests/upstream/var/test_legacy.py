"""A round of VAR goes on from what version 0.1.0 stored of it in a training state."""

from __future__ import annotations

import json
import math

import torch

ROUND = ["--bs=16", "--ddo_beta=0.05", "--ddo_iters=2", "--ddo_save=1", "--ddo_state=1", "--tblr=5e-3", "--ac=2"]
# Settings of that time which the state does not record.
THEN = ["--ddo_fakes_from=tokens", "--ddo_fakes_precision=amp", "--ddo_schedule=round", "--wpe=0.01"]


def test_a_round_goes_on_from_what_an_earlier_version_stored(world, completed, refused, legacy) -> None:
    out = world.root / "legacy"
    command = world.train_command(f"--ddo={world.base}", *ROUND, f"--local_out_dir_path={out}")
    completed(world.python(*command, "--ddo-pause-after=1"))
    state = torch.load(out / "ar-ckpt-ddo.pth", weights_only=True)
    state["trainer"]["ddo"].update(legacy("var/ddo.json"))  # beside it, the generators' states stay
    torch.save(state, out / "ar-ckpt-ddo.pth")

    assert "belongs to a round with --ddo-fakes-from=tokens, not pixels" in refused(world.python(*command))
    assert "belongs to a round with wpe=0.01, not 0.1" in refused(world.python(*command, *THEN[:-1]))
    completed(world.python(*command, *THEN))
    assert "resume from ep0, it2" in (out / "stdout.txt").read_text()
    rows = [json.loads(line) for line in (out / "ddo-stats.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1]
    assert all(math.isfinite(row["loss/real"]) for row in rows)
