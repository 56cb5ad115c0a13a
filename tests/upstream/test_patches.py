"""The patches on the real upstreams, at HEAD and at older commits."""

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.processes import run_python

# Pristine upstream wants NCCL and a GPU before it prints its options; this lets it start on any machine.
ANY_MACHINE = """
import torch
start = torch.distributed.init_process_group
torch.distributed.init_process_group = lambda backend=None, **rest: start(backend="gloo", **rest)
torch.cuda.set_device = lambda device: None
"""
UPSTREAMS = {"edm": "train.py", "edm2": "train_edm2.py"}
COMMITS = [("edm", back) for back in range(4)] + [("edm2", back) for back in range(6)]


@pytest.fixture
def clone(checkout, tmp_path):
    """A function: upstream, so many commits before HEAD -> a clone of its own."""

    def make(name: str, back: int = 0, *options: str) -> Path:
        folder = tmp_path / name
        run("git", "clone", "--quiet", *options, str(checkout(name)), str(folder))
        run("git", "-C", str(folder), "checkout", "--quiet", f"HEAD~{back}")
        return folder

    return make


@pytest.fixture(autouse=True)
def environment(tmp_path, monkeypatch):
    monkeypatch.setenv("DDO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)


@pytest.fixture
def any_machine(tmp_path, monkeypatch):
    (tmp_path / "rig").mkdir()
    (tmp_path / "rig/sitecustomize.py").write_text(ANY_MACHINE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "rig"))
    monkeypatch.setenv("MASTER_PORT", str(20000 + os.getpid() % 20000))


@pytest.fixture
def dataset(tmp_path):
    """Four black images with labels, as upstream's dataset tool packs them."""
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(4):
            buffer = io.BytesIO()
            image.new("RGB", (8, 8)).save(buffer, "png")
            archive.writestr(f"{number}.png", buffer.getvalue())
        archive.writestr("dataset.json", json.dumps({"labels": [[f"{n}.png", n % 2] for n in range(4)]}))
    return path


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, f"{done.args}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def run(*command: str, cwd: Path | None = None) -> str:
    return succeeded(subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300))


def python(*arguments: str, cwd: Path | None = None) -> str:
    return succeeded(run_python(arguments, cwd=cwd))


def ddo(*arguments: str, cwd: Path | None = None) -> str:
    return python("-m", "ddo_plugin", *arguments, cwd=cwd)


def changed(folder: Path) -> str:
    return run("git", "-C", str(folder), "status", "--porcelain")


def added_and_deleted(folder: Path) -> list[str]:
    return run("git", "-C", str(folder), "diff", "--numstat").split("\t")[:2]


@pytest.mark.parametrize(("name", "back"), COMMITS)
def test_apply_inserts_three_lines_and_revert_restores_every_byte(clone, name, back):
    folder = clone(name, back)
    before = (folder / UPSTREAMS[name]).read_bytes()
    ddo("apply", str(folder))
    assert added_and_deleted(folder) == ["3", "0"]
    once = (folder / UPSTREAMS[name]).read_bytes()
    compile(once, UPSTREAMS[name], "exec")
    ddo("apply", str(folder))
    assert (folder / UPSTREAMS[name]).read_bytes() == once
    ddo("revert", str(folder))
    assert (folder / UPSTREAMS[name]).read_bytes() == before
    assert changed(folder) == ""


def test_the_older_edm2_is_another_file_so_its_places_are_found_by_content(clone):
    folder = clone("edm2", 1)
    assert "train_edm2.py: patchable" in ddo("status", str(folder))
    ddo("apply", str(folder))
    lines = (folder / "train_edm2.py").read_text().split("\n")
    assert lines[lines.index('@inject.options("edm2")') + 1].startswith("def cmdline(")
    (configure,) = [number for number, line in enumerate(lines) if "inject.configure(" in line]
    assert "setup_training_config(" in lines[configure - 1]
    assert "print_training_config(" in lines[configure + 1]


@pytest.mark.parametrize("name", UPSTREAMS)
def test_a_checkout_with_windows_line_ends_is_patched_and_restored(clone, name):
    folder = clone(name, 0, "--config", "core.autocrlf=true")
    script = folder / UPSTREAMS[name]
    before = script.read_bytes()
    assert b"\r\n" in before
    ddo("apply", str(folder))
    assert script.read_bytes().count(b"\n") == script.read_bytes().count(b"\r\n") == before.count(b"\n") + 3
    assert added_and_deleted(folder) == ["3", "0"]
    ddo("revert", str(folder))
    assert script.read_bytes() == before
    assert changed(folder) == ""


@pytest.mark.parametrize("name", UPSTREAMS)
def test_help_shows_ddo_below_upstreams_own_options(clone, name):
    folder = clone(name)
    ddo("apply", str(folder))
    text = python(UPSTREAMS[name], "--help", cwd=folder)
    assert text.index("--outdir") < text.index("--dry-run") < text.index("--ddo ") < text.index("--ddo-beta")


@pytest.mark.parametrize("name", UPSTREAMS)
def test_a_patched_script_without_ddo_prints_the_options_of_the_pristine_one(clone, any_machine, dataset, name):
    folder = clone(name)
    command = [UPSTREAMS[name], "--outdir=out", f"--data={dataset}", "--seed=1", "--dry-run"]
    pristine = python(*command, cwd=folder)
    ddo("apply", str(folder))
    assert python(*command, cwd=folder) == pristine
    assert "Dry run" in pristine


@pytest.mark.parametrize("name", UPSTREAMS)
def test_run_does_the_same_and_leaves_the_checkout_clean(clone, any_machine, dataset, name, tmp_path):
    folder = clone(name)
    arguments = ["--outdir=out", "--data=data.zip", "--seed=1", "--dry-run"]
    ran = ddo("run", name, UPSTREAMS[name], "--", *arguments, cwd=tmp_path)
    assert changed(folder) == ""
    ddo("apply", str(folder))
    assert ran == python(str(folder / UPSTREAMS[name]), *arguments, cwd=tmp_path)


@pytest.mark.thorough
@pytest.mark.parametrize("way", ["torchrun starts ddo", "ddo starts torchrun"])
def test_run_works_on_two_ranks(clone, any_machine, dataset, tmp_path, way):
    folder = clone("edm")
    script = ["edm", "train.py", "--", "--outdir=out", "--data=data.zip", "--seed=1", "--dry-run"]
    if way == "torchrun starts ddo":
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        text = run(*torchrun, "-m", "ddo_plugin", "run", *script, cwd=tmp_path)
    else:
        text = ddo("run", "--torchrun", "--standalone --nproc_per_node=2", *script, cwd=tmp_path)
    assert "Number of GPUs:          2" in text
    assert changed(folder) == ""


@pytest.mark.parametrize("name", ["edm", "edm2", "VAR"])
def test_each_upstream_is_known_by_its_content_whatever_its_folder_is_called(clone, tmp_path, name):
    folder = clone(name).rename(tmp_path / "something")
    title = {"edm": "EDM (NVlabs/edm)", "edm2": "EDM2 (NVlabs/edm2)", "VAR": "VAR (FoundationVision/VAR)"}[name]
    assert ddo("status", cwd=folder).startswith(f"{title} in {folder}")
