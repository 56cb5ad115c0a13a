"""The commands that the faults hit. They work in a copy of the folder that world.py fills."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from tests.faults.injection import Case
from tests.processes import run_python

DDO = ["-m", "ddo_plugin"]
DIGITS = ["--network=network.safetensors", "--upstream=digits", "--family=diffusion", "--data=data"]
SAMPLE = [*DDO, "sample", *DIGITS, "--seeds=0-2", "--labels=uniform"]
TRAIN = ["-m", "ddo_integrations.demo.train", "--family=diffusion", "--data=data", "--outdir=trained", "--batch=8"]
ROUND = ["--ddo=network.safetensors", "--ddo-fakes=fakes", "--steps=4", "--snap=2", "--dump=2"]
PARENTS = ["network.safetensors", "finetuned.safetensors", "--upstream=digits"]
EXISTS = "already exists and is not overwritten"
EVAL = [*DDO, "eval", "samples.npz", "--ref=samples.npz", "--features=digits:data", "--metrics=fid", "--out=new.json"]
# The process that `ddo eval --checkout` becomes. The file "script" takes the place of upstream's scripts.
EDM = "import sys; sys.executable = './script'; from ddo_integrations.edm.evaluate import main; main()"
EVAL_EDM = ["-c", EDM, "--checkout=checkout", "--ref=ref.npz", "--num=4", "--out=new.json"]

STAND_IN = {"PYTHONPATH": "{beside}/stand-in/site", "STANDIN_NOTES": "/dev/null"}
CASES = {  # that which takes longest first
    "training": Case([*TRAIN, *ROUND], env={"DDO_PROGRESS": "trained.progress"}, optional=("trained.progress",)),
    "refset make": Case([*DDO, "refset", "make", *DIGITS, "--count=4", "--batch=2", "--labels=uniform", "--out=new"]),
    "refset pack": Case([*DDO, "refset", "pack", "images", "new", "--class=1"], exists=EXISTS),
    "refset unpack": Case([*DDO, "refset", "unpack", "set", "new.zip"], exists=EXISTS),
    "sample to a folder": Case([*SAMPLE, "--outdir=new", "--subdirs"]),
    "sample to an npz": Case([*SAMPLE, "--npz=new.npz"]),
    "sample to a grid": Case([*SAMPLE, "--grid=new.png"]),
    "convert": Case([*DDO, "convert", "ar-ckpt-last.pth", "new.pth"], exists=EXISTS),
    "merge": Case([*DDO, "merge", *PARENTS, "--w=0.5,2", "--outdir=new"]),
    "eval": Case(EVAL),
    "eval of a network by upstream": Case([*EVAL_EDM, "--network=network.pkl"]),
    "eval of samples by upstream": Case([*EVAL_EDM, "--network=set"]),
    "cp": Case([*DDO, "cp", "digits", "new.toml"], exists=EXISTS),
    "curve": Case(
        [*DDO, "curve", "--scales=1,2", "--out=new", "--", sys.executable, "-S", "measure.py", "{out}", "{scale}"]
    ),
    "selfplay": Case([*DDO, "selfplay", "recipe.toml", "--out=new"], env=STAND_IN),
    "report": Case([*DDO, "report", "played"], env=STAND_IN),
    "download": Case([*DDO, "inspect", "{server}/network.pkl"], env={"DNNLIB_CACHE_DIR": "cache"}),
}
PATCHING = {name: Case([*DDO, name, "checkout"], env={"DDO_CACHE": "cache"}) for name in ("apply", "revert")}
READING = {
    "refset info": Case([*DDO, "refset", "info", "set"]),
    "refset verify": Case([*DDO, "refset", "verify", "set"]),
    "validate": Case([*DDO, "validate", "recipe.toml"], env=STAND_IN),
    "selfplay --dry-run": Case([*DDO, "selfplay", "recipe.toml", "--dry-run"], env=STAND_IN),
    "plan": Case([*DDO, "plan", "edm-cifar10-uncond"]),
    "inspect": Case([*DDO, "inspect", "network.pkl", "--checkout=checkout"]),
}


def fill_with_checkouts(folder: Path, upstream: Path) -> dict[str, Path]:
    """Return a folder for each case of PATCHING, with the files of an upstream's checkout that the case changes."""
    worlds = {name: folder / name for name in PATCHING}
    for world in worlds.values():
        shutil.copytree(upstream, world / "checkout", ignore=shutil.ignore_patterns(".git", "*.png", "*.ipynb"))
    env = {**os.environ, "DDO_CACHE": str(folder / "cache")}
    run_python([*DDO, "apply", worlds["revert"] / "checkout"], env=env).check_returncode()
    return worlds
