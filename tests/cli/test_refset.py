"""`ddo refset` and `ddo sample` as a person meets them, with the demo's networks."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ddo_plugin.base.files import sha256_file
from ddo_plugin.sampling.refsets import format as refset
from tests.processes import run_python

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(scope="module")
def network(demo_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Prepared digits and an untrained network of the demo."""
    from ddo_integrations.demo.families import build

    root = tmp_path_factory.mktemp("network")
    torch.manual_seed(0)
    state = build("diffusion", demo_data).network().state_dict()
    save_file(state, root / "network.safetensors", metadata={"family": "diffusion"})
    return demo_data, root / "network.safetensors"


@pytest.fixture
def ddo(network: tuple[Path, Path], tmp_path: Path):
    def run(*command: str, torchrun: bool = False) -> subprocess.CompletedProcess[str]:
        data, path = network
        own = ["--upstream=digits", "--family=diffusion", f"--data={data}", f"--network={path}"]
        flags = own if command[-1] == "--own" else []
        launcher = ["--torchrun=--standalone --nproc_per_node=2"] if torchrun else []
        arguments = [argument for argument in command if argument != "--own"]
        return run_python(["-m", "ddo_plugin", *arguments, *flags, *launcher], cwd=tmp_path)

    return run


def test_a_set_is_made_told_verified_and_not_made_twice(ddo, tmp_path: Path) -> None:
    made = ddo("refset", "make", "--out=set", "--count=30", "--seed=2", "--batch=8", "--own")
    assert made.returncode == 0, made.stderr
    assert made.stdout == "set: 30 images of 1×8×8, uint8, with labels\n"
    told = ddo("refset", "info", "set").stdout
    assert "seed     2" in told
    assert "sampler  name heun, steps 18, batch 8, device cpu" in told
    assert "classes  10; samples of each: 3" in told
    assert ddo("refset", "verify", "set").stdout.endswith("checksums match\n")
    again = ddo("refset", "make", "--out=set", "--count=30", "--seed=2", "--batch=8", "--own")
    assert (again.returncode, again.stdout.strip().endswith("nothing to do")) == (0, True)
    other = ddo("refset", "make", "--out=set", "--count=30", "--seed=3", "--batch=8", "--own")
    assert other.returncode == 2
    assert "set holds another set: its seed is 2, not 3" in other.stderr


def test_torchrun_makes_the_same_set(ddo, tmp_path: Path) -> None:
    for name, torchrun in (("one", False), ("two", True)):
        made = ddo(
            "refset", "make", f"--out={name}", "--count=30", "--batch=8", "--labels=0-3", "--own", torchrun=torchrun
        )
        assert made.returncode == 0, made.stderr
    one, two = (refset.open_refset(tmp_path / name) for name in ("one", "two"))
    assert one.manifest["arrays"] == two.manifest["arrays"]
    assert set(one.labels.tolist()) == {0, 1, 2, 3}


@pytest.mark.thorough  # quick: one rank is killed in tests/sampling/refsets/test_make.py
def test_two_ranks_that_are_killed_twice_make_the_set_of_one_that_is_not(network, ddo, tmp_path: Path) -> None:
    """The whole process group, by SIGKILL, each time after some blocks more are on the disk."""
    data, path = network
    flags = ["--upstream=digits", "--family=diffusion", f"--data={data}", f"--network={path}", "--count=4000"]
    launcher = "--torchrun=--standalone --nproc_per_node=2"
    command = [sys.executable, "-m", "ddo_plugin", "refset", "make", "--out=set", *flags, "--batch=10", launcher]
    done = 0
    for _ in range(2):
        process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL)
        while (now := sum(file.stat().st_size for file in tmp_path.glob(".set.unfinished/done-*"))) <= done:
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done = now
    assert not (tmp_path / "set").exists()
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert ddo("refset", "make", "--out=one", "--count=4000", "--batch=10", "--own").returncode == 0
    killed, whole = (refset.open_refset(tmp_path / name).manifest["arrays"] for name in ("set", "one"))
    assert killed == whole


