"""`train_edm2.py --ddo` in the real EDM2 on a CPU: what it trains and writes, and that pristine upstream reads it."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from ddo_plugin.finetuning import statistics
from ddo_plugin.sampling.refsets import format as refset
from ddo_plugin.snapshots import sidecar
from ddo_plugin.snapshots.pickles import unpickler
from tests.upstream.snapshots import tensors

FOLDER = Path(__file__).parent
DIGEST = FOLDER / "digest.py"
LAST = "network-snapshot-0000002-0.050.pkl"
STATE = "training-state-0000002.pt"


@pytest.fixture(scope="module")
def tuned(world, completed) -> Path:
    """A round of two kimg."""
    out = world.root / "tuned"
    flags = [f"--outdir={out}", "--duration=2048", "--lr=1e-2", "--ddo-rampup=0", "--ddo-round=1"]
    completed(world.finetune(*flags))
    return out


def test_the_first_step_has_r_exactly_0_and_the_loss_one_plus_alpha_times_ln2(tuned: Path, world) -> None:
    norms = [tensor.float().square().mean().sqrt() for name, tensor in tensors(world.base).items() if "conv" in name]
    assert min(norms) < 0.5 and max(norms) > 2  # no unit norm, so this is no accident
    first = statistics.read(tuned / statistics.FILE_NAME)[0]
    assert first["rewards/real"] == first["rewards/fake"] == 0
    assert first["logps/real"] == first["logps/real_ref"]
    assert first["loss/real"] + first["loss/fake"] == pytest.approx(3 * math.log(2), rel=3e-7)


@pytest.mark.parametrize(("noise", "paired"), [((), True), (("--ddo-noise=independent",), False)])
def test_an_image_that_is_both_real_and_fake_has_one_reward_only_if_noise_is_paired(
    noise: tuple[str, ...], paired: bool, world, one_image, tmp_path, completed
) -> None:
    data = [f"--data={one_image('real.zip')}", f"--ddo-fakes={one_image('fakes.zip')}"]
    flags = ["--duration=1024", "--lr=1e-2", "--ddo-rampup=0", f"--outdir={tmp_path / 'out'}"]
    completed(world.train(f"--ddo={world.base}", "--ddo-beta=0.5", *data, *flags, *noise))
    rows = statistics.read(tmp_path / "out" / statistics.FILE_NAME)
    assert any(abs(row["rewards/real"]) > 1e-3 for row in rows)
    differences = [abs(row["rewards/margin"]) for row in rows]
    assert max(differences) < 1e-6 if paired else max(differences) > 1e-3


def test_without_settled_weights_the_first_log_ratio_would_not_be_0(world, completed) -> None:
    worst = json.loads(completed(world.python(FOLDER / "settling.py", PYTHONPATH=str(world.repo))))
    assert worst["settled"] == 0
    assert worst["as stored"] > 1e-4


def test_what_a_careless_loss_ends_with_ours_does_not(world, completed) -> None:
    """Real and fake forwarded one after the other; the uncertainty left out of the graph."""
    errors = json.loads(completed(world.python(FOLDER / "traps.py", PYTHONPATH=str(world.repo))))
    assert errors["ours"] == ""
    assert "modified by an inplace operation" in errors["two forwards"]
    assert "parameters that were not used in producing loss" in errors["without logvar"]


def test_the_round_starts_from_the_references_weights_and_buffers(tuned: Path, world) -> None:
    start, base = tensors(tuned / "network-snapshot-0000000-0.050.pkl"), tensors(world.base)
    assert start.keys() == base.keys()
    for name, tensor in base.items():
        if name.endswith("weight"):
            unit = [
                w.float() / w.float().square().mean(tuple(range(1, w.ndim)), True).sqrt() for w in (start[name], tensor)
            ]
            assert torch.allclose(*unit, atol=4e-3)
        else:
            assert start[name].equal(tensor)


def test_it_learns_to_tell_real_from_fake(tuned: Path) -> None:
    rows = statistics.read(tuned / statistics.FILE_NAME)
    assert [row["step"] for row in rows] == list(range(16))
    assert rows[-1]["rewards/margin"] > 0.05
    assert all(row["nonfinite"] == 0 for row in rows)
    last = json.loads((tuned / "stats.jsonl").read_text().splitlines()[-1])
    assert last["DDO/rewards/margin"] > 0
    assert last["DDO/nonfinite"] == 0


def test_pristine_generate_images_samples_the_snapshot_without_our_package(tuned: Path, world, pristine) -> None:
    image = pytest.importorskip("PIL.Image")
    flags = [f"--net={tuned / LAST}", f"--outdir={world.root / 'samples'}", "--seeds=0-5", "--steps=4"]
    guided = [*flags, f"--gnet={world.base}", "--guidance=2"]  # autoguidance by the reference
    guiding = [f"--net={world.base}", *flags[1:], f"--gnet={tuned / LAST}", "--guidance=2"]
    for arguments in (flags, guided, guiding):
        pristine("generate_images", *arguments)
        assert image.open(world.root / "samples/000005.png").size == (8, 8)
        shutil.rmtree(world.root / "samples")


@pytest.mark.thorough
def test_pristine_calculate_metrics_judges_the_snapshot_without_our_package(
    tuned: Path, world, pristine, detector, tmp_path
) -> None:
    """With an image's mean as the only feature, the distance is that of two normal distributions of numbers."""
    image = pytest.importorskip("PIL.Image")
    sigma = np.zeros((2048, 2048))
    sigma[0, 0] = 4
    np.savez(tmp_path / "ref.npz", mu=np.eye(2048)[0] * 100, sigma=sigma)
    network = f"--net={tuned / LAST}"
    judging = ["gen", network, f"--ref={tmp_path / 'ref.npz'}", "--metrics=fid", "--num=12", "--seed=3", "--batch=6"]
    printed = pristine("calculate_metrics", *judging, **detector(tmp_path))
    pristine("generate_images", network, f"--outdir={tmp_path / 'samples'}", "--seeds=3-14", "--batch=6")
    means = [np.asarray(image.open(path), np.float64).mean() for path in (tmp_path / "samples").glob("*.png")]
    expected = (np.mean(means) - 100) ** 2 + (np.std(means, ddof=1) - 2) ** 2
    assert len(means) == 12
    assert float(printed.split("fid = ")[1]) == pytest.approx(expected, rel=1e-3)


