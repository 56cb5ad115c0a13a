"""Latents, as for ImageNet-512: 8-channel data, 4-channel networks with and without classes; training needs no VAE."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddo_plugin.finetuning import statistics
from ddo_plugin.sampling.refsets import format as refset
from ddo_plugin.snapshots.pickles import contents

pytestmark = pytest.mark.thorough

spec = importlib.util.spec_from_file_location("upstream_sampling", Path(__file__).parent.parent / "sampling.py")
assert spec is not None and spec.loader is not None
sampling = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sampling)

SNAPSHOTS = Path(__file__).parent.parent / "make_snapshots.py"
FLAGS = ["--preset=edm2-img512-s", "--batch=32", "--status=1024", "--snapshot=1024", "--checkpoint=1024"]
CLASSES = {"unconditional": 0, "conditional": 10}
BASES = {0: "latent.pkl", 10: "latent-classes.pkl"}  # of make_snapshots
LAST = "network-snapshot-0000001-0.050.pkl"

# The network in the latents of another autoencoder than the usual one.
OTHER_ENCODER = """
import pickle, sys, training.encoders
data = pickle.load(open(sys.argv[1], "rb"))
data["encoder"] = training.encoders.StabilityVAEEncoder(raw_mean=[1, 2, 3, 4])
pickle.dump(data, open(sys.argv[2], "wb"))
"""

# Upstream's sampler, with the noise and the classes of our reference set; prints how far the two are apart, and how far
# they would be with each class replaced by the next.
UPSTREAMS_SAMPLER = """
import pickle, sys, torch
from pathlib import Path
from generate_images import edm_sampler
from ddo_plugin.sampling.refsets import format as refset
from ddo_plugin.hooks.streams import SampleGenerators
net = pickle.load(open(sys.argv[1], "rb"))["ema"]
made = refset.open_refset(Path(sys.argv[2]))
ours, noise = torch.from_numpy(made.samples[:]), SampleGenerators(1, range(len(made))).randn(*made.samples.shape[1:])
for shift in range(2):
    labels = torch.eye(net.label_dim)[(made.labels + shift) % net.label_dim] if net.label_dim else None
    with torch.no_grad():
        theirs = edm_sampler(net, noise, labels, num_steps=4)
    print(float((ours - theirs).abs().max() / theirs.std()))
"""

# An autoencoder where upstream looks for one: it makes pixels 8 times as many, as the real one does.
DIFFUSERS = """
import types, torch
class AutoencoderKL(torch.nn.Module):
    @classmethod
    def from_pretrained(cls, name, **settings):
        return cls()
    def decode(self, x):
        return {"sample": x[:, :3].sigmoid().repeat_interleave(8, 2).repeat_interleave(8, 3)}
