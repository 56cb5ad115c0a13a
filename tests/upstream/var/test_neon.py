"""`train.py --ddo_objective=neon` in the real VAR on a CPU: upstream's own training on fakes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ddo_plugin.finetuning import statistics
from ddo_plugin.snapshots import sidecar
from tests.upstream.var.conftest import VAE
from tests.upstream.var.test_round import PRISTINE, equal

HERE = Path(__file__).parent
STEPS = 6
NEON = ["--ddo_objective=neon", f"--ddo_iters={STEPS}", "--ddo_save=3", "--ddo_state=3", "--bs=12"]
LAST = "var_d2-ddo-0006.pth"


@pytest.fixture(scope="module")
def neon(world, completed):
    """A function: folder, further flags -> the folder with a round in it."""

    def run(name: str, *flags: object) -> Path:
        out = world.root / "neon" / name
        completed(world.train(f"--ddo={world.base}", *NEON, f"--local_out_dir_path={out}", *flags))
        return out

    return run


@pytest.fixture(scope="module")
def trained(neon) -> Path:
    """A round with fakes drawn online, watched for a collapse that cannot be told of."""
    return neon("online", "--tblr=5e-3", "--wp=0.01", "--ddo_stop_on_collapse=0.01")


def test_a_step_is_upstreams_own_on_the_fakes(world, completed, tmp_path) -> None:
    out = tmp_path / "found.pt"
    variables = {"PYTHONPATH": f"{world.repo}:{HERE}:{world.variables['PYTHONPATH']}"}
    completed(world.python(HERE / "own_loss.py", world.base, world.data / "train", out, **variables))
    found = torch.load(out)
    ours, theirs = found["ours"], found["upstream's"]
    assert theirs.norm() > 0.01
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()
    assert (ours - found["with other dropout"]).norm() > 1e-2 * theirs.norm()


def test_its_statistics_are_of_fakes_alone(trained: Path) -> None:
    rows = statistics.read(trained / statistics.FILE_NAME)
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert rows[0].keys() == {"step", "loss/fake", "logps/fake", "nonfinite"}
    assert all(row["loss/fake"] == -row["logps/fake"] > 0 == row["nonfinite"] for row in rows)
    assert sidecar.read(trained / LAST)["options"]["ddo_objective"] == "neon"


def test_pristine_inference_reads_the_snapshot_without_our_package(trained: Path, world) -> None:
    assert not equal(torch.load(world.base), torch.load(trained / LAST))
    variables = {"PYTHONPATH": f"{world.repo}:{world.variables['PYTHONPATH']}"}
    made = world.python("-c", PRISTINE, world.root / VAE, trained / LAST, **variables)
    assert made.returncode == 0, made.stderr


def test_a_paused_round_ends_as_an_uninterrupted_one_with_the_same_dropout(trained: Path, neon) -> None:
    common = ["paused", "--tblr=5e-3", "--wp=0.01"]
    neon(*common, "--ddo-pause-after=1")
    paused = neon(*common)
    assert equal(torch.load(paused / LAST), torch.load(trained / LAST))
    assert statistics.read(paused / statistics.FILE_NAME) == statistics.read(trained / statistics.FILE_NAME)


def test_fakes_may_be_a_reference_set_of_any_sampler(world, neon, completed, tmp_path) -> None:
    fakes = tmp_path / "fakes"
    flags = [f"--network={world.base}", f"--out={fakes}", "--count=24", "--cfg=1.25", "--top-k=900", "--top-p=0.95"]
    path = {"PYTHONPATH": f"{world.repo}:{world.variables['PYTHONPATH']}"}
    completed(world.python("-m", "ddo_plugin", "refset", "make", *flags, "--through-pixels", **path))
    out = neon("stored", f"--ddo_fakes={fakes}", "--ddo_strict")
    assert len(statistics.read(out / statistics.FILE_NAME)) == STEPS
    settings = sidecar.read(out / LAST)["settings"]  # the defaults are those of Neon's authors
    assert (settings["twd"], settings["wp"], settings["bs"]) == (0, 1, 12)
    assert settings["tblr"] == pytest.approx(1e-5 / 3)