def test_pristine_reconstruct_phema_reads_the_snapshots(tuned: Path, world, pristine) -> None:
    pristine("reconstruct_phema", f"--indir={tuned}", f"--outdir={world.root / 'phema'}", "--outstd=0.08")
    made = world.root / "phema/phema-0000002-0.080.pkl"
    assert list((world.root / "phema").iterdir()) == [made]
    ours, native = tensors(made), tensors(tuned / LAST)
    assert ours.keys() == native.keys()
    assert all(bool(tensor.isfinite().all()) for tensor in ours.values())


def test_a_snapshot_is_as_large_as_a_native_one_and_pickles_upstreams_loss(tuned: Path, world) -> None:
    assert (tuned / LAST).stat().st_size == pytest.approx(world.base.stat().st_size, rel=0.01)
    assert b"ddo_" not in (tuned / LAST).read_bytes()
    read = unpickler.read(tuned / LAST)
    assert (read["loss_fn"].class_name, read["encoder"].class_name) == ("EDM2Loss", "StandardRGBEncoder")


def test_every_snapshot_has_a_sidecar(tuned: Path, world) -> None:
    snapshots = sorted(tuned.glob("network-snapshot-*.pkl"))
    assert len(snapshots) == 3
    assert sidecar.snapshots(tuned) == snapshots
    assert [sidecar.read(path)["step"] for path in snapshots] == [0, 8, 16]
    told = sidecar.read(snapshots[-1])
    assert told["sha256"] == refset.sha256_file(snapshots[-1])
    assert told["reference"] == {"source": str(world.base), "sha256": refset.sha256_file(world.base)}
    assert told["fakes"]["reference_sha256"] == told["reference"]["sha256"]
    assert (told["options"]["ddo_alpha"], told["options"]["ddo_beta"], told["options"]["ddo_round"]) == (2.0, 0.5, 1)


@pytest.fixture(scope="module", params=["cut", "spoilt"])
def resumed(request, tuned: Path, world, completed) -> tuple[Path, str]:
    """The same round, whose second state was cut short or spoilt, started again; and what it printed."""
    out = world.root / f"resumed-{request.param}"
    shutil.copytree(tuned, out)
    for path in out.glob("network-snapshot-0000002*"):
        path.unlink()
    whole = (tuned / STATE).read_bytes()
    half = len(whole) // 2
    (out / STATE).write_bytes(whole[:half] + (b"" if request.param == "cut" else b"\xff" * 64 + whole[half + 64 :]))
    (out / f".{STATE}.0123.tmp").write_bytes(b"left over")
    flags = [f"--outdir={out}", "--duration=2048", "--lr=1e-2", "--ddo-rampup=0", "--ddo-round=1"]
    return out, completed(world.finetune(*flags))


def test_a_resumed_round_equals_an_uninterrupted_one_bit_for_bit(resumed, tuned: Path, world, completed) -> None:
    ours, whole = (
        json.loads(completed(world.python(DIGEST, folder / STATE, PYTHONPATH=str(world.repo))))
        for folder in (resumed[0], tuned)
    )
    assert ours == whole
    assert {name.split("/")[1] for name in ours} >= {"net", "ema", "optimizer", "state", "loss_fn"}
    before = json.loads(
        completed(world.python(DIGEST, tuned / "training-state-0000001.pt", PYTHONPATH=str(world.repo)))
    )
    assert before != whole
    assert statistics.read(resumed[0] / statistics.FILE_NAME) == statistics.read(tuned / statistics.FILE_NAME)
    assert sidecar.snapshots(resumed[0])[-1].name == LAST


