"""The demo's training script with `--ddo`: the smallest integration, and what its user sees when something is wrong."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from ddo_integrations.demo.families import build, load_snapshot
from ddo_integrations.demo.names import FAMILIES
from ddo_integrations.demo.plugin import FinetuningLoss
from ddo_integrations.demo.train import MaximumLikelihood
from ddo_plugin.finetuning import statistics
from ddo_plugin.finetuning.session import Session
from ddo_plugin.hooks.types import Reference, Run
from ddo_plugin.objective.ddo import MLE
from ddo_plugin.snapshots import sidecar
from tests.processes import run_python


def command(module: str, **flags: object) -> list[str]:
    options = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    return ["-m", f"ddo_integrations.demo.{module}", *options]


def run(module: str, **flags: object) -> subprocess.CompletedProcess[str]:
    return run_python(command(module, **flags))


def refset(family: str, data: Path, network: Path, out: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    own = ["--upstream=digits", f"--family={family}", f"--data={data}", f"--network={network}", f"--out={out}"]
    return run_python(["-m", "ddo_plugin", "refset", "make", *own, *flags])


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory, data: Path, base) -> Path:
    out = tmp_path_factory.mktemp("fakes") / "diffusion"
    made = refset("diffusion", data, base("diffusion"), out, "--count=50", "--seed=3")
    assert made.returncode == 0, made.stderr
    return out


def test_the_first_loss_is_one_plus_alpha_times_ln2_and_r_is_exactly_0(tmp_path, data, base, fakes) -> None:
    flags = {"family": "diffusion", "data": data, "outdir": tmp_path, "steps": 2}
    done = run("train", **flags, ddo=base("diffusion"), ddo_fakes=fakes, ddo_alpha=3, ddo_beta=0.5)
    assert done.returncode == 0, done.stderr
    first = statistics.read(tmp_path / statistics.FILE_NAME)[0]
    assert first["loss/real"] + first["loss/fake"] == pytest.approx(4 * math.log(2), rel=1e-6)
    assert first["rewards/real"] == first["rewards/fake"] == 0
    assert first["logps/real"] == first["logps/real_ref"]


@pytest.mark.parametrize("family", FAMILIES)
def test_neon_is_the_native_training_on_fakes(family: str, data, base) -> None:
    """Loss and gradients are those of the native loss, bit for bit, and only the names of the statistics differ."""
    model = build(family, data)
    samples, labels = model.real_samples()[:40], torch.from_numpy(model.digits.labels[:40])
    reference = Reference(load_snapshot(base(family), family, model), "base", "0" * 64)
    drawn = SimpleNamespace(draw=lambda count: (samples[:count], labels[:count]))
    run = Run("digits", Path("nowhere"), {"ddo_noise": "paired"})
    loss = FinetuningLoss(Session(run, MLE(trains_on="fakes"), reference, drawn), model)
    loss.session.judge = lambda terms, step: loss.session.objective(terms)
    real, other = model.real_samples()[40:80], torch.zeros(40, dtype=torch.long)
    found = []
    for compute, batch in ((loss, (real, other)), (MaximumLikelihood(model), (samples, labels))):
        network = load_snapshot(base(family), family, model)
        torch.manual_seed(0)
        value = compute(network, *batch, 0)
        value.backward()
        found.append([value, *(parameter.grad for parameter in network.parameters())])
    assert all(map(torch.equal, *found))


def test_neon_writes_statistics_of_fakes_and_needs_some(tmp_path, data, base, fakes) -> None:
    flags = {"family": "diffusion", "data": data, "outdir": tmp_path, "steps": 20, "ddo": base("diffusion")}
    flags |= {"ddo_objective": "neon", "ddo_stop_on_collapse": 0.01}
    refused = run("train", **flags)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "--ddo needs --ddo-fakes=PATH: samples of the reference" in refused.stderr
    assert run("train", **flags, ddo_fakes=fakes).returncode == 0
    rows = statistics.read(tmp_path / statistics.FILE_NAME)
    assert [row.keys() for row in rows] == [{"step", "loss/fake", "logps/fake", "nonfinite"}] * 20


def test_noise_is_paired_unless_the_user_asks_for_independent_noise(tmp_path, data, base, fakes) -> None:
    flags = {"family": "diffusion", "data": data, "steps": 3, "ddo": base("diffusion"), "ddo_fakes": fakes}
    rows = {}
    for name, noise in {"default": {}, **{name: {"ddo_noise": name} for name in ("paired", "independent")}}.items():
        assert run("train", **flags, outdir=tmp_path / name, **noise).returncode == 0
        rows[name] = statistics.read(tmp_path / name / statistics.FILE_NAME)
    assert rows["default"] == rows["paired"] != rows["independent"]


@pytest.mark.usefixtures("own_interpreters")
def test_a_round_without_a_learning_signal_returns_the_reference(tmp_path, data, base, fakes) -> None:
    """Its snapshot is the reference's moving average: with a vanishing learning rate, the same network."""
    flags = {"family": "diffusion", "data": data, "outdir": tmp_path, "steps": 2, "lr": 1e-30}
    assert run("train", **flags, ddo=base("diffusion"), ddo_fakes=fakes).returncode == 0
    before, after = load_file(base("diffusion")), load_file(tmp_path / "network-000002.safetensors")
    assert all(before[name].equal(after[name]) for name in before)


