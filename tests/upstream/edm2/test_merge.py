"""`ddo merge` on real networks of EDM2: what its normalised weights ask for, and pristine generate_images.py."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ddo_plugin.base.files import sha256_file
from ddo_plugin.snapshots import sidecar
from tests.upstream.snapshots import tensors

HERE = Path(__file__).parent
TRAINED = "base/network-snapshot-0000002-0.050.pkl"
START = "base/network-snapshot-0000001-0.050.pkl"


@pytest.fixture(scope="module")
def merged(world, completed) -> Callable[[str], Path]:
    """A function: w -> the network that `ddo merge` made of an earlier snapshot and the rescaled, last one."""
    out = world.root / "merged"
    flags = ["--w=0,0.5,1,1.5", f"--outdir={out}", f"--checkout={world.repo}"]
    process = world.python("-m", "ddo_plugin", "merge", world.root / START, world.base, *flags)
    assert "a network of the class Precond with" in completed(process)
    assert "buffers" not in process.stderr
    return lambda w: out / f"base-w{w}.pkl"


def test_w_0_and_1_reproduce_the_parents_bit_for_bit(merged, world) -> None:
    for w, parent in (("0", world.root / START), ("1", world.base)):
        made, stored = tensors(merged(w)), tensors(parent)
        assert made.keys() == stored.keys()
        assert {tensor.dtype for tensor in made.values()} == {torch.float16}
        assert all(made[name].equal(stored[name]) for name in stored)


def test_buffers_and_gains_are_merged_as_they_are(merged, world) -> None:
    a, b, made = tensors(world.root / START), tensors(world.base), tensors(merged("1.5"))
    assert all(made[name].equal(a[name]) for name in a if "emb_fourier" in name)
    gains = [name for name in a if "gain" in name and not a[name].equal(b[name])]
    assert gains
    for name in gains:
        assert made[name].equal((a[name].double() + 1.5 * (b[name].double() - a[name].double())).half())


@pytest.fixture(scope="module")
def distances(world, completed) -> dict[str, float]:
    networks = [world.root / START, world.root / "rescaled.pkl", world.root / TRAINED]
    upstream = {"PYTHONPATH": str(world.repo)}
    completed(world.python("-m", "ddo_plugin.checkouts.compat", HERE / "rescale.py", *networks[:2], **upstream))
    printed = completed(world.python("-m", "ddo_plugin.checkouts.compat", HERE / "merging.py", *networks, **upstream))
    print(printed)  # docs/edm2.md has these figures
    return json.loads(printed.splitlines()[-1])


def test_normalising_after_the_merge_changes_nothing(distances) -> None:
    """Upstream's layers divide by the norm anyway, also in eval(), apart from the 1e-4 that is added to each norm."""
    assert distances["raw, normalised once afterwards"] < 2e-3
    assert distances["ours, normalised once afterwards"] < 2e-3


def test_the_norms_of_the_parents_do_not_change_the_result(distances) -> None:
    """Two files of one network give one merged network. Without normalising first, they would give two."""
    assert distances["a rescaled"] < 2e-3
    assert distances["ours, a rescaled"] < 5e-3
    assert distances["raw, a rescaled"] > 0.1


def test_pristine_generate_images_samples_it_without_our_package_as_ddo_sample_does(
    merged, world, pristine, completed, tmp_path
) -> None:
    image = pytest.importorskip("PIL.Image")
    for w in ("0.5", "1.5"):
        flags = ["--seeds=0-3", "--steps=3", "--batch=4"]
        theirs, ours = tmp_path / f"theirs-{w}", tmp_path / f"ours-{w}"
        pristine("generate_images", f"--net={merged(w)}", f"--outdir={theirs}", *flags)
        own = [f"--checkout={world.repo}", f"--network={merged(w)}", f"--outdir={ours}"]
        completed(world.python("-m", "ddo_plugin", "sample", *own, *flags))
        for name in ("000000.png", "000003.png"):
            assert image.open(theirs / name).tobytes() == image.open(ours / name).tobytes()


