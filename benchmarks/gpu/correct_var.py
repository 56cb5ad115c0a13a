"""Correctness of VAR on a GPU: `python -m benchmarks.gpu.correct_var CHECKOUT FOLDER`.

A tiny network goes through short rounds of VAR's train.py in each precision, compiled, and under torchrun.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.gpu.results import attempt
from benchmarks.gpu.world import ROOT, World, check_all, difference, first_step, write_folders

TESTS = ROOT / "tests/upstream/var"  # a narrow image tokenizer, and networks that behave as if trained
VAE, BASE = "vae_ch160v4096z32.pth", "var_d2.pth"
FLAGS = ["--data_path=images", "--depth=2", "--pn=1_2_3", "--bs=12", "--ep=1", "--seed=0", "--tblr=5e-3"]
DDO = [f"--ddo={BASE}", "--ddo_alpha=10", "--ddo_beta=0.05", "--ddo_save=8", "--ddo_state=4"]
AMP = ["--ddo_fakes_from=tokens", "--ddo_fakes_precision=amp"]  # likelihoods of fakes are those of the sampler
STEPS = 16
LAST = f"var_d2-ddo-{STEPS:04d}.pth"

# Upstream's own inference, in a process that cannot import this package.
PRISTINE = """
import sys
sys.modules["ddo_plugin"] = sys.modules["ddo_integrations"] = None
import torch
from models import build_vae_var
device = "cuda" if torch.cuda.is_available() else "cpu"
vae, var = build_vae_var(device=device, patch_nums=(1, 2, 3), depth=2)
vae.load_state_dict(torch.load(sys.argv[1], map_location="cpu"), strict=True)
var.load_state_dict(torch.load(sys.argv[2], map_location="cpu"), strict=True)
labels = torch.tensor([0, 1], device=device)
images = var.eval().autoregressive_infer_cfg(B=2, label_B=labels, cfg=1.5, g_seed=0)
assert images.shape == (2, 3, 48, 48) and images.isfinite().all()
"""


class Part:
    """The checks of VAR."""

    def __init__(self, checkout: Path, folder: Path):
        self.world = World(checkout, folder, 29800)
        self.stand_ins = TESTS / "stand_ins"

    def run(self) -> None:
        """Prepare the networks, then run all checks side by side."""
        if not attempt("var", "base network", self.prepare):
            return
        attempt("var", "first step", lambda: first_step(self.finetuned("whole")))
        check_all(
            "var",
            {
                "compiled, --tfast=3": lambda: first_step(self.finetuned("compiled", "--tfast=3", steps=2)),
                "first step, fp16": lambda: first_step(self.finetuned("fp16", "--fp16=1", steps=2)),
                "first step, bf16": lambda: first_step(self.finetuned("bf16", "--fp16=2", steps=2)),
                "first step, fp16, also of fakes": lambda: first_step(
                    self.finetuned("amp16", "--fp16=1", *AMP, steps=2)
                ),
                "first step, bf16, also of fakes": lambda: first_step(
                    self.finetuned("ampbf", "--fp16=2", *AMP, steps=2)
                ),
                "first step, no TF32": lambda: first_step(self.finetuned("fp32", "--tf32=0", steps=2)),
                "kill and resume": self.resume,
                "repeat": lambda: self.against_whole(self.finetuned("repeated")),
                "NCCL, one rank": lambda: first_step(self.finetuned("nccl", steps=2, ranks=1)),
                "pristine sampling": self.pristine,
                "refset twice": self.refset_twice,
                "first step, stored fakes": self.stored_fakes,
            },
        )

    def prepare(self) -> Mapping[str, Any]:
        root = self.world.root
        write_folders(root / "images/train", 12)
        write_folders(root / "images/val", 4)
        made = ["1_2_3", root / "images/train", root / VAE, root / BASE]
        paths = [self.world.checkout, self.stand_ins]
        self.world.python(TESTS / "make_networks.py", *made, paths=paths, CUDA_VISIBLE_DEVICES="")  # it is for the CPU
        return {}

    def command(self, name: str, *flags: str, steps: int, ranks: int = 0) -> list[str]:
        """Return the command of a round that writes to the folder `name`."""
        own = [*FLAGS, *DDO, f"--ddo_iters={steps}", f"--local_out_dir_path={self.world.root / name}", *flags]
        return self.world.run("train.py", *own, ranks=ranks)

    def finetuned(self, name: str, *flags: str, steps: int = STEPS, ranks: int = 0) -> Path:
        """Run a round and return its folder."""
        self.world.python(*self.command(name, *flags, steps=steps, ranks=ranks), paths=[self.stand_ins])
        return self.world.root / name

    def against_whole(self, folder: Path) -> Mapping[str, Any]:
        """Compare the end of a round with that of the first, uninterrupted round."""
        one, other = (torch.load(path / LAST, map_location="cpu") for path in (self.world.root / "whole", folder))
        return difference(one, other)

    def resume(self) -> Mapping[str, Any]:
        """Kill a round after its first training state, and run the same command again."""
        folder = self.world.root / "killed"
        ready = (folder / "ar-ckpt-ddo.pth").exists
        self.world.kill_once(self.command("killed", steps=STEPS), ready, paths=[self.stand_ins])
        return {**self.against_whole(self.finetuned("killed")), "steps": first_step(folder)["steps"]}

    def pristine(self) -> Mapping[str, Any]:
        files = [self.world.root / VAE, self.world.root / "whole" / LAST]
        self.world.python("-c", PRISTINE, *files, paths=[self.world.checkout, self.stand_ins])
        return {}

    def refset(self, name: str) -> str:
        """Make a reference set of tokens and return its SHA-256."""
        flags = [f"--network={BASE}", f"--out={name}", "--count=24", "--labels=0,1,2"]
        command = ["-m", "ddo_plugin", "refset", "make", f"--checkout={self.world.checkout}", *flags]
        self.world.python(*command, paths=[self.stand_ins])
        return hashlib.sha256((self.world.root / name / "tokens.npy").read_bytes()).hexdigest()

    def refset_twice(self) -> Mapping[str, Any]:
        return {"equal": self.refset("tokens-1") == self.refset("tokens-2")}

    def stored_fakes(self) -> Mapping[str, Any]:
        """Train on a reference set, whose log-probabilities are those of the sampler."""
        self.refset("tokens-3")
        return first_step(self.finetuned("stored", "--ddo_fakes=tokens-3", steps=2))


@click.command()
@click.argument("checkout", type=click.Path(exists=True, path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def main(checkout: Path, folder: Path) -> None:
    """Check VAR with a tiny network."""
    Part(checkout.resolve(), folder.resolve()).run()


if __name__ == "__main__":
    main()
