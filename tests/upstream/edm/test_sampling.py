"""`ddo sample` and `ddo refset` on the real EDM: upstream's images of the same seeds, sets alike for any ranks."""

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

SEEDS = ["--seeds=3,0,1000-1006", "--subdirs", "--batch=4", "--steps=5"]


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--S_churn=3", "--S_min=0.1", "--S_max=20", "--S_noise=1.01", "--rho=5", "--sigma_min=0.01", "--sigma_max=60"],
    ],
    ids=["ode", "churned"],
)
@pytest.mark.parametrize("ranks", [1, 2])
def test_images_are_those_of_pristine_generate_py(world, completed, tmp_path: Path, flags, ranks) -> None:
    shared = [f"--network={world.base}", *SEEDS, *flags]
    theirs = sampling.pristine(world, completed, "generate.py", tmp_path / "theirs", *shared, ranks=ranks)
    sampling.ours(world, completed, ["sample"], f"--outdir={tmp_path / 'ours'}", *shared, ranks=ranks)
    sampling.assert_same_images(tmp_path / "ours", theirs)


@pytest.mark.parametrize(
    "flags",
    [
        ["--solver=euler", "--disc=iddpm", "--schedule=ve", "--sigma_max=70"],
        ["--disc=vp", "--schedule=vp", "--scaling=vp", "--S_churn=3"],
    ],
    ids=["exploding by euler", "preserving and churned"],
)
def test_ablated_images_are_those_of_pristine_generate_py(world, completed, tmp_path: Path, flags) -> None:
    shared = [f"--network={world.base}", *SEEDS, *flags]
    theirs = sampling.pristine(world, completed, "generate.py", tmp_path / "theirs", *shared)
    sampling.ours(world, completed, ["sample"], f"--outdir={tmp_path / 'ours'}", *shared)
    sampling.assert_same_images(tmp_path / "ours", theirs)


def test_all_ablation_flags_with_all_others_are_pristine_generate_pys_to_the_last_bit(world, completed) -> None:
    program = ["-m", "ddo_plugin.checkouts.compat", Path(__file__).with_name("ablations.py")]
    assert completed(world.python(*program, PYTHONPATH=str(world.repo))).strip() == "360 of 360"


def test_a_set_by_dpm_solver_v3_says_so(world, completed, refused, tmp_path: Path) -> None:
    flags = [
        f"--checkout={world.repo}",
        f"--network={world.base}",
        f"--out={tmp_path / 'set'}",
        "--count=6",
        "--steps=5",
    ]
    make = ["-m", "ddo_plugin", "refset", "make", *flags, "--solver=dpm-solver-v3", "--order=3"]
    assert "--spacing" in refused(world.python(*make, "--disc=vp"))
    completed(world.python(*make))
    made = refset.open_refset(tmp_path / "set")
    told = made.manifest["sampler"]
    assert (told["name"], told["steps"], told["order"], told["spacing"]) == ("dpm-solver-v3", 5, 3, "edm")
    assert made.samples.std() > 5


def test_a_class_is_pristine_generate_pys_class(world, completed, tmp_path: Path) -> None:
    shared = [f"--network={world.base}", *SEEDS, "--S_churn=3"]
    theirs = sampling.pristine(world, completed, "generate.py", tmp_path / "theirs", *shared, "--class=2")
    sampling.ours(world, completed, ["sample"], f"--outdir={tmp_path / 'ours'}", *shared, "--labels=2")
    sampling.assert_same_images(tmp_path / "ours", theirs)


def test_a_set_is_the_same_for_any_number_of_ranks(world, completed, tmp_path: Path) -> None:
    flags = [f"--network={world.base}", "--count=21", "--batch=4", "--steps=4"]
    sums = []
    for ranks in (1, 2):
        out = tmp_path / str(ranks)
        sampling.ours(world, completed, ["refset", "make"], f"--out={out}", *flags, ranks=ranks)
        sums.append(refset.open_refset(out).manifest["arrays"])
    assert sums[0] == sums[1]


def test_another_batch_size_changes_no_more_than_rounding(world, completed, tmp_path: Path) -> None:
    """Last bits of a convolution depend on how many samples go through it; a grey level here and there may, too."""
    made = []
    for batch in (1, 3, 8):
        out = tmp_path / str(batch)
        flags = [f"--network={world.base}", f"--out={out}", "--count=24", f"--batch={batch}", "--steps=4"]
        sampling.ours(world, completed, ["refset", "make"], *flags)
        made.append(refset.open_refset(out).samples.astype(int))
    for other in made[1:]:
        assert np.abs(made[0] - other).max() <= 1
        assert (made[0] != other).mean() < 1e-3


