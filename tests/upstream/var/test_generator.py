"""`ddo refset make` and `ddo sample` on VAR: tokens for rounds, and upstream's own images of the same seeds."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from ddo_plugin.base.files import sha256_file
from ddo_plugin.finetuning import statistics
from ddo_plugin.sampling.refsets import format as refset
from ddo_plugin.snapshots import sidecar

pytestmark = pytest.mark.thorough

Image = pytest.importorskip("PIL.Image")

VAE = "vae_ch160v4096z32.pth"

# Upstream's inference, as the release's VAR_sample.py turns it into pixels, one image a seed.
PRISTINE = """
import sys
sys.modules["ddo_plugin"] = sys.modules["ddo_integrations"] = None
import numpy as np
import torch
from models import build_vae_var
vae, var = build_vae_var(V=4096, Cvae=32, ch=160, share_quant_resi=4, device="cpu", patch_nums=(1, 2, 3), depth=2)
vae.load_state_dict(torch.load(sys.argv[1])), var.load_state_dict(torch.load(sys.argv[2]))
label, settings = eval(sys.argv[4]), eval(sys.argv[5])
made = []
for seed in range(3):
    image = var.eval().autoregressive_infer_cfg(B=1, label_B=label, g_seed=seed, **settings)
    made.append(image.permute(0, 2, 3, 1).mul(255).numpy().astype(np.uint8))
np.save(sys.argv[3], np.concatenate(made))
"""

# Upstream's own round trip and log-probabilities, of the tokens in stored sets.
PRISTINE_TOKENS = """
import sys
sys.modules["ddo_plugin"] = sys.modules["ddo_integrations"] = None
import numpy as np
import torch
from models import build_vae_var
vae_file, var_file, drawn, stored, out = sys.argv[1:]
vae, var = build_vae_var(V=4096, Cvae=32, ch=160, share_quant_resi=4, device="cpu", patch_nums=(1, 2, 3), depth=2)
vae.load_state_dict(torch.load(vae_file)), var.load_state_dict(torch.load(var_file))
var.eval().cond_drop_rate = 0
scales = lambda folder: list(torch.from_numpy(np.load(f"{folder}/tokens.npy")).long().split([1, 4, 9], 1))
with torch.no_grad():
    pixels = vae.idxBl_to_img(scales(drawn), same_shape=True, last_one=True)
    tokens = torch.cat(vae.img_to_idxBl(pixels), 1)
    labels = torch.from_numpy(np.load(f"{stored}/labels.npy"))
    logits = var(labels, vae.quantize.idxBl_to_var_input(scales(stored)))
    logp = logits.log_softmax(-1).gather(2, torch.cat(scales(stored), 1)[..., None]).squeeze(2)
np.savez(out, tokens=tokens.numpy(), logp=logp.numpy())
"""

# Upstream's images of the first eight rows of a set.
DECODED = """
import sys
sys.modules["ddo_plugin"] = sys.modules["ddo_integrations"] = None
import numpy as np
import torch
from models import build_vae_var
vae, _ = build_vae_var(device="cpu", patch_nums=(1, 2, 3), depth=2)
vae.load_state_dict(torch.load(sys.argv[1]))
tokens = torch.from_numpy(np.load(sys.argv[2])[:8]).long()
with torch.no_grad():
    images = vae.idxBl_to_img(list(tokens.split([1, 4, 9], 1)), same_shape=True, last_one=True)
np.save(sys.argv[3], images.add(1).mul(127.5).permute(0, 2, 3, 1).numpy().astype(np.uint8))
"""

ROUND_TRIPS = """
import sys
import torch
from models import build_vae_var
from ddo_integrations.var.draw import through_pixels
torch.manual_seed(0)
vae, _ = build_vae_var(device="cpu", patch_nums=(1, 2, 3), depth=2)
vae.load_state_dict(torch.load(sys.argv[1]))
f_hat = 2 * torch.randn(16, 32, 3, 3)
pixels = vae.fhat_to_img(f_hat)
expected = torch.cat(vae.img_to_idxBl(pixels), 1)
with torch.autocast("cpu", dtype=torch.bfloat16):
    assert not torch.equal(vae.fhat_to_img(f_hat), pixels)
    assert torch.equal(through_pixels(vae, f_hat), expected)
    assert torch.equal(through_pixels(torch.compile(vae, backend="eager"), f_hat), expected)
