"""`train.py --ddo` in the real VAR on a CPU: what it trains and writes, and that pristine upstream reads it."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import pytest
import torch

from ddo_plugin.finetuning import statistics
from ddo_plugin.snapshots import sidecar
from tests.upstream.var.conftest import OWN, VAE

STEPS, ALPHA = 8, 10
ROUND = [f"--ddo_alpha={ALPHA}", "--ddo_beta=0.05", f"--ddo_iters={STEPS}", "--ddo_save=3"]
PUBLISHED = "var_d2-ddo-0008.pth"
TOKENS = 1 + 4 + 9

# Upstream's inference as its notebook does it, in a process to which our package does not exist.
PRISTINE = """
import sys
sys.modules["ddo_plugin"] = sys.modules["ddo_integrations"] = None
import torch
from models import build_vae_var
vae, var = build_vae_var(V=4096, Cvae=32, ch=160, share_quant_resi=4, device="cpu", patch_nums=(1, 2, 3), depth=2)
vae.load_state_dict(torch.load(sys.argv[1]), strict=True)
var.load_state_dict(torch.load(sys.argv[2]), strict=True)
images = var.eval().autoregressive_infer_cfg(B=2, label_B=torch.tensor([0, 1]), cfg=1.5, g_seed=0)
assert images.shape == (2, 3, 48, 48) and images.isfinite().all()
"""
MIXES = pytest.mark.skipif(torch.__version__ < "2.3", reason="torch does not mix VAR's precisions on a CPU")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "ar-ckpt-last.pth", map_location="cpu")["trainer"]["var_wo_ddp"]


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def round_of(world, completed):
    """A function: folder, further flags -> the folder with a round in it."""

    @functools.cache
    def run(name: str, *flags: object, torchrun: str = "", lr: str | None = "5e-3") -> Path:
        out = world.root / "rounds" / name
        common = [f"--ddo={world.base}", *ROUND, f"--local_out_dir_path={out}", *([f"--tblr={lr}"] if lr else [])]
        completed(world.train(*common, *flags, torchrun=torchrun))
        return out

    return run


@pytest.fixture(scope="module")
def tuned(round_of) -> Path:
    return round_of("tuned", "--ddo_round=1")


@pytest.mark.parametrize("ranks", [1, pytest.param(2, marks=pytest.mark.thorough)])
def test_without_ddo_it_trains_as_pristine_does_bit_for_bit(ranks: int, world, completed) -> None:
    torchrun = f"--standalone --nproc_per_node={ranks}" if ranks > 1 else ""
    completed(world.train(f"--local_out_dir_path=patched-{ranks}", torchrun=torchrun))
    completed(world.train_pristine(f"--local_out_dir_path=pristine-{ranks}", ranks=ranks))
    assert equal(weights(world.root / f"patched-{ranks}"), weights(world.root / f"pristine-{ranks}"))


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--ddo_fakes_from=tokens"],
        ["--ddo_fakes_from=tokens", "--ddo_fakes_cfg=1.5"],
        ["--ddo_fakes_cfg=1.5", "--ddo_fakes_precision=amp", "--ddo_schedule=round"],
    ],
)
def test_the_first_step_has_r_0_and_the_loss_ln2_times_one_plus_half_alpha(flags: list[str], round_of) -> None:
    """However the fakes are made: with guidance, too, the reference's log-probabilities are those without it."""
    first = statistics.read(round_of("-".join(["first", *flags]), *flags, "--ddo_iters=2") / statistics.FILE_NAME)[0]
    assert abs(first["rewards/real"]) < 1e-5 and abs(first["rewards/fake"]) < 1e-5
    assert first["loss/real"] + first["loss/fake"] / 2 == pytest.approx(math.log(2) * (1 + ALPHA / 2), rel=1e-6)


def test_the_statistics_compare_pairs_and_show_samples_without_a_label_alone(tuned: Path) -> None:
    rows = statistics.read(tuned / statistics.FILE_NAME)
    first, last = rows[0], rows[-1]
    assert first["accuracies/pairs"] in {n / 6 for n in range(7)}  # 12 images, half of them with a fake
    assert abs(first["rewards/unlabelled"]) < 1e-5 < abs(last["rewards/unlabelled"])
    assert last["logps/fake"] < last["logps/fake_ref"]
    for kind in ("real", "fake"):
        assert first[f"logps/{kind}"] == pytest.approx(first[f"logps/{kind}_ref"], rel=1e-5)


