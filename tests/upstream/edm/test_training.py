"""`train.py --ddo` in the real EDM on a CPU: what it trains, what it writes, and that pristine upstream reads it."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ddo_plugin.finetuning import statistics
from ddo_plugin.sampling.refsets import format as refset
from ddo_plugin.snapshots import sidecar
from ddo_plugin.snapshots.pickles import unpickler
from tests.upstream.snapshots import tensors

# Pristine generate.py on a CPU, in a process to which our package does not exist.
GENERATE = """
import sys
sys.modules["ddo_plugin"] = sys.modules["ddo_integrations"] = None
import torch
start = torch.distributed.init_process_group
torch.distributed.init_process_group = lambda backend=None, **rest: start(backend="gloo", **rest)
torch.cuda.set_device = lambda device: None
import generate
generate.main.callback.__defaults__ = (torch.device("cpu"),)
generate.main()
"""

LEARNING_RATE = """
import sys, torch
print(torch.load(sys.argv[1], weights_only=False)["optimizer_state"]["param_groups"][0]["lr"])
"""


@pytest.fixture(scope="module")
def tuned(world, completed) -> Path:
    """A round of two kimg."""
    out = world.root / "tuned"
    completed(world.finetune(f"--outdir={out}", "--duration=0.002", "--dump=1", "--lr=3e-4", "--ddo-round=1"))
    return out


def test_the_first_step_has_r_exactly_0_and_the_loss_one_plus_alpha_times_ln2(tuned: Path) -> None:
    first = statistics.read(tuned / statistics.FILE_NAME)[0]
    assert first["rewards/real"] == first["rewards/fake"] == 0
    assert first["logps/real"] == first["logps/real_ref"]
    assert first["loss/real"] + first["loss/fake"] == pytest.approx(3 * math.log(2), rel=3e-7)


def test_it_learns_to_tell_real_from_fake(tuned: Path) -> None:
    rows = statistics.read(tuned / statistics.FILE_NAME)
    assert len(rows) == 63  # 2 kimg in batches of 32, rounded up
    assert rows[-1]["rewards/margin"] > 0.05
    assert all(row["nonfinite"] == 0 for row in rows)


@pytest.mark.parametrize(("noise", "paired"), [((), True), (("--ddo-noise=independent",), False)])
def test_an_image_that_is_both_real_and_fake_has_one_reward_only_if_noise_is_paired(
    noise: tuple[str, ...], paired: bool, world, one_image, tmp_path, completed
) -> None:
    data = [f"--data={one_image('real.zip')}", f"--ddo-fakes={one_image('fakes.zip')}"]
    flags = ["--duration=0.001", "--lr=3e-4", "--augment=0", f"--outdir={tmp_path / 'out'}"]
    completed(world.train(f"--ddo={world.base}", "--ddo-beta=0.5", *data, *flags, *noise))
    rows = statistics.read(tmp_path / "out" / statistics.FILE_NAME)
    assert any(abs(row["rewards/real"]) > 1e-3 for row in rows)
    differences = [abs(row["rewards/margin"]) for row in rows]
    assert max(differences) < 1e-6 if paired else max(differences) > 1e-3


def test_upstreams_own_statistics_hold_ours(tuned: Path) -> None:
    last = json.loads((tuned / "stats.jsonl").read_text().splitlines()[-1])
    assert last["DDO/rewards/margin"]["mean"] > 0
    assert last["DDO/nonfinite"]["mean"] == 0
    assert last["DDO/accuracies/real"]["num"] > 0


def test_pristine_generate_samples_the_snapshot_without_our_package(tuned: Path, world) -> None:
    image = pytest.importorskip("PIL.Image")
    snapshot = tuned / "network-snapshot-000002.pkl"
    flags = [f"--network={snapshot}", f"--outdir={world.root / 'samples'}", "--seeds=0-5", "--steps=4"]
    made = world.python("-c", GENERATE, *flags, PYTHONPATH=str(world.repo))
    assert made.returncode == 0, made.stderr
    assert image.open(world.root / "samples/000005.png").size == (8, 8)


def test_a_snapshot_is_as_large_as_a_native_one_and_pickles_upstreams_loss(tuned: Path, world) -> None:
    snapshot = tuned / "network-snapshot-000002.pkl"
    assert snapshot.stat().st_size == pytest.approx(world.base.stat().st_size, rel=0.01)
    assert b"ddo_" not in snapshot.read_bytes()
    loss = unpickler.read(snapshot)["loss_fn"]
    assert loss.class_name == "EDMLoss"


def test_every_snapshot_has_a_sidecar(tuned: Path, world) -> None:
    snapshots = sorted(tuned.glob("network-snapshot-*.pkl"))
    assert sidecar.snapshots(tuned) == snapshots
    told = sidecar.read(snapshots[-1])
    assert told["reference"] == {"source": str(world.base), "sha256": refset.sha256_file(world.base)}
    assert told["fakes"]["reference_sha256"] == told["reference"]["sha256"]
    assert (told["options"]["ddo_alpha"], told["options"]["ddo_beta"], told["options"]["ddo_round"]) == (2.0, 0.5, 1)


def test_the_settings_of_the_paper_are_the_defaults_and_upstreams_flags_override_them(tuned: Path, world) -> None:
    given = json.loads((tuned / "training_options.json").read_text())
    assert given["optimizer_kwargs"]["lr"] == 3e-4
    assert (given["total_kimg"], given["lr_rampup_kimg"]) == (2, 2)
    printed = world.finetune("--outdir=nowhere", "--dry-run").stdout
    options = json.loads(printed.split("Training options:")[1].split("Output directory")[0])
    assert options["optimizer_kwargs"]["lr"] == 1.5e-4
    assert (options["total_kimg"], options["lr_rampup_kimg"], options["ema_halflife_kimg"]) == (1500, 1500, 250)
    assert options["ema_rampup_ratio"] is None
    assert options["network_kwargs"]["model_channels"] == 8  # the reference's, not upstream's default
    assert not (world.root / "nowhere").exists()


def test_a_native_run_transfers_from_the_snapshot(tuned: Path, world, completed) -> None:
    flags = ["--arch=ddpmpp", "--cbase=8", "--cres=1", "--duration=0.001", "--outdir=transferred"]
    snapshot = tuned / "network-snapshot-000002.pkl"
    completed(world.train(*flags, f"--transfer={snapshot}"))
    assert (world.root / "transferred/network-snapshot-000001.pkl").exists()


def test_a_patched_train_py_without_ddo_is_bit_identical_to_pristine(world, completed) -> None:
    flags = ["--arch=ddpmpp", "--cbase=8", "--cres=1", "--duration=0.002", "--lr=0.05", "--augment=0.1", "--snap=1"]
    completed(world.train(*flags, "--outdir=patched"))
    ours, pristine = tensors(world.root / "patched/network-snapshot-000002.pkl"), tensors(world.base)
    assert ours.keys() == pristine.keys()
    assert all(ours[name].equal(pristine[name]) for name in pristine)  # bytes differ: torch stores addresses as names


def test_the_checkout_stays_clean(tuned: Path, world) -> None:
    status = subprocess.run(
        ["git", "-C", world.repo, "status", "--porcelain"], capture_output=True, text=True, check=True
    )
    assert status.stdout == ""


@pytest.mark.usefixtures("own_interpreters")
def test_the_control_needs_no_fakes_and_is_native_training_of_the_same_network(world, completed) -> None:
    out = world.root / "control"
    flags = ["--ddo-objective=mle", f"--outdir={out}", "--duration=0.001"]
    completed(world.train(f"--ddo={world.base}", *flags))
    rows = statistics.read(out / statistics.FILE_NAME)
    assert "rewards/real" not in rows[0]
    assert rows[0]["loss/real"] == -rows[0]["logps/real"]


@pytest.mark.thorough
def test_fakes_may_be_a_zip_of_upstreams_and_strict_refuses_what_it_cannot_tell(world, images, completed) -> None:
    zipped = images(world.root / "fakes.zip")
    flags = [f"--ddo-fakes={zipped}", f"--outdir={world.root / 'zipped'}", "--duration=0.001"]
    process = world.finetune(*flags)
    completed(process)
    assert "it is unknown whether the fakes were sampled from the reference" in process.stderr
    refused = world.finetune(*flags, "--ddo-strict")
    assert refused.returncode == 2
    assert "drop --ddo-strict" in refused.stderr


@pytest.mark.thorough
@pytest.mark.parametrize("torchrun", ["", "--standalone --nproc_per_node=1"])
def test_a_collapse_ends_the_run_with_status_3(torchrun: str, world) -> None:
    out = world.root / f"collapsed-{len(torchrun)}"
    flags = [f"--outdir={out}", "--duration=0.01", "--lr=0.1", "--ddo-rampup=0", "--ddo-alpha=50"]
    process = world.finetune(*flags, "--ddo-stop-on-collapse=0.5", torchrun=torchrun)
    assert process.returncode == 3
    assert "collapsed at step" in process.stdout  # upstream sends both streams to one, and to log.txt


@pytest.mark.thorough
def test_after_a_kill_the_round_goes_on_with_its_learning_rate_and_average(world, completed, refused) -> None:
    out = world.root / "killed"
    flags = [f"--outdir={out}", "--duration=0.003", "--dump=1", "--lr=3e-4", "--ema=0.001"]
    ddo = [f"--ddo={world.base}", f"--ddo-fakes={world.fakes}", "--ddo-beta=0.5", "--ddo-alpha=2"]  # as `finetune`
    command = [sys.executable, *world.train_command(*ddo, *flags)]
    process = subprocess.Popen(command, cwd=world.root, env=world.environment(), stdout=subprocess.DEVNULL)
    state = out / "training-state-000001.pt"
    while not (out / "network-snapshot-000001.pkl.ddo.json").exists():  # written after the state
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = statistics.read(out / statistics.FILE_NAME)

    line = refused(world.finetune(*flags, f"--resume={state}", "--ddo-alpha=3"))
    assert "belongs to a round with --ddo-alpha=2.0, not 3.0" in line
    line = refused(world.finetune(*flags, f"--resume={state}", "--lr=1e-3"))
    assert "belongs to a round with --lr=0.0003, not 0.001" in line
    completed(world.finetune(*flags, f"--resume={state}"))
    rows = statistics.read(out / statistics.FILE_NAME)
    steps = [row["step"] for row in rows]
    assert steps == sorted(set(steps))
    assert rows[: len(before[:31])] == before[:31]
    resumed = next(row for row in rows if row["step"] == 1000 // 32)
    assert resumed["rewards/real"] != 0  # the target went on from where it was, the reference stayed
    last = completed(world.python("-c", LEARNING_RATE, out / "training-state-000003.pt", PYTHONPATH=str(world.repo)))
    assert float(last) == pytest.approx(3e-4 * 2984 / 3000)  # 1000 + 62 · 32 images before the last step
    assert json.loads((out / "training_options.json").read_text())["ema_rampup_ratio"] is None


@pytest.mark.thorough
def test_two_ranks_train_together(world, completed) -> None:
    out = world.root / "ranks"
    completed(world.finetune(f"--outdir={out}", "--duration=0.001", torchrun="--standalone --nproc_per_node=2"))
    rows = statistics.read(out / statistics.FILE_NAME)
    assert [row["step"] for row in rows] == list(range(32))
    assert rows[0]["rewards/real"] == 0
    assert sidecar.snapshots(out)
    last = json.loads((out / "stats.jsonl").read_text().splitlines()[-1])
    assert last["DDO/rewards/real"]["num"] % 32 == 0  # of both ranks
