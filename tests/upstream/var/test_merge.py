"""`ddo merge` on real weights of VAR, which upstream's pristine class loads."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ddo_plugin.base.files import sha256_file
from ddo_plugin.sampling.refsets import format as refset
from ddo_plugin.snapshots import sidecar

BUFFERS = ("lvl_1L", "attn_bias_for_masking")

# As upstream's notebook loads and samples a published network, where our packages cannot be imported.
PRISTINE = """
import sys
sys.modules["ddo_plugin"] = sys.modules["ddo_integrations"] = None
import numpy as np
import torch
from models import build_vae_var
vae, var = build_vae_var(V=4096, Cvae=32, ch=160, share_quant_resi=4, device="cpu", patch_nums=(1, 2, 3), depth=2)
vae.load_state_dict(torch.load("vae_ch160v4096z32.pth"), strict=True)
var.load_state_dict(torch.load(sys.argv[1]), strict=True)
settings = {"cfg": 1.5, "top_k": 900, "top_p": 0.95}
made = [var.eval().autoregressive_infer_cfg(B=1, label_B=1, g_seed=seed, **settings) for seed in (0, 1)]
np.save(sys.argv[2], torch.cat(made).permute(0, 2, 3, 1).mul(255).numpy().astype(np.uint8))
"""


@pytest.fixture(scope="module")
def tuned(world) -> Path:
    """The base with weights that moved a little, as a round moves them."""
    torch.manual_seed(0)
    state = torch.load(world.base)
    moved = {name: t + 0.05 * torch.randn_like(t) if name not in BUFFERS else t for name, t in state.items()}
    path = world.root / "var_d2-ddo-0010.pth"
    torch.save(moved, path)
    return path


@pytest.fixture(scope="module")
def merged(world, tuned, completed) -> Callable[[str], Path]:
    """A function: w -> the weights that `ddo merge` made of the base and the tuned network."""
    out = world.root / "merged"
    flags = ["--w=0,0.5,1,1.5,-1", f"--outdir={out}", f"--checkout={world.repo}"]
    told = completed(world.python("-m", "ddo_plugin", "merge", world.base, tuned, *flags))
    assert "a VAR of depth 2" in told
    return lambda w: out / f"var_d2-ddo-0010-w{w}.pth"


def test_w_0_and_1_reproduce_the_parents_bit_for_bit(merged, world, tuned) -> None:
    for w, parent in (("0", world.base), ("1", tuned)):
        made, stored = torch.load(merged(w)), torch.load(parent)
        assert list(made) == list(stored)
        assert all(made[name].dtype == stored[name].dtype and made[name].equal(stored[name]) for name in stored)


def test_the_others_are_on_the_line_and_buffers_are_those_of_a(merged, world, tuned) -> None:
    a, b = torch.load(world.base), torch.load(tuned)
    for w in ("0.5", "1.5", "-1"):
        made = torch.load(merged(w))
        for name in a:
            exact = a[name] if name in BUFFERS else a[name].double() + float(w) * (b[name].double() - a[name].double())
            assert made[name].equal(exact.to(a[name].dtype))


def test_pristine_var_samples_it_without_our_package_as_ddo_sample_does(merged, world, completed, tmp_path) -> None:
    image = pytest.importorskip("PIL.Image")
    path = f"{world.repo}:{world.variables['PYTHONPATH']}"
    completed(world.python("-c", PRISTINE, merged("1.5"), tmp_path / "theirs.npy", PYTHONPATH=path))
    own = [f"--checkout={world.repo}", f"--network={merged('1.5')}", f"--vae={world.root / 'vae_ch160v4096z32.pth'}"]
    sampler = ["--cfg=1.5", "--top-k=900", "--top-p=0.95", "--seeds=0-1", "--labels=1", f"--outdir={tmp_path / 'ours'}"]
    completed(world.python("-m", "ddo_plugin", "sample", *own, *sampler))
    theirs = np.load(tmp_path / "theirs.npy")
    for seed in range(2):
        ours = np.asarray(image.open(tmp_path / f"ours/{seed:06d}.png"))
        assert np.abs(ours.astype(int) - theirs[seed]).max() <= 1


@pytest.mark.thorough
def test_it_is_the_reference_of_a_round_and_of_a_set(merged, world, completed, tmp_path) -> None:
    network = merged("1.5")
    own = [f"--checkout={world.repo}", f"--network={network}", f"--vae={world.root / 'vae_ch160v4096z32.pth'}"]
    completed(world.python("-m", "ddo_plugin", "refset", "make", *own, "--count=6", f"--out={tmp_path / 'set'}"))
    assert refset.open_refset(tmp_path / "set").manifest["reference"]["sha256"] == sha256_file(network)
    out = tmp_path / "out"
    completed(world.train(f"--ddo={network}", f"--local_out_dir_path={out}"))
    made = sidecar.read(sidecar.snapshots(out)[-1])
    assert made["reference"]["sha256"] == sidecar.sha256(network)


@pytest.fixture
def refuse(world, refused, tmp_path) -> Callable[..., str]:
    """A function: two networks, the name of the result -> the line that refuses; nothing is written."""

    def told(a: Path, b: Path, name: str = "new.pth") -> str:
        own = ["--w=0.5", f"--out={tmp_path / 'new' / name}", f"--checkout={world.repo}"]
        line = refused(world.python("-m", "ddo_plugin", "merge", a, b, *own))
        assert not (tmp_path / "new").exists()
        return line

    return told


def test_networks_that_do_not_belong_together_are_refused(world, tuned, refuse, tmp_path) -> None:
    assert "different architectures" in refuse(world.base, world.root / "var_d2_shared.pth")
    line = refuse(world.root / "var_d2_own.pth", tuned)
    assert "class_emb.weight is (4, 128) float32 and (1001, 128) float32" in line
    native = tmp_path / "ar-ckpt-last.pth"
    torch.save({"trainer": {"var_wo_ddp": torch.load(world.base)}}, native)
    assert "does not hold plain weights; extract them with `ddo convert" in refuse(world.base, native)


def test_damaged_files_and_misleading_names_are_refused(world, tuned, refuse, tmp_path) -> None:
    cut = Path(shutil.copy(tuned, tmp_path / "cut.pth"))
    cut.write_bytes(cut.read_bytes()[:-1000])
    assert "cut.pth cannot be read as a file of tensors" in refuse(world.base, cut)
    assert "var_d16.pth: the name means depth 16" in refuse(world.base, tuned, "var_d16.pth")
