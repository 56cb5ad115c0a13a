"""Latents, as for ImageNet-512: 8-channel data, a 4-channel unconditional network, no VAE anywhere."""

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

from ddo_plugin import refset, statistics
from ddo_plugin.snapshots import contents

spec = importlib.util.spec_from_file_location("upstream_sampling", Path(__file__).parent.parent / "sampling.py")
assert spec is not None and spec.loader is not None
sampling = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sampling)

SNAPSHOTS = Path(__file__).parent.parent / "make_snapshots.py"
FLAGS = ["--preset=edm2-img512-s", "--batch=32", "--status=1024", "--snapshot=1024", "--checkpoint=1024", "--cond=0"]
LAST = "network-snapshot-0000001-0.050.pkl"

# The network in the latents of another autoencoder than the usual one.
OTHER_ENCODER = """
import pickle, sys, training.encoders
data = pickle.load(open(sys.argv[1], "rb"))
data["encoder"] = training.encoders.StabilityVAEEncoder(raw_mean=[1, 2, 3, 4])
pickle.dump(data, open(sys.argv[2], "wb"))
"""

# Upstream's sampler, with the noise of our reference set; prints how far the two are apart.
UPSTREAMS_SAMPLER = """
import pickle, sys, numpy as np, torch
from generate_images import edm_sampler
from ddo_plugin.sampling.generators import SampleGenerators
net = pickle.load(open(sys.argv[1], "rb"))["ema"]
ours = torch.from_numpy(np.load(sys.argv[2]))
with torch.no_grad():
    theirs = edm_sampler(net, SampleGenerators(1, range(len(ours))).randn(*ours.shape[1:]), num_steps=4)
print(float((ours - theirs).abs().max() / theirs.std()))
"""

# Upstream's generator with an encoder that passes latents through, in a process to which our package does not exist.
GENERATE = """
import sys
sys.modules["ddo_plugin"] = sys.modules["ddo_integrations"] = None
import torch
from torch_utils import distributed
torch.cuda.set_device = lambda device: None
start = torch.distributed.init_process_group
torch.distributed.init_process_group = lambda backend=None, **rest: start(backend="gloo", **rest)
distributed.init()
import generate_images, training.encoders
class Through(training.encoders.Encoder):
    def decode(self, x):
        return x
net, gnet = sys.argv[1:]
made = list(generate_images.generate_images(net, gnet, encoder=Through(), seeds=range(4), guidance=2, num_steps=4,
    device=torch.device("cpu"), verbose=False))
assert made[0].images.shape == (4, 4, 16, 16) and made[0].images.isfinite().all()
"""

# Stands in for the autoencoder that upstream downloads: eight times the resolution, three channels.
AUTOENCODER = """
import types, torch
class AutoencoderKL(torch.nn.Module):
    @classmethod
    def from_pretrained(cls, name, **kwargs):
        return cls()
    def decode(self, x):
        return {"sample": x[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3) / 4 + 0.5}
models = types.SimpleNamespace(AutoencoderKL=AutoencoderKL)
"""


@pytest.fixture(scope="module")
def latents(make_world, completed):
    world = make_world("edm2", "train_edm2.py", FLAGS, "base.pkl")
    draw = np.random.default_rng(0)
    with zipfile.ZipFile(world.data, "w") as archive:
        for number in range(64):
            mean, deviation = draw.normal(2, 3, (4, 16, 16)), draw.uniform(0.1, 1, (4, 16, 16))
            buffer = io.BytesIO()
            np.save(buffer, np.concatenate([mean, deviation]).astype(np.float32))
            archive.writestr(f"{number:06d}.npy", buffer.getvalue())
    upstream = {"PYTHONPATH": str(world.repo)}
    completed(world.python(SNAPSHOTS, "edm2", ".", **upstream))
    completed(world.python("-c", OTHER_ENCODER, "latent.pkl", world.base, **upstream))
    sampling = [f"--network={world.base}", f"--out={world.fakes}", "--count=40", "--steps=4", "--seed=1"]
    completed(world.python("-m", "ddo_plugin", "refset", "make", *sampling, **upstream))
    return world