def test_seed_0_makes_the_images_of_upstreams_seeds(world, completed, tmp_path: Path) -> None:
    """Row i of a set with seed 0 is what seed i is to generate.py: here of class 1, batch for batch."""
    flags = [f"--network={world.base}", "--steps=4", "--batch=4"]
    theirs = sampling.pristine(world, completed, "generate.py", tmp_path / "png", *flags, "--seeds=0-7", "--class=1")
    made = [f"--out={tmp_path / 'set'}", *flags, "--count=8", "--labels=1", "--seed=0"]
    sampling.ours(world, completed, ["refset", "make"], *made)
    images = list(sampling.pixels(theirs).values())
    np.testing.assert_array_equal(refset.open_refset(tmp_path / "set").samples[:, 0], np.stack(images))


def test_unpacked_is_a_dataset_of_upstream_and_packed_again_the_same_set(world, completed, tmp_path: Path) -> None:
    program = """
import sys, numpy as np
from training.dataset import ImageFolderDataset
data = ImageFolderDataset(sys.argv[1], use_labels=True)
np.savez(sys.argv[2], images=np.stack([x for x, _ in data]), labels=np.stack([y for _, y in data]).argmax(1))
"""
    archive, read = tmp_path / "fakes.zip", tmp_path / "read.npz"
    completed(world.python("-m", "ddo_plugin", "refset", "unpack", world.fakes, archive))
    completed(world.python("-c", program, archive, read, PYTHONPATH=str(world.repo)))
    made, found = refset.open_refset(world.fakes), np.load(read)
    np.testing.assert_array_equal(found["images"], made.samples)
    np.testing.assert_array_equal(found["labels"], made.labels)
    completed(world.python("-m", "ddo_plugin", "refset", "pack", archive, tmp_path / "set", f"--network={world.base}"))
    packed = refset.open_refset(tmp_path / "set").manifest
    assert packed["arrays"] == made.manifest["arrays"]
    assert packed["reference"]["sha256"] == made.manifest["reference"]["sha256"]


def test_a_folder_of_generate_py_packs_with_the_class_that_is_told(world, completed, tmp_path: Path) -> None:
    flags = [f"--network={world.base}", "--seeds=0-4", "--class=2", "--steps=3"]
    theirs = sampling.pristine(world, completed, "generate.py", tmp_path / "png", *flags)
    completed(world.python("-m", "ddo_plugin", "refset", "pack", theirs, tmp_path / "set", "--class=2"))
    packed = refset.open_refset(tmp_path / "set")
    np.testing.assert_array_equal(packed.samples[:, 0], np.stack(list(sampling.pixels(theirs).values())))
    assert packed.labels.tolist() == [2] * 5


def test_a_sampler_that_diverges_makes_no_black_set(world, refused, tmp_path: Path) -> None:
    flags = [f"--checkout={world.repo}", f"--network={world.base}", f"--out={tmp_path / 'set'}", "--count=3"]
    line = refused(world.python("-m", "ddo_plugin", "refset", "make", *flags, "--sigma-max=1e300"))
    assert "sample 0 is not finite (3 of 3 in its batch): the network or the sampler diverges" in line
    assert not (tmp_path / "set").exists()
    assert all(not file.stat().st_size for file in tmp_path.glob(".set.unfinished/done-*"))


def test_half_precision_is_that_of_pristine_generate_py(world, completed, tmp_path: Path) -> None:
    """The network's file decides, and --precision overrides it. Here upstream's networks use fp16 on a CPU too."""
    world, networks = sampling.in_half_precision(world, completed, tmp_path, "training.networks")
    theirs = {}
    for half, network in networks.items():
        theirs[half] = tmp_path / f"theirs-{half}"
        sampling.pristine(world, completed, "generate.py", theirs[half], f"--network={network}", *SEEDS)
        own = [f"--network={network}", f"--outdir={tmp_path / f'ours-{half}'}"]
        sampling.ours(world, completed, ["sample"], *own, *SEEDS)
        sampling.assert_same_images(tmp_path / f"ours-{half}", theirs[half])
    assert 0 < sampling.greatest_difference(theirs[True], theirs[False]) <= 8
    own = [f"--network={networks[True]}", f"--outdir={tmp_path / 'full'}", "--precision=fp32"]
    sampling.ours(world, completed, ["sample"], *own, *SEEDS)
    sampling.assert_same_images(tmp_path / "full", theirs[False])


def test_a_compiled_network_makes_the_same_images_and_the_set_says_so(world, completed, refused, tmp_path) -> None:
    sampling.assert_compiled_set_is_the_same(world, completed, refused, tmp_path)


def test_half_precision_without_a_gpu_is_refused(world, refused, tmp_path) -> None:
    own = [f"--checkout={world.repo}", f"--network={world.base}", f"--out={tmp_path / 'set'}", "--count=3"]
    make = ["-m", "ddo_plugin", "refset", "make", *own, "--steps=2"]
    line = refused(world.python(*make, "--precision=fp16"))
    assert line.startswith("Error: --precision=fp16 needs a GPU")
    assert not (tmp_path / "set").exists()