"""

SET = ["--count=30", "--labels=0-2", "--batch=8"]


@pytest.fixture(scope="module")
def command(world):
    """A function: arguments of `ddo` -> the finished process."""

    def run(*arguments: object):
        return world.python("-m", "ddo_plugin", *arguments, f"--checkout={world.repo}")

    return run


@pytest.fixture(scope="module")
def make_set(world, completed, command):
    """A function: name and arguments of `ddo refset make` -> the folder of the set."""

    def make(name: str, *flags: str) -> Path:
        out = world.root / name
        completed(command("refset", "make", f"--network={world.base}", f"--out={out}", *SET, *flags))
        return out

    return make


@pytest.fixture(scope="module")
def fakes(make_set) -> Path:
    return make_set("tokens")


@pytest.fixture(scope="module")
def encoded(make_set) -> Path:
    return make_set("encoded", "--through-pixels")


@pytest.fixture(scope="module")
def python(world):
    """A function: code that imports upstream, and its arguments -> the finished process."""
    variables = {"PYTHONPATH": f"{world.repo}:{world.variables['PYTHONPATH']}"}
    return lambda code, *arguments: world.python("-c", code, *arguments, **variables)


@pytest.fixture(scope="module")
def pristine(world, completed, python):
    """A function: drawn tokens, a set -> upstream's encoding of the tokens, its log-probabilities of the set."""

    def compute(drawn: Path, stored: Path):
        out = world.root / "pristine.npz"
        completed(python(PRISTINE_TOKENS, world.root / VAE, world.base, drawn, stored, out))
        return np.load(out)

    return compute


def test_a_reference_set_holds_tokens_and_labels_and_names_its_network(fakes: Path, world) -> None:
    made = refset.open_refset(fakes)
    made.verify()
    assert made.manifest["kind"] == "tokens"
    assert made.samples.shape == (30, 14) and made.samples.dtype == np.int16
    assert made.labels.tolist() == [0, 1, 2] * 10
    assert len(np.unique(made.samples)) > 50
    assert made.manifest["sampler"]["cfg"] == 0
    assert "through_pixels" not in made.manifest["sampler"]  # earlier versions did not name it


@pytest.mark.parametrize("flags", [[], ["--through-pixels"]])
def test_two_ranks_make_the_same_set(flags, fakes: Path, encoded: Path, make_set) -> None:
    two = make_set(f"two{len(flags)}", *flags, "--torchrun=--standalone --nproc_per_node=2")
    manifests = [refset.open_refset(path).manifest for path in (encoded if flags else fakes, two)]
    assert manifests[0]["arrays"] == manifests[1]["arrays"]
    assert manifests[0]["arrays"].keys() == {"tokens.npy", "labels.npy", "logp.npy"}


@pytest.mark.parametrize("through_pixels", [False, True])
def test_log_probabilities_are_those_of_upstreams_forward(through_pixels, fakes, encoded, pristine) -> None:
    stored = encoded if through_pixels else fakes
    logp = refset.open_refset(stored).logp.astype(float).sum(1)
    assert np.abs(logp - pristine(fakes, stored)["logp"].astype(float).sum(1)).max() < 1e-4
    assert logp.mean() < -30 and logp.std() > 1


def test_with_guidance_log_probabilities_are_those_of_the_unguided_network(fakes, make_set, pristine) -> None:
    guided = make_set("guided", "--cfg=1.5", "--top-k=900")
    opened = refset.open_refset(guided)
    assert (opened.samples != refset.open_refset(fakes).samples).any()
    expected = pristine(fakes, guided)["logp"].astype(float).sum(1)
    assert np.abs(opened.logp.astype(float).sum(1) - expected).max() < 1e-4


def test_through_pixels_the_tokens_are_upstreams_encoding_of_the_decoded_tokens(fakes, encoded, pristine) -> None:
    made = refset.open_refset(encoded)
    assert made.manifest["sampler"]["through_pixels"] is True
    assert "departs_by" not in made.manifest["sampler"]
    np.testing.assert_array_equal(made.samples, pristine(fakes, encoded)["tokens"])
    changed = (made.samples != refset.open_refset(fakes).samples).mean()
    assert changed > 0.1  # the round trip is not the identity
    assert len(np.unique(made.samples)) > 50


def test_the_round_trip_is_in_full_precision_and_works_on_a_compiled_tokenizer(world, completed, python) -> None:
    completed(python(ROUND_TRIPS, world.root / VAE))