models = types.SimpleNamespace(AutoencoderKL=AutoencoderKL)
"""


@pytest.fixture(scope="module", params=CLASSES)
def latents(request, make_world, completed):
    classes = CLASSES[request.param]
    world = make_world("edm2", "train_edm2.py", [*FLAGS, f"--cond={int(classes > 0)}"], "base.pkl")
    write_latents(world.data, classes)
    upstream = {"PYTHONPATH": str(world.repo)}
    completed(world.python(SNAPSHOTS, "edm2", ".", **upstream))
    completed(world.python("-c", OTHER_ENCODER, BASES[classes], world.base, **upstream))
    sampling = [f"--network={world.base}", f"--out={world.fakes}", "--count=40", "--steps=4", "--seed=1"]
    completed(world.python("-m", "ddo_plugin", "refset", "make", *sampling, **upstream))
    return world


def write_latents(path: Path, classes: int) -> None:
    """A dataset as `dataset_tool.py encode` packs it."""
    draw = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(64):
            mean, deviation = draw.normal(2, 3, (4, 16, 16)), draw.uniform(0.1, 1, (4, 16, 16))
            buffer = io.BytesIO()
            np.save(buffer, np.concatenate([mean, deviation]).astype(np.float32))
            archive.writestr(f"{number:06d}.npy", buffer.getvalue())
        labels = [[f"{number:06d}.npy", number % classes] for number in range(64)] if classes else None
        archive.writestr("dataset.json", json.dumps({"labels": labels}))


@pytest.fixture(scope="module")
def classes(latents) -> int:
    return contents.describe_pickle(latents.base).network.label_dim


@pytest.fixture(scope="module")
def tuned(latents, completed) -> Path:
    out = latents.root / "tuned"
    completed(latents.finetune(f"--outdir={out}", "--duration=1024", "--lr=1e-2", "--ddo-rampup=0"))
    return out


def test_the_reference_set_holds_final_latents_as_upstreams_sampler_makes_them(latents, classes, completed) -> None:
    made = refset.open_refset(latents.fakes)
    assert (made.samples.shape, made.samples.dtype) == ((40, 4, 16, 16), np.float32)
    arguments = [latents.base, latents.fakes]
    printed = completed(latents.python("-c", UPSTREAMS_SAMPLER, *arguments, PYTHONPATH=str(latents.repo)))
    distance, with_other_classes = map(float, printed.split())
    assert distance < 1e-3
    if classes:
        assert np.bincount(made.labels).tolist() == [4] * classes
        assert with_other_classes > 100 * distance
    else:
        assert made.labels is None


@pytest.fixture(scope="module")
def decoding(latents) -> Any:
    """The world of latents with a stand-in for the autoencoder."""
    (latents.root / "stub").mkdir()
    (latents.root / "stub/diffusers.py").write_text(DIFFUSERS)
    path = os.pathsep.join([str(latents.root / "stub"), str(latents.repo)])
    return dataclasses.replace(latents, variables={"PYTHONPATH": path})


def test_images_are_what_the_snapshots_own_encoder_decodes_as_in_pristine_generate_images(
    decoding, completed, tmp_path
):
    flags, out = ["--seeds=0-5", "--batch=3", "--steps=3"], tmp_path / "theirs"
    sampling.pristine(decoding, completed, "generate_images.py", out, f"--net={decoding.base}", *flags)
    ours = [f"--network={decoding.base}", f"--outdir={tmp_path / 'ours'}"]
    sampling.ours(decoding, completed, ["sample"], *ours, *flags)
    sampling.assert_same_images(tmp_path / "ours", out)


def test_the_releases_guided_dpm_solver_v3_gives_its_images_of_latents(decoding, tuned, completed, checkout, tmp_path):
    shared = ["--seeds=0-9", "--batch=5", "--steps=25", f"--gnet={tuned / LAST}", "--guidance=1.1"]
    out = tmp_path / "theirs"
    sampling.release(decoding, completed, checkout("DDO"), out, f"--net={decoding.base}", *shared, "--dpmv3")
    ours = [f"--network={decoding.base}", f"--outdir={tmp_path / 'ours'}", "--solver=dpm-solver-v3", "--labels=uniform"]
    sampling.ours(decoding, completed, ["sample"], *ours, *shared)
    sampling.assert_close_images(tmp_path / "ours", out)


def test_without_diffusers_latents_cannot_be_looked_at_and_the_line_says_so(latents, refused, tmp_path) -> None:
    if importlib.util.find_spec("diffusers"):
        pytest.skip("diffusers is installed here")
    sample = ["-m", "ddo_plugin", "sample", f"--network={latents.base}", f"--grid={tmp_path / 'grid.png'}", "--steps=2"]
    line = refused(latents.python(*sample, "--seeds=0", PYTHONPATH=str(latents.repo)))
    assert "decoding its latents needs diffusers: pip install diffusers" in line
    assert not (tmp_path / "grid.png").exists()


def test_the_first_step_has_r_exactly_0_and_the_round_learns(tuned: Path) -> None:
    rows = statistics.read(tuned / statistics.FILE_NAME)
    assert rows[0]["rewards/real"] == rows[0]["rewards/fake"] == 0
    assert rows[-1]["rewards/margin"] > 0.05
    assert rows[0]["accuracies/fake"] == 0 < rows[-1]["accuracies/fake"]


def test_the_snapshot_keeps_the_references_encoder(tuned: Path, latents) -> None:
    ours, base = (contents.describe_pickle(path).objects["encoder"] for path in (tuned / LAST, latents.base))
    assert ours.class_name == base.class_name == "StabilityVAEEncoder"
    assert ours.init_kwargs == base.init_kwargs == {"raw_mean": [1, 2, 3, 4]}
    assert json.loads((tuned / "training_options.json").read_text())["loss_kwargs"]["noise"]["P_mean"] == -0.4


def test_pristine_generate_images_decodes_the_snapshot_with_its_own_encoder(
    latents, classes, tuned, run_pristine, tmp_path
) -> None:
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "diffusers.py").write_text(DIFFUSERS)
    flags = [f"--net={tuned / LAST}", "--seeds=0-2", "--steps=4"]
    made = {}
    for number in (1, 2) if classes else (None,):
        out = tmp_path / f"class-{number}"
        own = [] if number is None else [f"--class={number}"]
        run_pristine(latents, "generate_images", *flags, *own, f"--outdir={out}", PYTHONPATH=str(tmp_path))
        made[number] = [np.asarray(image.open(path)) for path in sorted(out.glob("*.png"))]
        assert [pixels.shape for pixels in made[number]] == [(128, 128, 3)] * 3
    if classes:
        assert not np.array_equal(made[1], made[2])
    guided = [*flags, f"--gnet={latents.base}", "--guidance=2", f"--outdir={tmp_path / 'guided'}"]  # by the reference
    run_pristine(latents, "generate_images", *guided, PYTHONPATH=str(tmp_path))
    assert len(list((tmp_path / "guided").glob("*.png"))) == 3


def test_pixels_for_a_reference_of_latents_are_refused(latents, classes, images, tmp_path) -> None:
    pixels = images(tmp_path / "pixels.zip", side=16, channels=3, labelled=classes > 0)
    process = latents.finetune(f"--outdir={tmp_path / 'out'}", "--duration=1024", f"--data={pixels}")
    assert process.returncode == 2
    assert f"has (3, 16, {3 if classes else 0}) channels, resolution and classes, but --ddo=" in process.stderr
    assert process.stderr.strip().endswith(f"has (8, 16, {classes})")