def test_a_damaged_newest_state_is_named_and_set_aside(resumed) -> None:
    out, printed = resumed
    assert f"{STATE} is damaged" in printed
    assert (out / f"{STATE}.damaged").exists()
    assert not list(out.glob(".*.tmp"))
    assert "Training from 1 kimg to 2 kimg" in printed


def test_the_settings_of_the_paper_are_the_defaults_and_upstreams_flags_override_them(tuned: Path, world) -> None:
    given = json.loads((tuned / "training_options.json").read_text())
    assert (given["lr_kwargs"]["ref_lr"], given["total_nimg"], given["batch_size"]) == (1e-2, 2048, 128)
    ddo = [f"--ddo={world.base}", f"--ddo-fakes={world.fakes}", f"--data={world.data}", "--outdir=nowhere", "-n"]

    def planned(*flags: str) -> dict:
        run = ["-m", "ddo_plugin", "run", world.repo, "train_edm2.py", "--", *ddo, *flags]
        printed = world.python(*run).stdout
        return json.loads(printed.split("Training config:")[1].split("Output directory")[0])

    options = planned()
    assert options["lr_kwargs"] | {"func_name": ""} == {
        "func_name": "",
        "ref_lr": 5e-5,
        "ref_batches": 2000,
        "rampup_Mimg": 1.0,
    }
    assert (options["total_nimg"], options["batch_size"], options["snapshot_nimg"]) == (6_400_000, 512, 1 << 17)
    assert options["ema_kwargs"]["stds"] == [0.05]
    assert (options["loss_kwargs"]["noise"]["P_mean"], options["loss_kwargs"]["noise"]["P_std"]) == (-0.8, 1.6)
    assert (options["network_kwargs"]["model_channels"], options["network_kwargs"]["use_fp16"]) == (8, True)
    later = planned("--P_std=3.0", "--lr=2e-5", "--batch=96", "--ddo-ema=0.05,0.1")
    assert (later["loss_kwargs"]["noise"]["P_std"], later["lr_kwargs"]["ref_lr"]) == (3.0, 2e-5)
    assert later["snapshot_nimg"] % 3072 == later["total_nimg"] % 96 == 0  # defaults bend to the batch
    assert later["ema_kwargs"]["stds"] == [0.05, 0.1]
    assert not (world.root / "nowhere").exists()


@pytest.mark.thorough
def test_two_ranks_and_accumulation_train_together_with_the_noise_of_the_papers_last_rounds(world, completed) -> None:
    out = world.root / "ranks"
    flags = [f"--outdir={out}", "--duration=1024", "--batch-gpu=32", "--P_std=3.0"]
    completed(world.finetune(*flags, torchrun="--standalone --nproc_per_node=2"))
    rows = statistics.read(out / statistics.FILE_NAME)
    assert [row["step"] for row in rows] == list(range(8))
    assert rows[0]["rewards/real"] == rows[0]["rewards/fake"] == 0  # in the second forward of the step too
    assert [path.name for path in sidecar.snapshots(out)] == [
        "network-snapshot-0000000-0.050.pkl",
        "network-snapshot-0000001-0.050.pkl",
    ]
    loss = unpickler.read(sidecar.snapshots(out)[-1])["loss_fn"]
    assert (loss.init_kwargs["P_mean"], loss.init_kwargs["P_std"]) == (-0.8, 3.0)


@pytest.mark.usefixtures("own_interpreters")
def test_the_control_needs_no_fakes_and_two_averages_may_be_kept(world, completed) -> None:
    out = world.root / "control"
    flags = ["--ddo-objective=mle", f"--outdir={out}", "--duration=1024", "--checkpoint=0", "--ddo-ema=0.05,0.1"]
    completed(world.train(f"--ddo={world.base}", *flags))
    rows = statistics.read(out / statistics.FILE_NAME)
    assert rows[0]["loss/real"] == -rows[0]["logps/real"]
    assert [path.name[-10:] for path in sidecar.snapshots(out)] == ["-0.050.pkl", "-0.100.pkl"] * 2  # without a state


@pytest.mark.thorough
def test_a_round_that_diverges_ends_with_status_3_and_its_network_is_not_told_of(world) -> None:
    out = world.root / "diverged"
    flags = [f"--outdir={out}", "--duration=1024", "--ddo-objective=mle", "--P_mean=200"]  # its noise overflows
    process = world.train(f"--ddo={world.base}", *flags)
    assert process.returncode == 3, process.stdout[-2000:] + process.stderr[-2000:]
    assert "diverged at step 4: no log-ratio" in process.stdout + process.stderr
    assert sidecar.steps(out) == []


def test_the_checkout_stays_clean(tuned: Path, world) -> None:
    status = subprocess.run(
        ["git", "-C", world.repo, "status", "--porcelain"], capture_output=True, text=True, check=True
    )
    assert status.stdout == ""