def test_images_through_pixels_are_those_of_the_stored_tokens(
    make_set, world, completed, command, python, tmp_path
) -> None:
    stored = make_set("encoded-0", "--through-pixels", "--seed=0")  # sample i is the image of seed i
    ours, theirs = tmp_path / "ours.npz", tmp_path / "theirs.npy"
    flags = ["--seeds=0-7", "--labels=0-2", "--batch=8", "--through-pixels", f"--npz={ours}"]
    completed(command("sample", f"--network={world.base}", *flags))
    completed(python(DECODED, world.root / VAE, stored / "tokens.npy", theirs))
    difference = np.abs(np.load(ours)["arr_0"].astype(int) - np.load(theirs).astype(int))
    assert difference.max() <= 1
    assert np.load(theirs).std() > 5


@pytest.mark.parametrize("through_pixels", [False, True])
def test_a_round_takes_its_fakes_and_their_log_probabilities_from_a_set(
    through_pixels, fakes: Path, encoded: Path, world, completed
) -> None:
    source, way = (encoded, "pixels") if through_pixels else (fakes, "tokens")
    flags = [f"--ddo={world.base}", f"--ddo_fakes={source}", "--ddo_strict", "--ddo_iters=3", "--tblr=5e-3"]
    out = world.root / f"from-{way}"
    run = world.train(*flags, "--ddo_alpha=10", "--ddo_beta=0.05", f"--local_out_dir_path={out}")
    completed(run)
    rows = statistics.read(out / statistics.FILE_NAME)
    assert abs(rows[0]["rewards/real"]) < 1e-5 and abs(rows[0]["rewards/fake"]) < 1e-5
    assert rows[0]["loss/fake"] == pytest.approx(10 * math.log(2), rel=1e-6)
    assert rows[-1]["rewards/margin"] > 0
    told = sidecar.read(out / "var_d2-ddo-0003.pth")
    assert told["fakes"]["reference_sha256"] == told["reference"]["sha256"]
    assert told["options"]["ddo_fakes_from"] == way
    assert ("tokens as they were drawn" in run.stderr) is (not through_pixels)


def test_a_round_takes_a_guided_set_and_records_its_guidance(make_set, world, completed) -> None:
    guided = make_set("guided", "--cfg=1.5", "--top-k=900")
    out = world.root / "from-guided"
    run = world.train(f"--ddo={world.base}", f"--ddo_fakes={guided}", "--ddo_iters=2", f"--local_out_dir_path={out}")
    completed(run)
    assert "the fakes were sampled with --cfg, --top-k, so they do not follow" in run.stderr
    assert abs(statistics.read(out / statistics.FILE_NAME)[0]["rewards/fake"]) < 1e-5
    assert sidecar.read(out / "var_d2-ddo-0002.pth")["options"]["ddo_fakes_cfg"] == 1.5


def test_log_probabilities_of_another_reference_are_refused(fakes: Path, world, refused) -> None:
    other = world.root / "var_d2_other.pth"
    weights = torch.load(world.base)
    torch.save({**weights, "head.bias": weights["head.bias"] + 0.01}, other)
    line = refused(world.train(f"--ddo={other}", f"--ddo_fakes={fakes}", "--local_out_dir_path=other"))
    assert f"holds log-probabilities under another network than --ddo={other}" in line


@pytest.mark.parametrize(
    ("flags", "label", "settings"),
    [
        (["--labels=1"], "torch.tensor([1])", {"cfg": 0}),
        ([], "None", {"cfg": 0}),
        (["--labels=2", "--cfg=1"], "torch.tensor([2])", {"cfg": 1}),
        (
            ["--labels=2", "--cfg=1.5", "--top-k=900", "--top-p=0.96"],
            "torch.tensor([2])",
            {"cfg": 1.5, "top_k": 900, "top_p": 0.96},
        ),
        (["--labels=2", "--cfg=4", "--more-smooth"], "torch.tensor([2])", {"cfg": 4, "more_smooth": True}),
    ],
    ids=["guidance-free", "random classes", "by the release's 1.0", "guided and cut", "smooth"],
)
def test_a_seed_gives_upstreams_image(flags, label, settings, world, completed, command, tmp_path) -> None:
    archive, theirs = tmp_path / "ours.npz", tmp_path / "theirs.npy"
    completed(command("sample", f"--network={world.base}", "--seeds=0-2", "--batch=1", f"--npz={archive}", *flags))
    variables = {"PYTHONPATH": f"{world.repo}:{world.variables['PYTHONPATH']}"}
    vae = world.root / VAE
    completed(world.python("-c", PRISTINE, vae, world.base, theirs, label, repr(settings), **variables))
    ours = np.load(archive)["arr_0"].astype(int)
    difference = np.abs(ours - np.load(theirs).astype(int))
    assert difference.max() <= 1  # the decoder is handed the same features, summed up in another order
    assert (difference > 0).mean() < 1e-3
    assert ours.std() > 5


