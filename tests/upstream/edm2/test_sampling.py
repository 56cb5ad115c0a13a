"""`ddo sample` and `ddo refset` on the real EDM2: the images of pristine generate_images.py, and of the release."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from ddo_plugin.sampling.refsets import format as refset

pytestmark = pytest.mark.thorough

spec = importlib.util.spec_from_file_location("upstream_sampling", Path(__file__).parent.parent / "sampling.py")
assert spec is not None and spec.loader is not None
sampling = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sampling)

SEEDS = ["--seeds=5,0,1000-1005", "--subdirs", "--batch=4", "--steps=4"]
CHURN = ["--S_churn=3", "--S_min=0.1", "--S_max=20", "--S_noise=1.01", "--rho=5", "--sigma_min=0.01"]
GUIDED = "guided"


@pytest.mark.parametrize(
    ("flags", "ranks"),
    [([], 1), (CHURN, 1), ([GUIDED], 1), ([GUIDED], 2)],
    ids=["ode", "churned", "guided", "guided on two ranks"],
)
def test_images_are_those_of_pristine_generate_images_py(world, completed, tmp_path: Path, flags, ranks) -> None:
    guide = world.root / "base/network-snapshot-0000002-0.050.pkl"
    shared = [*SEEDS, *([f"--gnet={guide}", "--guidance=1.7"] if flags == [GUIDED] else flags)]
    out = tmp_path / "theirs"
    sampling.pristine(world, completed, "generate_images.py", out, f"--net={world.base}", *shared, ranks=ranks)
    ours = [f"--network={world.base}", f"--outdir={tmp_path / 'ours'}"]
    sampling.ours(world, completed, ["sample"], *ours, *shared, ranks=ranks)
    sampling.assert_same_images(tmp_path / "ours", out)


@pytest.mark.parametrize("guidance", [[], ["--guidance=1.1"]], ids=["alone", "guided"])
@pytest.mark.parametrize("solver", ["heun", "dpm-solver-v3"])
def test_a_command_line_of_the_release_gives_its_images(world, completed, checkout, tmp_path, solver, guidance) -> None:
    """It wants as many seeds as a multiple of the classes, and integrates DPM-Solver-v3 on a grid, ours exactly."""
    guide = world.root / "base/network-snapshot-0000002-0.050.pkl"
    shared = ["--seeds=0-8", "--batch=3", "--subdirs", *([f"--gnet={guide}", *guidance] if guidance else [])]
    fast = ["--dpmv3", "--steps=25"] if solver == "dpm-solver-v3" else ["--steps=4"]
    out = tmp_path / "theirs"
    sampling.release(world, completed, checkout("DDO"), out, f"--net={world.base}", *shared, *fast)
    own = [f"--solver={solver}", fast[-1], "--labels=uniform"]
    command = [f"--network={world.base}", f"--outdir={tmp_path / 'ours'}", *own]
    sampling.ours(world, completed, ["sample"], *command, *shared)
    same = sampling.assert_close_images if solver == "dpm-solver-v3" else sampling.assert_same_images
    same(tmp_path / "ours", out)


def test_an_npz_holds_the_pngs_and_their_classes(world, completed, tmp_path: Path) -> None:
    """As OpenAI's evaluator reads it: arr_0 [N, H, W, C]; written by two ranks, in the order of the seeds."""
    png, npz, grid = (tmp_path / name for name in ("png", "samples.npz", "grid.png"))
    flags = [f"--outdir={png}", f"--npz={npz}", f"--grid={grid}", "--labels=uniform", "--seeds=0-6"]
    sampling.ours(world, completed, ["sample"], f"--network={world.base}", *flags, "--batch=2", "--steps=3", ranks=2)
    images, read = np.stack(list(sampling.pixels(png).values())), np.load(npz)
    np.testing.assert_array_equal(read["arr_0"], images)
    assert read["arr_1"].tolist() == [0, 1, 2, 0, 1, 2, 0]
    pictured = sampling.pixels(tmp_path)["grid.png"]
    assert pictured.shape == (3 * 8, 3 * 8, 3)
    np.testing.assert_array_equal(pictured[8:16, :8], images[3])
    packed = completed(world.python("-m", "ddo_plugin", "refset", "pack", png, tmp_path / "set"))
    assert "with labels" in packed
    assert refset.open_refset(tmp_path / "set").labels.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_a_guided_set_says_so(world, completed, tmp_path: Path) -> None:
    guide = world.root / "base/network-snapshot-0000002-0.050.pkl"
    flags = [f"--network={world.base}", f"--out={tmp_path / 'set'}", "--count=4", "--steps=2"]
    sampling.ours(world, completed, ["refset", "make"], *flags, f"--gnet={guide}", "--guidance=1.5")
    told = refset.open_refset(tmp_path / "set").manifest["sampler"]
    assert (told["guidance"], told["gnet"]["sha256"]) == (1.5, refset.sha256_file(guide))
    assert told["departs_by"] == ["guidance"]