def test_it_is_inspected_and_the_reference_of_a_round(merged, world, completed, tmp_path) -> None:
    network = merged("1.5")
    told = completed(world.python("-m", "ddo_plugin", "inspect", network, f"--checkout={world.repo}"))
    assert "The checkout loads it without running its code." in told
    assert "StandardRGBEncoder" in told
    fakes = ["--count=40", "--steps=2", f"--out={tmp_path / 'fakes'}", f"--checkout={world.repo}"]
    completed(world.python("-m", "ddo_plugin", "refset", "make", f"--network={network}", *fakes))
    flags = [f"--ddo-fakes={tmp_path / 'fakes'}", "--duration=1024", f"--outdir={tmp_path / 'out'}", "--ddo-strict"]
    completed(world.train(f"--ddo={network}", *flags))
    made = sidecar.read(sidecar.snapshots(tmp_path / "out")[-1])
    assert made["reference"]["sha256"] == sidecar.sha256(network) == sha256_file(network)


@pytest.mark.thorough
def test_upstreams_metrics_judge_it(merged, world, completed, detector, tmp_path) -> None:
    np = pytest.importorskip("numpy")
    np.savez(tmp_path / "ref.npz", mu=np.eye(2048)[0] * 100, sigma=np.diag(np.eye(2048)[0] * 4))
    own = [f"--checkout={world.repo}", f"--ref={tmp_path / 'ref.npz'}", f"--out={tmp_path / 'eval.json'}", "--num=8"]
    run = ["-m", "ddo_plugin", "eval", merged("1.5"), *own, "--", "--steps=2"]
    assert "fid" in completed(world.python(*run, **detector(tmp_path)))


def test_the_encoder_of_latents_is_that_of_a(snapshots, world, completed, tmp_path) -> None:
    latent = snapshots("edm2") / "latent.pkl"
    other = shutil.copy(latent, tmp_path / "other.pkl")
    out = tmp_path / "new.pkl"
    own = ["--w=0.5", f"--out={out}", f"--checkout={world.repo}"]
    completed(world.python("-m", "ddo_plugin", "merge", latent, other, *own))
    assert "StabilityVAEEncoder" in completed(world.python("-m", "ddo_plugin", "inspect", out))


REFUSED = {
    ("latent", "latent-classes"): "is unconditional, but {b} has 10 classes; merge snapshots of one network",
    ("latent-classes", "rgb"): "different architectures: img_channels is 4 and 3",
}


@pytest.mark.parametrize(("names", "why"), REFUSED.items())
def test_networks_that_do_not_belong_together_are_refused(names, why, snapshots, world, refused, tmp_path) -> None:
    a, b = (snapshots("edm2") / f"{name}.pkl" for name in names)
    own = ["--w=0.5", f"--out={tmp_path / 'new/new.pkl'}", f"--checkout={world.repo}"]
    assert why.format(b=b) in refused(world.python("-m", "ddo_plugin", "merge", a, b, *own))
    assert not (tmp_path / "new").exists()


def test_networks_of_different_trainings_are_merged_with_a_warning(snapshots, world, completed, tmp_path) -> None:
    """Their random frequencies differ, so that the merged network is of little use."""
    a = snapshots("edm2") / "latent-classes.pkl"
    b = tmp_path / "b.pkl"
    program = """
import pickle, sys
data = pickle.load(open(sys.argv[1], "rb"))
data["ema"].unet.emb_fourier.freqs.add_(1)
pickle.dump(data, open(sys.argv[2], "wb"))
"""
    completed(world.python("-c", program, a, b, PYTHONPATH=str(world.repo)))
    own = ["--w=0.5", f"--out={tmp_path / 'new.pkl'}", f"--checkout={world.repo}"]
    process = world.python("-m", "ddo_plugin", "merge", a, b, *own)
    completed(process)
    assert "ddo: unet.emb_fourier.freqs (1 buffers in all) differs" in process.stderr
    assert tensors(tmp_path / "new.pkl")["unet.emb_fourier.freqs"].equal(tensors(a)["unet.emb_fourier.freqs"])