def test_the_releases_command_line_makes_its_pngs_and_its_npz(world, completed, command, tmp_path: Path) -> None:
    """VAR_sample.py --cfg 1.4: balanced classes, in one pass, on two ranks; the npz holds the PNGs."""
    flags = ["--labels=uniform", "--cfg=1.4", "--seeds=0-6", "--batch=2", f"--network={world.base}"]
    outputs = [f"--outdir={tmp_path / 'samples'}", f"--npz={tmp_path / 'samples.npz'}"]
    completed(command("sample", "--torchrun=--standalone --nproc_per_node=2", *flags, *outputs))
    read = np.load(tmp_path / "samples.npz")
    pngs = sorted((tmp_path / "samples").glob("*.png"))
    assert [path.name for path in pngs] == [f"{seed:06d}.png" for seed in range(7)]
    np.testing.assert_array_equal(read["arr_0"], np.stack([np.asarray(Image.open(path)) for path in pngs]))
    assert read["arr_1"].tolist() == list(range(7))


def test_a_network_of_another_upstream_is_refused_in_one_line(world, refused, command, tmp_path: Path) -> None:
    other = tmp_path / "edm.pkl"
    other.write_bytes(pickle.dumps({"ema": Path("a class of its own")}, protocol=4))
    line = refused(command("sample", f"--network={other}", "--grid=look.png"))
    assert line.startswith(f"Error: --network={other} cannot be read as a file of tensors (pathlib.PosixPath); ")


def test_a_missing_tokenizer_is_named(world, refused, command) -> None:
    process = command("sample", f"--network={world.base}", "--grid=look.png", "--vae=nowhere.pth")
    assert "--vae=nowhere.pth: no such file" in refused(process)


def test_another_tokenizer_makes_another_set(fakes: Path, world, refused, command, tmp_path: Path) -> None:
    import torch

    vae = torch.load(world.root / VAE)
    told = refset.open_refset(fakes).manifest["sampler"]["vae"]
    assert told["sha256"] == sha256_file(world.root / VAE)
    other = tmp_path / "other.pth"
    torch.save({name: tensor * 1.5 if tensor.is_floating_point() else tensor for name, tensor in vae.items()}, other)
    flags = [f"--network={world.base}", f"--out={fakes}", "--count=30", "--labels=0-2", "--batch=8"]
    line = refused(command("refset", "make", *flags, f"--vae={other}"))
    assert f"holds another set: its sampler.vae.sha256 is {told['sha256']}, not {sha256_file(other)}" in line


def test_the_tokenizer_is_found_in_the_checkout(world, completed, refused, command, tmp_path: Path) -> None:
    """By who samples from elsewhere; nothing is copied there."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    chdir = f"import os, runpy; os.chdir({str(elsewhere)!r}); runpy.run_module('ddo_plugin', run_name='__main__')"
    flags = ["sample", f"--checkout={world.repo}", f"--network={world.base}", "--seeds=0", "--npz=a.npz"]
    offline = {"DNNLIB_CACHE_DIR": str(tmp_path / "cache"), "https_proxy": "http://127.0.0.1:9"}
    there = world.repo / VAE
    there.symlink_to(world.root / VAE)
    try:
        completed(world.python("-c", chdir, *flags, **offline))
    finally:
        there.unlink()
    assert VAE not in [path.name for path in elsewhere.iterdir()]
    line = refused(world.python("-c", chdir, *flags, **offline))
    assert (
        f"{VAE} is neither in {elsewhere} nor in {world.repo}, and its download failed; pass it as --vae=FILE" in line
    )


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--vae={base}"], "does not hold the weights of VAR's image tokenizer"),
        (["--top-k=5000"], "--top-k=5000: the network has only 4096 tokens"),
        (["--more-smooth", "--through-pixels"], "--through-pixels encodes images to tokens again, but --more-smooth"),
    ],
)
def test_what_does_not_fit_the_network_is_refused(flags, says, world, refused, command) -> None:
    told = [flag.format(base=world.base) for flag in flags]
    assert says in refused(command("sample", f"--network={world.base}", "--grid=look.png", *told))