def test_it_learns_to_tell_real_from_fake(tuned: Path) -> None:
    rows = statistics.read(tuned / statistics.FILE_NAME)
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert rows[-1]["rewards/margin"] > 0.05
    assert rows[-1]["accuracies/pairs"] > 0.5 and rows[-1]["accuracies/fake"] > 0.5
    assert all(row["nonfinite"] == 0 for row in rows)


def test_every_step_is_in_tensorboard_and_in_upstreams_meters(tuned: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (folder,) = tuned.glob("tb-*")
    board = accumulator.EventAccumulator(str(folder)).Reload()
    rows = statistics.read(tuned / statistics.FILE_NAME)
    for name in ("rewards/margin", "accuracies/real", "logps/real"):
        told = [(event.step, event.value) for event in board.Scalars(f"DDO/{name}")]
        assert told == [(row["step"], pytest.approx(row[name], rel=1e-5)) for row in rows]
    cross_entropy = [event.value for event in board.Scalars("AR_iter_loss/Lm")]
    assert cross_entropy == [pytest.approx(-row["logps/real"] / TOKENS, rel=1e-5) for row in rows]
    printed = (tuned / "stdout.txt").read_text()
    assert "rewards/margin: " in printed and "Lm: " in printed


def test_snapshots_come_every_so_many_steps_and_at_the_end_with_their_origin(tuned: Path, world) -> None:
    assert [path.name for path in sorted(tuned.glob("var_*.pth"))] == [f"var_d2-ddo-{n:04d}.pth" for n in (3, 6, 8)]
    told = sidecar.read(tuned / PUBLISHED)
    assert told["step"] == STEPS
    assert told["reference"]["source"] == str(world.base)
    assert told["fakes"]["online"] is True
    assert told["options"]["ddo_alpha"] == ALPHA


def test_a_snapshot_is_the_plain_network_alone(tuned: Path, world) -> None:
    base, last = torch.load(world.base), torch.load(tuned / PUBLISHED)
    assert {name: value.shape for name, value in last.items()} == {name: value.shape for name, value in base.items()}
    assert equal(last, weights(tuned))
    assert not equal(last, base)


def test_pristine_inference_reads_the_snapshot_without_our_package(tuned: Path, world) -> None:
    vae = world.root / "vae_ch160v4096z32.pth"
    variables = {"PYTHONPATH": f"{world.repo}:{world.variables['PYTHONPATH']}"}
    made = world.python("-c", PRISTINE, vae, tuned / PUBLISHED, **variables)
    assert made.returncode == 0, made.stderr


@pytest.mark.parametrize(("given", "used"), [(None, "1e-06"), ("1e-4", "0.0001")])  # upstream's default is 1e-4
def test_the_learning_rate_is_the_papers_unless_it_is_given(given: str | None, used: str, round_of) -> None:
    out = round_of(f"lr-{given}", "--ddo_iters=2", lr=given)
    assert f"tblr                : {used}\n" in (out / "stdout.txt").read_text()


@pytest.mark.parametrize(
    "flag",
    ["--tclip=0", "--workers=1", pytest.param("--fp16=2", marks=MIXES), pytest.param("--fp16=1", marks=MIXES)],
)
def test_upstreams_modes_keep_working_and_have_their_effect(flag: str, round_of) -> None:
    out, plain = round_of(flag, flag, "--ddo_iters=2"), round_of("plain", "--tclip=0.01", "--ddo_iters=2")
    rows = statistics.read(out / statistics.FILE_NAME)
    assert [row["step"] for row in rows] == [0, 1]
    assert all(row["nonfinite"] == 0 for row in rows)
    assert abs(rows[0]["rewards/real"]) < 1e-3 and abs(rows[0]["rewards/fake"]) < 1e-3
    assert not equal(weights(out), weights(plain))


@pytest.mark.thorough
def test_a_round_that_diverges_ends_with_status_3(world) -> None:
    out = world.root / "rounds/diverged"
    flags = [f"--ddo={world.base}", *ROUND, f"--local_out_dir_path={out}", "--tblr=1e9"]
    process = world.train(*flags)
    assert process.returncode == 3, process.stdout[-2000:] + process.stderr[-2000:]
    assert "diverged at step" in process.stdout + process.stderr


@pytest.mark.thorough
def test_accumulation_counts_as_one_step_everywhere(round_of) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = round_of("accumulated", "--ac=2", "--ddo_iters=2")
    rows = statistics.read(out / statistics.FILE_NAME)
    (folder,) = out.glob("tb-*")
    told = accumulator.EventAccumulator(str(folder)).Reload().Scalars("DDO/logps/real")
    expected = [(row["step"], pytest.approx(row["logps/real"], rel=1e-5)) for row in rows]
    assert [(event.step, event.value) for event in told] == expected
    assert len(rows) == 2


def test_the_control_sees_no_fakes(round_of) -> None:
    rows = statistics.read(round_of("control", "--ddo_objective=mle", "--ddo_iters=2") / statistics.FILE_NAME)
    assert all("logps/real" in row and "rewards/real" not in row for row in rows)


@pytest.mark.usefixtures("own_interpreters")
def test_options_may_be_spelt_with_hyphens(round_of) -> None:
    rows = statistics.read(round_of("hyphens", "--ddo-alpha", "3", "--ddo-iters", "2") / statistics.FILE_NAME)
    assert rows[0]["loss/fake"] == pytest.approx(3 * math.log(2), rel=1e-6)


@pytest.mark.parametrize("how", ["--ddo_fakes_from=tokens", "--ddo_fakes_cfg=1.5", "--ddo_schedule=round"])
def test_each_option_has_its_effect(how: str, round_of) -> None:
    flags = ["--bs=6", "--ddo_iters=2"]  # an epoch has six steps
    assert not equal(weights(round_of(f"effect{how}", *flags, how)), weights(round_of("no effect", *flags)))


def test_a_typed_warm_up_leaves_the_default_of_the_end_of_the_schedule(round_of) -> None:
    out = round_of("warm-up", "--wp=0.5", "--ddo_iters=2")
    settings = sidecar.read(out / "var_d2-ddo-0002.pth")["settings"]
    assert (settings["wp"], settings["wpe"]) == (0.5, 0.1)


def test_a_network_with_other_classes_than_1000_is_finetuned_and_read(round_of, world, completed) -> None:
    """VAR's train.py always builds a network with 1000 classes; its other code builds any number."""
    out = round_of("own", f"--ddo={world.root / OWN}", "--ddo_iters=2")
    assert len(torch.load(out / "var_d2-ddo-0002.pth")["class_emb.weight"]) == 3 + 1
    pristine = PRISTINE.replace("depth=2", "depth=2, num_classes=3")
    variables = {"PYTHONPATH": f"{world.repo}:{world.variables['PYTHONPATH']}"}
    completed(world.python("-c", pristine, world.root / VAE, out / "var_d2-ddo-0002.pth", **variables))


def test_one_modulation_for_all_blocks_works(round_of, world) -> None:
    out = round_of("shared", "--saln=1", f"--ddo={world.root / 'var_d2_shared.pth'}", "--ddo_iters=2")
    first = statistics.read(out / statistics.FILE_NAME)[0]
    assert abs(first["rewards/real"]) < 1e-5 and abs(first["rewards/fake"]) < 1e-5


@pytest.mark.thorough
def test_a_compiled_network_trains_and_its_snapshots_are_plain(round_of, world) -> None:
    out = round_of("compiled", "--tfast=3", "--ddo_iters=2")
    assert torch.load(out / "var_d2-ddo-0002.pth").keys() == torch.load(world.base).keys()


@pytest.mark.thorough
def test_two_ranks_learn_from_other_images_than_one(round_of, tuned: Path) -> None:
    out = round_of("two", torchrun="--standalone --nproc_per_node=2")
    rows = statistics.read(out / statistics.FILE_NAME)
    assert len(rows) == STEPS
    assert rows[-1]["rewards/margin"] > 0.05
    assert not equal(weights(out), weights(tuned))
