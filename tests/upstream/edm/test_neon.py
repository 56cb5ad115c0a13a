"""`train.py --ddo-objective=neon` in the real EDM on a CPU: EDM's own loss on fakes in the place of the real images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddo_plugin.finetuning import statistics
from ddo_plugin.snapshots import sidecar
from tests.upstream.edm.test_training import GENERATE
from tests.upstream.snapshots import tensors

OWN_LOSS = Path(__file__).parents[1] / "own_loss.py"
NEON = ["--ddo-objective=neon", "--lr=3e-3", "--ddo-rampup=0", "--ema=0.001", "--snap=1"]


@pytest.fixture(scope="module")
def trained(world, completed) -> Path:
    """Two kimg, watched for a collapse that cannot be told of."""
    out = world.root / "neon"
    completed(world.finetune(*NEON, f"--outdir={out}", "--duration=0.002", "--ddo-stop-on-collapse=0.01"))
    return out


def test_losses_and_gradients_are_those_of_upstreams_own_loss_bit_for_bit(world, completed, tmp_path) -> None:
    arguments = [OWN_LOSS, "edm", world.base, world.fakes, tmp_path / "out"]
    found = json.loads(completed(world.python(*arguments, PYTHONPATH=str(world.repo))).splitlines()[-1])
    assert found["losses"] and found["gradients"]
    assert found["number of gradients"] > 10


def test_its_statistics_are_of_fakes_alone(trained: Path) -> None:
    rows = statistics.read(trained / statistics.FILE_NAME)
    assert len(rows) == 63  # 2 kimg in batches of 32, rounded up
    assert rows[0].keys() == {"step", "loss/fake", "logps/fake", "nonfinite"}
    assert all(row["loss/fake"] == -row["logps/fake"] > 0 == row["nonfinite"] for row in rows)


def test_pristine_generate_samples_the_snapshot_without_our_package(trained: Path, world) -> None:
    snapshot = trained / "network-snapshot-000002.pkl"
    assert b"ddo_" not in snapshot.read_bytes()
    flags = [f"--network={snapshot}", f"--outdir={world.root / 'neon-samples'}", "--seeds=0-1", "--steps=4"]
    made = world.python("-c", GENERATE, *flags, PYTHONPATH=str(world.repo))
    assert made.returncode == 0, made.stderr
    assert len(list((world.root / "neon-samples").glob("*.png"))) == 2


def test_it_moves_away_from_the_reference_which_its_sidecar_names(trained: Path, world) -> None:
    snapshot = trained / "network-snapshot-000002.pkl"
    assert any(not tensor.equal(tensors(world.base)[name]) for name, tensor in tensors(snapshot).items())
    told = sidecar.read(snapshot)
    assert told["options"]["ddo_objective"] == "neon"
    assert told["fakes"]["reference_sha256"] == told["reference"]["sha256"]


def test_the_settings_of_its_authors_are_the_defaults_and_dropout_is_upstreams(world, completed) -> None:
    printed = completed(world.finetune("--ddo-objective=neon", "--outdir=nowhere", "--dry-run"))
    options = json.loads(printed.split("Training options:")[1].split("Output directory")[0])
    assert (options["optimizer_kwargs"]["lr"], options["total_kimg"]) == (1e-4, 6000)
    assert (options["lr_rampup_kimg"], options["ema_halflife_kimg"], options["ema_rampup_ratio"]) == (10000, 500, None)
    assert (options["snapshot_ticks"], options["network_kwargs"]["dropout"]) == (10, 0.13)


def test_fakes_of_any_sampler_are_accepted(world, completed, tmp_path) -> None:
    fakes = tmp_path / "fakes"
    made = [f"--network={world.base}", f"--out={fakes}", "--count=20", "--steps=4", "--S_churn=40"]
    completed(world.python("-m", "ddo_plugin", "refset", "make", *made, PYTHONPATH=str(world.repo)))
    done = world.train(f"--ddo={world.base}", f"--ddo-fakes={fakes}", *NEON, "--ddo-strict", "--outdir=x", "--dry-run")
    completed(done)


def test_a_paused_round_goes_on_with_its_dropout(world, completed, refused) -> None:
    out = world.root / "neon-paused"
    flags = [*NEON, f"--outdir={out}", "--duration=0.003", "--ddo-continue"]
    completed(world.finetune(*flags, "--ddo-pause-after=2"))
    line = refused(world.finetune(*flags, "--dropout=0.5"))
    assert "belongs to a round with --dropout=0.13, not 0.5" in line
    assert "Loading training state from" in completed(world.finetune(*flags))
    steps = [row["step"] for row in statistics.read(out / statistics.FILE_NAME)]
    assert steps == sorted(set(steps))
    assert len(sidecar.steps(out)) == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "--ddo needs --ddo-fakes=PATH: samples of the reference, which `ddo refset make` makes"),
        (("--ddo-fakes={fakes}", "--ddo-compile"), "--ddo-compile compiles without dropout, which is 0.13; add --drop"),
        (("--ddo-fakes={fakes}", "--fp16=1"), "--fp16=True: the network keeps the precision of --ddo; drop --fp16"),
    ],
)
def test_refusals(flags: tuple[str, ...], message: str, world, refused) -> None:
    given = [flag.format(fakes=world.fakes) for flag in flags]
    assert message in refused(world.train(f"--ddo={world.base}", *NEON, "--outdir=nowhere", *given))