def test_guidance_and_a_second_network_go_together_or_are_refused(world, refused, tmp_path: Path) -> None:
    own = [f"--checkout={world.repo}", f"--network={world.base}", f"--outdir={tmp_path / 'out'}", "--guidance=1.5"]
    line = refused(world.python("-m", "ddo_plugin", "sample", *own))
    assert line == "Error: --guidance=1.5 needs a guiding network; add --gnet"
    line = refused(world.python("-m", "ddo_plugin", "sample", *own[:3], "--gnet=guide.pkl"))
    assert line == "Error: --gnet=guide.pkl has no effect with --guidance=1; add --guidance or drop --gnet"
    line = refused(world.python("-m", "ddo_plugin", "sample", *own[:3], "--gnet-sha256=00"))
    assert line == "Error: --gnet-sha256 verifies a guiding network; add --gnet or drop --gnet-sha256"
    assert not (tmp_path / "out").exists()


def test_half_precision_is_that_of_pristine_generate_images_py(world, completed, tmp_path: Path) -> None:
    """The network's file decides, and --precision overrides it. Here upstream's networks use fp16 on a CPU too."""
    world, networks = sampling.in_half_precision(world, completed, tmp_path, "training.networks_edm2")
    theirs = {}
    for half, network in networks.items():
        theirs[half] = tmp_path / f"theirs-{half}"
        sampling.pristine(world, completed, "generate_images.py", theirs[half], f"--net={network}", *SEEDS)
        own = [f"--network={network}", f"--outdir={tmp_path / f'ours-{half}'}"]
        sampling.ours(world, completed, ["sample"], *own, *SEEDS)
        sampling.assert_same_images(tmp_path / f"ours-{half}", theirs[half])
    assert 0 < sampling.greatest_difference(theirs[True], theirs[False]) <= 8
    own = [f"--network={networks[True]}", f"--outdir={tmp_path / 'full'}", "--precision=fp32"]
    sampling.ours(world, completed, ["sample"], *own, *SEEDS)
    sampling.assert_same_images(tmp_path / "full", theirs[False])


def test_a_compiled_network_makes_the_same_images_and_the_set_says_so(world, completed, refused, tmp_path) -> None:
    sampling.assert_compiled_set_is_the_same(world, completed, refused, tmp_path)


def test_a_precision_that_the_device_lacks_or_that_is_not_the_sets_is_refused(
    world, completed, refused, tmp_path: Path
) -> None:
    own = [f"--checkout={world.repo}", f"--network={world.base}", f"--out={tmp_path / 'set'}", "--count=3"]
    make = ["-m", "ddo_plugin", "refset", "make", *own, "--steps=2"]
    line = refused(world.python(*make, "--precision=fp16"))
    assert line.startswith("Error: --precision=fp16 needs a GPU")
    assert not (tmp_path / "set").exists()
    completed(world.python(*make))
    line = refused(world.python(*make, "--precision=fp32"))
    assert "holds another set: its sampler.fp16 is True, not False" in line
