"""`ddo convert` between what upstream's trainer writes and what upstream's own code reads."""

from __future__ import annotations

import pytest
import torch

# As upstream's notebook loads a published network, where our packages cannot be imported.
LOAD = """
import sys
sys.modules.update(dict.fromkeys(("ddo_plugin", "ddo_integrations")))
import torch
from models import build_vae_var
vae, var = build_vae_var(V=4096, Cvae=32, ch=160, share_quant_resi=4, device="cpu", patch_nums=(1, 2, 3),
    num_classes=1000, depth=2, shared_aln=False)
vae.load_state_dict(torch.load("vae_ch160v4096z32.pth"), strict=True)
var.load_state_dict(torch.load(sys.argv[1]), strict=True)
assert var.eval().autoregressive_infer_cfg(B=2, label_B=1, g_seed=0).isfinite().all()
"""


@pytest.fixture(scope="module")
def native(world, completed):
    """The checkpoint of one epoch by pristine VAR."""
    completed(world.train_pristine("--local_out_dir_path=to-convert"))
    return world.root / "to-convert/ar-ckpt-last.pth"


def test_pristine_var_samples_with_the_converted_network(native, world, completed, tmp_path):
    plain = tmp_path / "var_d2.pth"
    completed(world.python("-m", "ddo_plugin", "convert", native, plain))
    stored, base = torch.load(plain), torch.load(world.base)
    assert stored.keys() == base.keys()
    trained = torch.load(native)["trainer"]["var_wo_ddp"]
    assert all(torch.equal(stored[name], trained[name]) for name in trained)
    assert plain.stat().st_size < 1.01 * world.base.stat().st_size < native.stat().st_size / 2
    path = f"{world.repo}:{world.variables['PYTHONPATH']}"
    completed(world.python("-c", LOAD, plain, PYTHONPATH=path))


@pytest.mark.thorough
def test_pristine_var_trains_on_from_plain_weights(native, world, completed, tmp_path):
    folder = tmp_path / "resumed"
    folder.mkdir()
    made = folder / "ar-ckpt-start.pth"
    completed(world.python("-m", "ddo_plugin", "convert", world.base, made, f"--like={native}"))
    out = completed(world.train_pristine(f"--local_out_dir_path={folder}", "--tblr=0"))
    assert "resume from ep0, it0" in out
    assert "var_wo_ddp missing:  []" in out
    assert "config mismatch" not in out
    last, base = torch.load(folder / "ar-ckpt-last.pth"), torch.load(world.base)
    assert last["epoch"] == 1
    assert all(torch.equal(last["trainer"]["var_wo_ddp"][name], base[name]) for name in base), "lr 0 moved weights"