@pytest.fixture(scope="module")
def tuned(latents, completed) -> Path:
    out = latents.root / "tuned"
    completed(latents.finetune(f"--outdir={out}", "--duration=1024", "--lr=1e-2", "--ddo-rampup=0"))
    return out


def test_the_reference_set_holds_final_latents_as_upstreams_sampler_makes_them(latents, completed) -> None:
    made = refset.open_refset(latents.fakes)
    assert (made.samples.shape, made.samples.dtype, made.labels) == ((40, 4, 16, 16), np.float32, None)
    arguments = [latents.base, latents.fakes / "images.npy"]
    program = ["-c", UPSTREAMS_SAMPLER, *arguments]
    assert float(completed(latents.python(*program, PYTHONPATH=str(latents.repo)))) < 1e-4


@pytest.fixture(scope="module")
def decoding(latents) -> Any:
    """The world of latents with a stand-in for the autoencoder."""
    (latents.root / "stub").mkdir()
    (latents.root / "stub/diffusers.py").write_text(AUTOENCODER)
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
    shared = ["--seeds=0-5", "--batch=3", "--steps=25", f"--gnet={tuned / LAST}", "--guidance=1.1"]
    out = tmp_path / "theirs"
    sampling.release(decoding, completed, checkout("DDO"), out, f"--net={decoding.base}", *shared, "--dpmv3")
    ours = [f"--network={decoding.base}", f"--outdir={tmp_path / 'ours'}", "--solver=dpm-solver-v3"]
    sampling.ours(decoding, completed, ["sample"], *ours, *shared)
    sampling.assert_close_images(tmp_path / "ours", out)


def test_without_diffusers_latents_cannot_be_looked_at_and_the_line_says_so(latents, refused, tmp_path) -> None:
    if importlib.util.find_spec("diffusers"):
        pytest.skip("diffusers is installed here")
    sample = ["-m", "ddo_plugin", "sample", f"--network={latents.base}", f"--grid={tmp_path / 'grid.png'}", "--steps=2"]
    line = refused(latents.python(*sample, "--seeds=0", PYTHONPATH=str(latents.repo)))
    assert "makes latents; to decode them: pip install diffusers" in line
    assert not (tmp_path / "grid.png").exists()


def test_the_first_step_has_r_exactly_0_and_the_round_learns(tuned: Path) -> None:
    rows = statistics.read(tuned / statistics.FILE_NAME)
    assert rows[0]["rewards/real"] == rows[0]["rewards/fake"] == 0
    assert rows[-1]["rewards/margin"] > 0.05
    assert rows[0]["accuracies/fake"] == 0 < rows[-1]["accuracies/fake"]


def test_the_snapshot_keeps_the_references_encoder(tuned: Path, latents) -> None:
    ours, base = (contents.describe(path).objects["encoder"] for path in (tuned / LAST, latents.base))
    assert ours.class_name == base.class_name == "StabilityVAEEncoder"
    assert ours.init_kwargs == base.init_kwargs == {"raw_mean": [1, 2, 3, 4]}
    assert json.loads((tuned / "training_options.json").read_text())["loss_kwargs"]["noise"]["P_mean"] == -0.4


def test_pristine_generate_images_makes_latents_of_an_autoguided_pair_without_our_package(tuned, latents, completed):
    completed(latents.python("-c", GENERATE, tuned / LAST, latents.base, PYTHONPATH=str(latents.repo)))


def test_pixels_for_a_reference_of_latents_are_refused(latents, images, tmp_path) -> None:
    pixels = images(tmp_path / "pixels.zip", side=16, channels=3, labelled=False)
    process = latents.finetune(f"--outdir={tmp_path / 'out'}", "--duration=1024", f"--data={pixels}")
    assert process.returncode == 2
    assert "has (3, 16, 0) channels, resolution and classes, but --ddo=" in process.stderr
    assert process.stderr.strip().endswith("has (8, 16, 0)")
