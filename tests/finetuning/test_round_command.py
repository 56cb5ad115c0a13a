"""A round of the three upstreams as a command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ddo_plugin.hooks import plugins
from ddo_plugin.hooks.types import RoundStep

ENDS = {
    "edm": ("train.py", ["--outdir=out", "--nosubdir"]),
    "edm2": ("train_edm2.py", ["--outdir=out"]),
    "var": ("train.py", ["--local_out_dir_path=out"]),
}


def argv(upstream: str, fakes: Path | None = None, **settings: object) -> list[str]:
    given = {"checkout": "repo", **{name.replace("_", "-"): value for name, value in settings.items()}}
    step = RoundStep(upstream, Path("a.pkl"), fakes, Path("out"), "ddo", 2.0, 0.05, 7, given)
    return list(plugins.manager().hook.ddo_round_command(step=step).argv)


@pytest.mark.parametrize("upstream", ENDS)
def test_it_is_ddo_run_of_the_training_script(upstream: str) -> None:
    script, outdir = ENDS[upstream]
    ours = ["--seed=7", "--ddo=a.pkl", "--ddo-fakes=set", "--ddo-objective=ddo", "--ddo-alpha=2.0", "--ddo-beta=0.05"]
    expected = ["repo", script, "--", *outdir, "--lr=0.1", *ours, "--ddo-continue"]
    assert argv(upstream, Path("set"), lr=0.1) == [sys.executable, "-m", "ddo_plugin", "run", *expected]


def test_torchrun_gets_its_options_in_one_piece() -> None:
    assert "--torchrun=--nnodes=2 --rdzv-endpoint=host:1" in argv("edm", torchrun="--nnodes=2 --rdzv-endpoint=host:1")


def test_online_fakes_are_not_named() -> None:
    assert not [flag for flag in argv("var") if flag.startswith("--ddo-fakes")]


def test_our_switches_stand_alone_and_upstreams_booleans_have_values() -> None:
    made = argv("edm", ddo_strict=True, ddo_trust=False, cond=True, xflip=False)
    assert [flag for flag in made if flag.startswith(("--ddo-strict", "--ddo-trust"))] == ["--ddo-strict"]
    assert {"--cond=1", "--xflip=0"} <= set(made)
