"""`--ddo-beta=auto` in the real EDM: ranks agree on β, and a resumed run keeps it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddo_plugin.finetuning import calibration, statistics
from ddo_plugin.snapshots import sidecar

pytestmark = pytest.mark.thorough

AUTO = ["--ddo-beta=auto", "--ddo-probe=8", "--duration=0.003", "--dump=1", "--lr=3e-4", "--ddo-continue"]


@pytest.mark.parametrize("torchrun", ["", "--standalone --nproc_per_node=2"], ids=["alone", "two ranks"])
def test_a_resumed_run_keeps_the_beta_that_the_probe_chose(torchrun: str, world, completed) -> None:
    out = world.root / f"auto-{len(torchrun)}"
    completed(world.finetune(*AUTO, f"--outdir={out}", "--ddo-pause-after=1", torchrun=torchrun))
    chosen = check(out)
    file = out / calibration.FILE_NAME
    if not torchrun:
        content = file.read_bytes()
        file.unlink()
        process = world.finetune(*AUTO, f"--outdir={out}")
        assert process.returncode == 2
        last = process.stdout.strip().splitlines()[-1]  # the loop sends both streams to one
        assert "no such file, but the probe of --ddo-beta=auto is over" in last
        file.write_bytes(content)
    completed(world.finetune(*AUTO, f"--outdir={out}", torchrun=torchrun))
    assert check(out) == chosen
    assert len(sidecar.steps(out)) == 3
    last = json.loads((out / "stats.jsonl").read_text().splitlines()[-1])
    assert last["DDO/beta"]["mean"] == pytest.approx(chosen)


def check(out: Path) -> float:
    """Check what a run wrote, and return its β."""
    chosen: float = json.loads((out / calibration.FILE_NAME).read_text())["beta"]
    rows = statistics.read(out / statistics.FILE_NAME)
    assert [row["probe"] for row in rows] == [1] * 8 + [0] * (len(rows) - 8)
    assert [row["step"] for row in rows] == list(range(len(rows)))
    assert {row["beta"] for row in rows[:8]} == {0.05}
    assert {row["beta"] for row in rows[8:]} == {chosen}
    assert chosen == pytest.approx(8 / sum(row[calibration.SPREAD] for row in rows[:8]))
    assert sidecar.read(sidecar.snapshots(out)[-1])["calibration"]["beta"] == chosen
    return chosen
