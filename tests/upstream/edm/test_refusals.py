"""What `train.py --ddo` refuses, in one line, with status 2, before anything is written."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

DURATION = "0.001"  # what a round that is not refused would take


def test_bad_inputs_that_every_upstream_refuses(bad_input, attempt) -> None:
    flags, replaced, message = bad_input
    assert message in attempt(*flags, **replaced)


def test_a_pickle_that_would_run_code_and_none_of_it_runs(attempt, tmp_path) -> None:
    marker = tmp_path / "executed"

    class Evil:
        def __reduce__(self):
            return Path.touch, (marker,)

    evil = tmp_path / "evil.pkl"
    evil.write_bytes(pickle.dumps({"ema": Evil()}))
    assert "--ddo-trust" in attempt(ddo=evil)
    assert not marker.exists()
    pickle.loads(evil.read_bytes())
    assert marker.exists()  # the stock loader, which upstream uses, runs it


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--arch=ncsnpp", "--arch=ncsnpp means embedding_type=fourier"),
        ("--cbase=16", "--cbase=16 means model_channels=16, but the reference has 8"),
        ("--cres=1,2", "drop --cres"),
        ("--precond=vp", "--precond=vp: the reference is a EDMPrecond"),
    ],
)
def test_flags_that_contradict(flag: str, message: str, attempt) -> None:
    assert message in attempt(flag)


@pytest.mark.parametrize(("flag", "why"), [("--ddo-alpha=-1", "x>=0"), ("--ddo-beta=0", "x>0")])
def test_impossible_numbers(flag: str, why: str, world, tmp_path) -> None:
    process = world.finetune(flag, f"--outdir={tmp_path / 'out'}")
    assert process.returncode == 2
    assert why in process.stderr


@pytest.mark.usefixtures("own_interpreters")  # torch reads CXX once
def test_compile_without_a_compiler(world, refused, tmp_path) -> None:
    compiler = {"CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}
    out = tmp_path / "out"
    line = refused(replace(world, variables=compiler).finetune("--ddo-compile", f"--outdir={out}"))
    assert "--ddo-compile: torch.compile fails here: " in line and "No working C++ compiler" in line
    assert "drop --ddo-compile" in line
    assert not out.exists()


@pytest.mark.usefixtures("own_interpreters")
def test_transfer(attempt, world) -> None:
    assert "drop --transfer" in attempt(f"--transfer={world.base}")


def test_data_of_another_resolution(attempt, images, tmp_path) -> None:
    data = images(tmp_path / "large.zip", side=16)
    assert "has (1, 16, 3) channels, resolution and classes" in attempt(f"--data={data}")


def test_fakes_of_another_resolution(attempt, images, tmp_path) -> None:
    fakes = images(tmp_path / "large-fakes.zip", side=16)
    assert "images are (1, 16, 16)" in attempt(ddo_fakes=fakes)


def test_fakes_of_another_reference_if_strict(attempt, world, tmp_path) -> None:
    fakes = tmp_path / "others"
    shutil.copytree(world.fakes, fakes)
    manifest = json.loads((fakes / "manifest.json").read_text())
    manifest["reference"]["sha256"] = "0" * 64
    (fakes / "manifest.json").write_text(json.dumps(manifest))
    assert "SHA-256 000000000000…" in attempt("--ddo-strict", ddo_fakes=fakes)


def test_parts_of_a_batch_that_do_not_fit(attempt) -> None:
    assert "in parts of --batch-gpu=5" in attempt("--batch-gpu=5")


def test_guided_fakes_if_strict(attempt, world, tmp_path) -> None:
    fakes = tmp_path / "guided"
    shutil.copytree(world.fakes, fakes)
    manifest = json.loads((fakes / "manifest.json").read_text())
    manifest["sampler"]["departs_by"] = ["guidance"]
    (fakes / "manifest.json").write_text(json.dumps(manifest))
    assert "were sampled with --guidance" in attempt("--ddo-strict", ddo_fakes=fakes)


def test_a_state_of_a_run_that_was_no_ddo_run(attempt, world) -> None:
    state = world.root / "base/training-state-000001.pt"
    assert "is not a training state of a DDO run" in attempt(f"--resume={state}")