def test_a_collapse_ends_the_run_with_status_3_and_says_what_to_change(tmp_path, data, base, fakes) -> None:
    flags = {"family": "diffusion", "data": data, "outdir": tmp_path, "steps": 200, "lr": 0.05}
    done = run("train", **flags, ddo=base("diffusion"), ddo_fakes=fakes, ddo_alpha=100, ddo_stop_on_collapse=0.5)
    assert done.returncode == 3
    last = done.stderr.strip().splitlines()[-1]
    assert "collapsed at step" in last
    assert "smaller alpha" in last


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("ddo", "missing.safetensors", "missing.safetensors: no such file"),
        ("ddo", "{tokens}", "snapshot of the family 'tokens', not 'diffusion'"),
        ("ddo_fakes", "{tmp}", "no such reference set"),
        ("ddo_fakes", None, "--ddo needs --ddo-fakes=PATH"),
        ("ddo_objective", "hinge", "unknown objective; available are ddo, mle"),
        ("ddo_alpha", -1, "x>=0"),
        ("ddo_beta", 0, "x>0"),
    ],
)
def test_bad_input_is_one_line_and_status_2(flag, value, message, tmp_path, data, base, fakes) -> None:
    flags = {"ddo": base("diffusion"), "ddo_fakes": fakes, flag: value}
    if isinstance(value, str):
        flags[flag] = value.format(tokens=base("tokens"), tmp=tmp_path)
    given = {name: value for name, value in flags.items() if value is not None}
    out = tmp_path / "out"
    done = run("train", family="diffusion", data=data, outdir=out, steps=2, **given)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


@pytest.mark.usefixtures("own_interpreters")
def test_a_damaged_reference_set_is_refused(tmp_path, data, base, fakes) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(fakes, damaged)
    array = damaged / "images.npy"
    array.write_bytes(array.read_bytes()[:-100])
    flags = {"family": "diffusion", "data": data, "outdir": tmp_path / "out", "steps": 2}
    done = run("train", **flags, ddo=base("diffusion"), ddo_fakes=damaged)
    assert done.returncode == 2
    assert "images.npy is missing or truncated" in done.stderr


def test_a_reference_set_says_what_made_it(fakes, base) -> None:
    manifest = json.loads((fakes / "manifest.json").read_text())
    assert (manifest["count"], manifest["seed"], manifest["sampler"]["name"]) == (50, 3, "heun")
    assert manifest["reference"]["source"] == base("diffusion").name


def test_a_paused_run_ends_where_an_unpaused_one_does(tmp_path, data, base, fakes) -> None:
    """Pauses go by snapshots; a pause that was made already is not made again."""
    flags = {"family": "diffusion", "data": data, "ddo": base("diffusion"), "ddo_fakes": fakes, "steps": 40, "snap": 10}
    assert run("train", **flags, outdir=tmp_path / "whole").returncode == 0
    for pause_after, left in ((1, [10]), (3, [10, 20, 30]), (2, [10, 20, 30])):
        done = run("train", **flags, outdir=tmp_path / "paused", ddo_pause_after=pause_after)
        assert done.returncode == 0, done.stderr
        assert "paused; run the same command without --ddo-pause-after" in done.stderr
        assert sidecar.steps(tmp_path / "paused") == left
    assert run("train", **flags, outdir=tmp_path / "paused", ddo_pause_after=9).returncode == 0
    for file in ("network-000040.safetensors", statistics.FILE_NAME):
        assert (tmp_path / "paused" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_run_resumed_in_the_middle_does_not_expect_r_to_be_0(tmp_path, data, base, fakes) -> None:
    flags = {"family": "diffusion", "data": data, "outdir": tmp_path, "lr": 3e-3, "ddo": base("diffusion")}
    flags |= {"ddo_fakes": fakes, "ddo_beta": 1, "dump": 20}
    argv = [sys.executable, *command("train", **flags, steps=2000)]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "training-state.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate()
    done = run("train", **flags, steps=60)
    assert done.returncode == 0, done.stderr
