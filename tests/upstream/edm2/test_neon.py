"""`train_edm2.py --ddo-objective=neon` in the real EDM2 on a CPU: EDM2's own loss on fakes instead of real images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddo_plugin.finetuning import statistics
from ddo_plugin.snapshots import sidecar
from tests.upstream.snapshots import tensors

OWN_LOSS = Path(__file__).parents[1] / "own_loss.py"
DIGEST = Path(__file__).with_name("digest.py")
FLAGS = ["--ddo-objective=neon", "--duration=2048", "--lr=1e-2", "--ddo-rampup=0"]
LAST, STATE = "network-snapshot-0000002-0.050.pkl", "training-state-0000002.pt"


@pytest.fixture(scope="module")
def trained(world, completed) -> Path:
    """Two kimg, watched for a collapse that cannot be told of."""
    out = world.root / "neon"
    completed(world.finetune(*FLAGS, f"--outdir={out}", "--ddo-stop-on-collapse=0.01"))
    return out


def test_losses_and_gradients_are_those_of_upstreams_own_loss_bit_for_bit(world, completed, tmp_path) -> None:
    arguments = [OWN_LOSS, "edm2", world.base, world.fakes, tmp_path / "out"]
    found = json.loads(completed(world.python(*arguments, PYTHONPATH=str(world.repo))).splitlines()[-1])
    assert found["losses"] and found["gradients"]
    assert found["number of gradients"] > 10


def test_its_statistics_are_of_fakes_alone(trained: Path) -> None:
    rows = statistics.read(trained / statistics.FILE_NAME)
    assert [row["step"] for row in rows] == list(range(16))
    assert rows[0].keys() == {"step", "loss/fake", "logps/fake", "nonfinite"}
    assert all(row["nonfinite"] == 0 for row in rows)


def test_pristine_generate_images_samples_the_snapshot_without_our_package(trained: Path, world, pristine) -> None:
    image = pytest.importorskip("PIL.Image")
    flags = [f"--net={trained / LAST}", f"--outdir={world.root / 'neon-samples'}", "--seeds=0-1", "--steps=4"]
    pristine("generate_images", *flags)
    samples = list((world.root / "neon-samples").rglob("*.png"))
    assert [image.open(sample).size for sample in samples] == [(8, 8)] * 2


def test_it_moves_away_from_the_reference_and_trains_the_uncertainty_too(trained: Path, world) -> None:
    start = tensors(trained / "network-snapshot-0000000-0.050.pkl")
    moved = {name for name, tensor in tensors(trained / LAST).items() if not tensor.equal(start[name])}
    assert "logvar_linear.weight" in moved
    assert len(moved) > 10


def test_a_paused_round_ends_as_an_uninterrupted_one_bit_for_bit(trained: Path, world, completed) -> None:
    out = world.root / "neon-paused"
    completed(world.finetune(*FLAGS, f"--outdir={out}", "--ddo-pause-after=1"))
    assert len(sidecar.steps(out)) == 1
    completed(world.finetune(*FLAGS, f"--outdir={out}"))
    digests = [
        json.loads(completed(world.python(DIGEST, folder / STATE, PYTHONPATH=str(world.repo))))
        for folder in (trained, out)
    ]
    assert digests[0] == digests[1]


def test_it_needs_fakes(world, refused) -> None:
    line = refused(world.train(f"--ddo={world.base}", *FLAGS, "--outdir=nowhere"))
    assert "--ddo needs --ddo-fakes=PATH" in line