@pytest.mark.usefixtures("own_interpreters")
def test_a_damaged_set_is_found(ddo, tmp_path: Path) -> None:
    assert ddo("refset", "make", "--out=set", "--count=5", "--own").returncode == 0
    file = tmp_path / "set/images.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    found = ddo("refset", "verify", "set")
    assert found.returncode == 2
    assert "images.npy is damaged" in found.stderr


def test_what_a_manifest_says_does_not_steer_the_terminal(ddo, tmp_path: Path) -> None:
    made_by = {"source": "a\x1b[2Jb\n.pkl", "sha256": "ab"}
    refset.write(
        tmp_path / "set", np.zeros((2, 1, 4, 4), np.uint8), None, kind="images", reference=made_by, sampler={}, seed=0
    )
    assert "  network  a [2Jb .pkl, sha256 ab\n" in ddo("refset", "info", "set").stdout


def test_images_of_a_network_are_looked_at_in_one_command(ddo, tmp_path: Path) -> None:
    made = ddo("sample", "--grid=look.png", "--npz=look.npz", "--labels=uniform", "--seeds=0-19", "--own")
    assert made.returncode == 0, made.stderr
    assert np.load(tmp_path / "look.npz")["arr_0"].shape == (20, 8, 8, 1)
    names = ["look.npz", "look.npz.json", "look.png", "look.png.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert made.stdout == "20 images: look.npz, look.png\n"


def test_sigterm_leaves_no_temporary_file(network, tmp_path: Path) -> None:
    data, path = network
    own = ["--upstream=digits", "--family=diffusion", f"--data={data}", f"--network={path}"]
    images = ["--npz=look.npz", "--grid=look.png", "--seeds=0-99999", "--batch=10"]
    command = [sys.executable, "-m", "ddo_plugin", "sample", *images, *own]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    while len(list(tmp_path.iterdir())) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    assert process.wait() == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_what_made_images_stands_beside_them(ddo, network, tmp_path: Path) -> None:
    for flags in (["--seeds=0-2"], ["--seeds=3,5", "--labels=uniform", "--batch=1"], ["--seeds=0-2"]):
        assert ddo("sample", "--outdir=out", "--npz=a.npz", *flags, "--own").returncode == 0
    told = json.loads((tmp_path / "a.npz.json").read_text())
    assert told["reference"] == {"source": "network.safetensors", "sha256": sha256_file(network[1])}
    own = {"batch": 500, "ranks": 1, "device": "cpu"}
    assert told["sampler"] == {"name": "heun", "steps": 18, **own}
    assert (told["seeds"], told["labels"]) == ("0-2", "random")
    runs = json.loads((tmp_path / "out/samples.json").read_text())["runs"]
    assert [(one["seeds"], one["labels"]) for one in runs] == [("3,5", "uniform"), ("0-2", "random")]
    assert ddo("refset", "pack", "out", "set").stdout == "set: 5 images of 1×8×8, uint8, with labels\n"
    assert "seed     not recorded" in ddo("refset", "info", "set").stdout


def test_images_of_an_earlier_run_in_the_folder_are_mentioned(ddo) -> None:
    assert "other seeds" not in ddo("sample", "--outdir=out", "--seeds=0-9", "--own").stderr
    again = ddo("sample", "--outdir=out", "--seeds=5-11", "--own")
    assert "ddo: out also holds 5 PNGs of other seeds" in again.stderr
    assert again.stdout == "7 images: out\n"


@pytest.mark.parametrize(
    "command",
    [
        ["sample", "--npz=file/a.npz"],
        ["sample", "--outdir=out", "--grid=file/a.png"],
        ["refset", "make", "--out=file/a"],
    ],
)
def test_a_place_that_takes_nothing_is_told_in_one_line(ddo, tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "file").touch()
    done = ddo(*command, "--own")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(r"Error: file/a\S* cannot be written \(", done.stderr)
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_cannot_be_packed_or_unpacked_there_is_told_in_one_line(ddo, tmp_path: Path) -> None:
    assert ddo("sample", "--outdir=png", "--seeds=0-2", "--own").returncode == 0
    assert ddo("refset", "pack", "png", "set").returncode == 0
    (tmp_path / "file").touch()
    for command in (("pack", "png", "file/set"), ("unpack", "set", "file/a.zip")):
        done = ddo("refset", *command)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith(f"Error: {command[-1]} cannot be written (")
        assert len(done.stderr.splitlines()) == 1
    here = ddo("refset", "pack", "png", ".")
    assert (here.returncode, here.stderr) == (
        2,
        "Error: . already exists and is not overwritten; choose another place, or remove it\n",
    )


@pytest.mark.skipif(not Path("/dev/shm").is_dir() or os.geteuid() != 0, reason="needs a small disk of its own")
def test_a_full_disk_is_told_in_one_line(ddo, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path / "small"], check=False)
    if mounted.returncode:
        pytest.skip("may not mount")
    try:
        assert ddo("sample", "--outdir=png", "--seeds=0-1999", "--own").returncode == 0
        done = ddo("refset", "pack", "png", "small/set")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert "small/set cannot be written (No space left" in done.stderr
    finally:
        subprocess.run(["umount", tmp_path / "small"], check=True)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["sample", "--own"], "nothing to write; add --outdir, --npz or --grid"),
        (["sample", "--grid=a.png", "--seeds=5-1", "--own"], "'5-1' holds no number"),
        (["sample", "--grid=a.png", "--labels=11", "--own"], "contains class 11, but the network has classes 0 to 9"),
        (["refset", "make", "--out=a", "--network=b"], "cannot determine the network's upstream"),
        (
            ["refset", "make", "--out=a", "--network=b", "--upstream=dit"],
            "--upstream=dit: no plugin has this upstream; choose from",
        ),
        (
            ["refset", "make", "--out=a", "--network=b", "--upstream=var"],
            "--upstream=var needs a checkout: run this command in the upstream's checkout, or add --checkout=",
        ),
        (
            ["sample", "--grid=a.png", "--labels=foo", "--own"],
            "--labels=foo: pass random, uniform, dataset:PATH, or class numbers such as 0,3,5-7",
        ),
        (
            ["refset", "make", "--out=a", "--labels=random", "--own"],
            "--labels=random: pass uniform, dataset:PATH, or class numbers such as 0,3,5-7",
        ),
        (["sample", "--grid=a.png", "--seeds=0-99999999999", "--own"], "holds more than 10,000,000 numbers"),
        (["refset", "make", "--out=a", "--count=99999999999999", "--own"], "'--count': 99999999999999 is not in"),
        (["sample", "--grid=a.jpg", "--own"], "--grid=a.jpg: the grid is a PNG; choose a name that ends in .png"),
        (["sample", "--outdir=a", "--seeds=0,0,1", "--own"], "--seeds=0,0,1 contains a seed twice"),
        (["sample", "--outdir=", "--own"], "Invalid value for '--outdir': the path is empty; pass a file or folder."),
        (["sample", "--npz=", "--own"], "Invalid value for '--npz': the path is empty; pass a file or folder."),
        (["refset", "make", "--out=", "--own"], "Invalid value for '--out': the path is empty; pass a file or folder."),
        (["refset", "verify", "nowhere"], "nowhere is not a reference set: no such folder"),
        (["refset", "make", "--out=a", "--network=b", "--checkout=nowhere"], "nowhere: no such folder"),
    ],
)
def test_what_cannot_work_is_refused_in_words(ddo, tmp_path: Path, command: list[str], says: str) -> None:
    done = ddo(*command)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told_in_one_line(ddo, monkeypatch) -> None:
    monkeypatch.setenv("DDO_DEVICE", "cuda")
    done = ddo("sample", "--grid=a.png", "--own")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "but torch finds none; unset it" in done.stderr


def test_help_shows_the_options_of_an_upstreams_networks() -> None:
    def help_of(*flags: str) -> str:
        return run_python(["-m", "ddo_plugin", "refset", "make", *flags, "--help"], cwd="/").stdout

    assert "--S_churn" not in help_of()
    assert "run this in its checkout or add --upstream" in " ".join(help_of().split())
    assert "--S_churn" in help_of("--upstream=edm")
    assert "--guidance" in help_of("--upstream=edm2")
